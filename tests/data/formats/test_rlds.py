"""RLDS episodes in TFRecord files, made here byte by byte, are read exactly and without TensorFlow."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embodied.data.formats import ForeignDataset, Keys, open_source
from embodied.data.formats.tfrecord import masked_crc, parse_example, read_record, record_places

FIRST, SECOND = "toy-train.tfrecord-00000-of-00002", "toy-train.tfrecord-00001-of-00002"


@pytest.fixture
def root(tmp_path, files):
    return files.rlds(tmp_path / "toy")


def opened(root, keys=None, **more):
    return ForeignDataset(open_source(root), keys, fps=5, **more)


def test_every_number_comes_back(root, files, tmp_path):
    dataset = opened(root)
    assert len(dataset) == 3 and dataset.cameras == ("image", "wrist") and dataset.robot == "toy"
    for number in range(3):
        episode, wanted = dataset.episode(number), files.demonstration(number)
        np.testing.assert_array_equal(episode["observation.images.image"], wanted["top"])
        for seen, image in zip(episode["observation.images.wrist"], wanted["wrist"], strict=True):
            (tmp_path / "one.jpg").write_bytes(files.compressed(image, "JPEG"))
            np.testing.assert_array_equal(seen, np.asarray(Image.open(tmp_path / "one.jpg")))
        state = np.concatenate([wanted["position"], wanted["opening"]], axis=1)
        np.testing.assert_array_equal(episode["observation.state"], state)
        np.testing.assert_array_equal(episode["action"], wanted["action"])
        np.testing.assert_array_equal(episode["next.reward"], wanted["reward"])
        np.testing.assert_array_equal(episode["next.done"], wanted["done"])
        assert episode["next.done"].dtype == bool and episode["task"] == f"task {number % 2}"
    assert dataset.records[2] == {"file": SECOND, "record": 0}


def test_negative_integers_and_other_keys(root):
    dataset = opened(root, Keys(extra={"when": "count"}))
    np.testing.assert_array_equal(dataset.episode(1)["when"], np.arange(9) - 2)
    with pytest.raises(ValueError, match="no 'odd'"):
        opened(root, Keys(extra={"film": "odd"}))


def test_tensorflow_is_not_needed(root):
    opened(root).episode(0)
    assert not {"tensorflow", "tensorflow_datasets"} & set(sys.modules)


def test_the_checksum_is_the_published_one():
    """RFC 3720, B.4: 32 bytes of zero have CRC-32C 8a9136aa; TensorFlow rotates it and adds a constant."""
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.one_of(
            st.lists(st.binary(max_size=9), max_size=4),
            st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(lambda v: np.array(v, np.float32)),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4).map(lambda v: np.array(v, np.int64)),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_an_example_is_what_was_put_in(files, features, packed):
    seen = parse_example(files.example(features, packed))
    assert seen.keys() == features.keys()
    for key, values in features.items():
        if isinstance(values, list):
            assert seen[key] == values
        else:
            np.testing.assert_array_equal(seen[key], values)
            assert seen[key].dtype == values.dtype


def test_a_sequence_example_has_its_steps_one_after_the_other(files):
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    data = files.sequence_example({"task": [b"t"]}, {"action": list(rows), "image": [[b"a"], [b"b"], [b"c"]]})
    seen = parse_example(data)
    assert seen["task"] == [b"t"] and seen["image"] == [b"a", b"b", b"c"]
    np.testing.assert_array_equal(seen["action"], rows.ravel())


def test_records_are_found_and_read(tmp_path, files):
    file, contents = tmp_path / "x", [b"one", b"", b"three" * 100]
    file.write_bytes(b"".join(map(files.record, contents)))
    assert [read_record(file, *place) for place in record_places(file)] == contents


@pytest.mark.parametrize("cut", [1, 13, 500])
def test_a_file_that_was_cut_short_is_named(root, cut):
    content = (root / SECOND).read_bytes()
    (root / SECOND).write_bytes(content[:-cut])
    with pytest.raises(ValueError, match=rf"{SECOND}, record 0: the file was cut short"):
        opened(root)


@pytest.mark.parametrize("place", range(0, 12, 3))
def test_a_damaged_header_is_named(root, place):
    content = bytearray((root / SECOND).read_bytes())
    content[place] ^= 1
    (root / SECOND).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{SECOND}, record 0: the checksum of its length is wrong"):
        opened(root)


def test_a_damaged_record_is_named_when_it_is_read(root):
    content = bytearray((root / FIRST).read_bytes())
    content[200] ^= 1
    (root / FIRST).write_bytes(content)
    dataset = opened(root)
    assert dataset.episode(1)["task"] == "task 1"
    with pytest.raises(ValueError, match=rf"{FIRST}, episode 0: .*the checksum of the record at byte 12 is wrong"):
        dataset.episode(0)


def rewritten(root, files, **change):
    features = {key: value for key, value in (files.rlds_features(2) | change).items() if value is not None}
    (root / SECOND).write_bytes(files.record(files.example(features)))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"steps/action": None}, "there is no 'action'"),
        (
            {"steps/action": np.zeros(11, np.float32)},
            r"'action' has 11 numbers, which do not divide into steps of \(3,\)",
        ),
        ({"steps/action": np.zeros(9, np.float32)}, "'action' has 3 steps, but 'observation/image' has 4"),
        ({"steps/action": np.full(12, np.inf, np.float32)}, "'action' is not finite at step 0"),
        ({"steps/action": [b"x"] * 4}, "'action' is stored as bytes, but features.json says float32"),
        ({"steps/observation/image": [b"GIF89a"] * 4}, "'observation/image' at step 0 is neither JPEG nor PNG"),
        (
            {"steps/observation/image": [b"\x89PNG\r\n\x1a\nx"] * 4},
            "'observation/image' at step 0: the image is damaged",
        ),
        ({"steps/language_instruction": [b"a", b"a", b"b", b"b"]}, "'language_instruction' changes within the episode"),
        ({"steps/language_instruction": [b""] * 4}, "'language_instruction' is empty"),
    ],
)
def test_what_is_wrong_is_named_by_file_episode_and_key(root, files, change, says):
    rewritten(root, files, **change)
    with pytest.raises(ValueError, match=rf"{SECOND}, episode 0: {says}") as error:
        opened(root).episode(2)
    assert "\n" not in str(error.value)


def test_an_image_of_another_size_is_named(root, files):
    rewritten(root, files, **{"steps/observation/image": [files.compressed(np.zeros((4, 4, 3), np.uint8), "PNG")] * 4})
    with pytest.raises(ValueError, match=r"at step 0 is \(4, 4, 3\), but features.json says \(12, 16, 3\)"):
        opened(root).episode(2)


def test_what_is_no_message_is_named(root, files):
    (root / SECOND).write_bytes(files.record(b"\xff" * 40))
    with pytest.raises(ValueError, match=r"episode 0: the record is no tf.train.Example"):
        opened(root).episode(2)


def test_files_and_splits_that_are_missing_are_named(root):
    with pytest.raises(ValueError, match="has no split 'tran'; did you mean 'train'"):
        open_source(root, subset="tran")
    (root / SECOND).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{SECOND} holds 0 episodes, but dataset_info.json says 1"):
        open_source(root)
    (root / SECOND).unlink()
    with pytest.raises(ValueError, match="file 1 of the 2 of split 'train' is missing"):
        open_source(root)
    (root / "features.json").write_text(json.dumps({"featuresDict": {"features": {}}}))
    with pytest.raises(ValueError, match=r"features\.json describes no episodes of steps"):
        open_source(root)
