"""Shards, parquet files and saved datasets give the rows that other tools put in, in any order, from any process."""

import io
import json
import tarfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from embodied.data.multimodal import BrokenSample, load_image
from embodied.data.multimodal.readers import webdataset
from embodied.data.multimodal.readers.huggingface import HuggingFace
from embodied.data.multimodal.readers.interleaved import Obelics
from embodied.data.multimodal.readers.webdataset import WebDataset


def picture(number):
    """(8, 8, 3), different for each number."""
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)


def packed(number):
    out = io.BytesIO()
    Image.fromarray(picture(number)).save(out, "PNG")
    return out.getvalue()


def pixels(sample):
    return [np.asarray(load_image(reference)) for reference in sample.images()]


def said(sample):
    return [(m["role"], "".join(p.get("text", "<>") for p in m["content"])) for m in sample.messages]


# Shards


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            data = data if isinstance(data, bytes) else data.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path):
    for number in range(3):
        members = []
        for key in range(2):
            name, value = f"set/{number}{key}", 10 * number + key
            members += [(f"{name}.png", packed(value)), (f"{name}.txt", f"Picture {value}.\n")]
            members += [(f"{name}.json", json.dumps({"url": f"u{value}"})), (f"{name}.pyd", b"\x80\x04N.")]
        shard(tmp_path / f"shard-{number}.tar", members)
    return tmp_path


def test_the_files_of_a_sample_are_put_together_whatever_is_asked_for_first(shards):
    read = WebDataset(str(shards / "shard-*.tar"), meta=["url"])
    assert len(read) == 6
    for index in (5, 0, 3, 1, 4, 2):
        value = 10 * (index // 2) + index % 2
        sample = read[index]
        assert sample.id == f"set/{index // 2}{index % 2}" and sample.meta["url"] == f"u{value}"
        assert said(sample)[1] == ("assistant", f"Picture {value}.")
        np.testing.assert_array_equal(pixels(sample)[0], picture(value))


def test_the_index_of_a_shard_is_made_once_and_anew_when_the_shard_changes(shards, monkeypatch):
    first = list(WebDataset(str(shards / "shard-*.tar"), index=shards / "index"))
    with monkeypatch.context() as patched:
        patched.setattr(tarfile, "open", lambda *a, **k: pytest.fail("looked through again"))
        assert list(WebDataset(str(shards / "shard-*.tar"), index=shards / "index")) == first
    shard(shards / "shard-1.tar", [("z.png", packed(1)), ("z.txt", "New.")])
    assert [s.id for s in WebDataset(str(shards / "shard-*.tar"), index=shards / "index")][2:4] == ["z", "set/20"]


def test_several_pictures_and_conversations_of_one_sample(tmp_path):
    talk = {"conversations": [{"from": "human", "value": "<image>\n<image>\nSame?"}, {"from": "gpt", "value": "No."}]}
    shard(tmp_path / "a.tar", [("k.0.png", packed(0)), ("k.1.png", packed(1)), ("k.json", json.dumps(talk))])
    (sample,) = WebDataset(tmp_path / "a.tar")
    assert said(sample) == [("user", "<><>Same?"), ("assistant", "No.")]
    for number, found in enumerate(pixels(sample)):
        np.testing.assert_array_equal(found, picture(number))


def test_broken_samples_of_a_shard_are_told_with_shard_and_key(tmp_path):
    good = [("a.png", packed(0)), ("a.txt", "Good.")]
    file = shard(tmp_path / "a.tar", [*good, ("b.png", packed(0)), ("c.json", "{"), ("d.json", "[1]"), ("e.txt", " ")])
    read = WebDataset(file, on_error="skip")
    assert [s.id for s in read] == ["a"]
    assert read.faults.reasons == {"wrong field": 2, "broken record": 1, "empty answer": 1}
    assert f"{file}, sample 'b': it has none of messages" in str(read.faults.examples["wrong field"])
    assert f"{file}, sample 'c': its .json is not valid JSON" in str(read.faults.examples["broken record"])


def test_a_shard_that_was_cut_short_stops_or_gives_what_is_left(shards):
    whole = (shards / "shard-1.tar").read_bytes()
    with tarfile.open(shards / "shard-1.tar") as archive:
        last = archive.getmember("set/11.json")
    (shards / "shard-1.tar").write_bytes(whole[: last.offset_data + 2])
    with pytest.raises(BrokenSample, match=r"shard-1\.tar: the shard was cut short"):
        WebDataset(str(shards / "shard-*.tar"))
    read = WebDataset(str(shards / "shard-*.tar"), on_error="skip")
    assert len(list(read)) == 6 and read.faults.reasons == {"broken record": 1}


def test_what_is_no_shard_is_told(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"no archive at all" * 100)
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    for name in ("x.tar", "x.tar.gz"):
        with pytest.raises(ValueError, match=rf"{name} is not an uncompressed tar file"):
            WebDataset(tmp_path / name)
    with pytest.raises(ValueError, match=r"there is no shard .*none\.tar"):
        WebDataset(tmp_path / "none.tar")
    with pytest.raises(ValueError, match=r"a\.txt twice"):
        webdataset.index_of(str(shard(tmp_path / "twice.tar", [("a.txt", "1"), ("a.txt", "2")])))


# Hugging Face

ROWS = [{"question": f"Which is {i}?", "answer": f"It is {i}.", "image": Image.fromarray(picture(i))} for i in range(7)]


@pytest.fixture(params=["saved", "splits", "parquet", "folder"])
def stored(request, tmp_path):
    """The same seven rows, written by `datasets` itself: arguments that read them."""
    rows = datasets.Dataset.from_list(ROWS)
    if request.param == "saved":
        rows.save_to_disk(str(tmp_path / "d"))
        return {"path": tmp_path / "d"}
    if request.param == "splits":
        datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "d"))
        return {"path": tmp_path / "d", "split": "train"}
    (tmp_path / "data").mkdir()
    if request.param == "parquet":
        rows.to_parquet(str(tmp_path / "data" / "x.parquet"), batch_size=3)
        return {"path": tmp_path / "data" / "x.parquet"}
    for number, part in enumerate(([0, 1, 2, 3], [4, 5, 6])):
        rows.select(part).to_parquet(str(tmp_path / "data" / f"train-{number:05d}-of-00002.parquet"), batch_size=2)
    rows.select([0]).to_parquet(str(tmp_path / "data" / "test-00000-of-00001.parquet"))
    return {"path": tmp_path, "split": "train"}


def test_rows_and_their_pictures_are_those_that_datasets_stored(stored):
    read = HuggingFace(**stored)
    assert len(read) == 7
    for index in (6, 0, 3, 5, 1, 4, 2):
        sample = read[index]
        assert said(sample) == [("user", f"<>Which is {index}?"), ("assistant", f"It is {index}.")]
        np.testing.assert_array_equal(pixels(sample)[0], picture(index))
        assert sample.meta["answers"] == [f"It is {index}."]
    assert list(read) == list(HuggingFace(**stored))


def table(tmp_path, rows):
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


PNG = {"bytes": packed(0), "path": None}


@pytest.mark.parametrize(
    "row, wanted",
    [
        (
            {"images": [PNG, PNG], "texts": [{"user": "Q1", "assistant": "A1"}, {"user": "Q2", "assistant": "A2"}]},
            [("user", "<><>Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")],
        ),
        (
            {"image": PNG, "question": "Which?", "options": ["x", "y"], "answer": "B"},
            [("user", "<>Which?\nA. x\nB. y"), ("assistant", "B")],
        ),
        (
            {"image": PNG, "caption": "A picture."},
            [("user", "<>Describe the image in one sentence."), ("assistant", "A picture.")],
        ),
        (
            {
                "images": [PNG],
                "messages": [{"role": "user", "content": "See <image>!"}, {"role": "assistant", "content": "Ah."}],
            },
            [("user", "See <>!"), ("assistant", "Ah.")],
        ),
        (
            {
                "images": [PNG],
                "messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Ah."}],
            },
            [("user", "<>Hm?"), ("assistant", "Ah.")],
        ),
        (
            {
                "images": [PNG],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image", "text": None}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "Ah."}]},
                ],
            },
            [("user", "See<>"), ("assistant", "Ah.")],
        ),
        (
            {"question": "No picture?", "answers": ["no", "none", "none"]},
            [("user", "No picture?"), ("assistant", "none")],
        ),
        ({"image": PNG, "question": "Unanswered?"}, [("user", "<>Unanswered?")]),
    ],
)
def test_the_common_forms_of_rows_become_conversations(tmp_path, row, wanted):
    (sample,) = HuggingFace(table(tmp_path, [row]))
    assert said(sample) == wanted


def test_columns_go_by_the_names_they_are_given(tmp_path):
    file = table(tmp_path, [{"qid": 7, "query": "How?", "label": "So.", "img": PNG, "level": "hard"}])
    keys = {"question": "query", "answer": "label", "images": "img", "id": "qid"}
    (sample,) = HuggingFace(file, keys=keys, meta=["level"], name="charts")
    assert (sample.id, sample.source, sample.meta["level"], sample.answer()) == ("7", "charts", "hard", "So.")
    assert len(sample.images()) == 1
    with pytest.raises(BrokenSample, match="it has none of messages, conversations, texts, question, caption"):
        HuggingFace(file)[0]
    with pytest.raises(ValueError, match=r"keys has 'qestion'.*did you mean 'question'"):
        HuggingFace(file, keys={"qestion": "query"})


@pytest.mark.parametrize(
    "row, says",
    [
        ({"image": {"bytes": None, "path": None}, "question": "q"}, "a picture is a path or bytes"),
        ({"question": "q", "options": ["x", "y"], "answer": "C"}, "'C' is none of its 2 options"),
        ({"question": "q", "answer": ""}, "'answer' is empty|no answer"),
        ({"images": [PNG], "messages": [{"role": "bot", "content": "<image>"}]}, "the role 'bot'"),
        ({"images": [PNG, PNG], "messages": [{"role": "user", "content": "<image>"}]}, "1 <image> marks for 2 images"),
    ],
)
def test_a_broken_row_is_told_with_file_and_number(tmp_path, row, says):
    file = table(tmp_path, [dict.fromkeys(row) | {"question": "fine"}, row])
    with pytest.raises(BrokenSample, match=says) as caught:
        HuggingFace(file)[1]
    assert "x.parquet, sample '1'" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_dataset_is_told(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text("{}")
    datasets.DatasetDict({"train": datasets.Dataset.from_list([{"a": 1}])}).save_to_disk(str(tmp_path / "d"))
    for path, split, says in (
        ("x.parquet", None, "not a parquet file"),
        ("none", None, "does not exist"),
        ("empty", None, "has no parquet files"),
        ("state", None, "is not a folder that datasets' save_to_disk wrote"),
        ("d", None, "no split is told; it has train"),
        ("d", "test", "there is no split 'test'; it has train"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            HuggingFace(tmp_path / path, split)
        assert "\n" not in str(caught.value)


def test_obelics_with_its_pictures_in_the_rows(tmp_path):
    file = table(tmp_path, [{"images": [None, PNG], "texts": ["Before.", None], "general_metadata": "{}"}])
    (sample,) = Obelics(file)
    assert said(sample) == [("assistant", "Before.<>")]
    np.testing.assert_array_equal(pixels(sample)[0], picture(0))
