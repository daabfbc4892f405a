"""embodied-tune: stages one after the other, each from the one before, resumed exactly, mistakes in one line."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from embodied.assistant import Assistant
from embodied.cli import tune as module
from embodied.cli.app import command
from embodied.lvlm.model import LVLM
from embodied.training.run_folder import newest
from embodied.training.trainer import Trainer

SMALL = [
    "model=zoo/llava-1.5",
    "tiny=true",
    "text.vocabulary=300",
    "lora.rank=2",
    "trainer.batch_size=2",
    "trainer.max_steps=3",
    "trainer.save_every=1",
    "trainer.log_every=1",
    "trainer.precision=float32",
    "trainer.device=cpu",
    "trainer.threads=1",
]
SOURCES = """{c: {kind: pairs, format: chat, file: c.jsonl},
            q: {kind: instructions, format: chat, file: q.jsonl}}"""  # over lines, as one types it


@pytest.fixture
def tune(monkeypatch, tmp_path, capsys):
    """Runs `embodied-tune` on eight samples; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        Image.effect_noise((56, 56), 20 * (i + 1)).convert("RGB").save(f"{i}.png")
    for name, answers in {"c": "a b c d", "q": "red;a long green thing;blue;two", "t": "x y z w"}.items():
        said = answers.split(";" if ";" in answers else " ")
        lines = [line(f"{name}{i}", f"{i}.png" if name != "t" else None, words) for i, words in enumerate(said)]
        Path(f"{name}.jsonl").write_text("\n".join(lines) + "\n")

    def run(*words):
        sources = [] if any(word.startswith("data.sources") for word in words) else [f"data.sources={SOURCES}"]
        monkeypatch.setattr("sys.argv", ["embodied-tune", *SMALL, *sources, *words])
        status = 0
        try:
            command("tune", module.tune)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def line(key, image, answer):
    asked = [{"type": "text", "text": "what is it?"}]
    if image:
        asked.insert(0, {"type": "image", "image": image})
    said = [{"type": "text", "text": answer}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return json.dumps({"id": key, "messages": messages, "source": "toy", "meta": {}})


def weights(folder):
    return load_file(newest(folder) / "model.safetensors")


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def tensors(folder):
    files = sorted(Path(folder).rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}:{name}": t for file in files for name, t in load_file(file).items()}


def one_line(outcome, *parts):
    """The command ended with status 2 and one line that has these parts."""
    status, _, err = outcome
    said = [text for text in err.splitlines() if text.startswith("embodied-tune: ")]
    assert status == 2 and len(said) == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in said[0]


def test_two_stages_run_and_each_trains_its_parts_from_where_the_last_ended(tune, tmp_path):
    status, out, err = tune("out=run")
    assert status == 0, err
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["1-pretrain", "2-tune"]
    assert out.count("4 samples") == 2
    first, second = weights("run/1-pretrain"), weights("run/2-tune")
    moved = changed(first, second)
    assert {name.split(".")[0] for name in moved} == {"vision", "backbone"}
    assert all(name.startswith(("vision.connector.", "backbone.")) for name in moved)
    assert not [name for name in first if name.startswith("vision.encoder.") and name in moved]
    assert Assistant.from_pretrained(newest("run/2-tune")).chat["_target_"]

    # a second stage that learns nothing is the first
    assert tune("out=still", "stages={tune: {lr: 0.0}}")[0] == 0
    assert not changed(weights("still/1-pretrain"), weights("still/2-tune"))
    assert not changed(first, weights("still/1-pretrain"))


@pytest.mark.parametrize("recipe", ["llava-1.5", "llava-mole"], ids=["full", "lora"])
def test_killed_in_the_second_stage_and_resumed_it_is_the_run_that_was_not(tune, tmp_path, monkeypatch, recipe):
    assert tune("out=whole", f"recipe={recipe}")[0] == 0
    update, updates = Trainer._update, []

    def dying(self, parts, kept):
        updates.append(1)
        if len(updates) == 5:
            raise RuntimeError("killed")
        return update(self, parts, kept)

    monkeypatch.setattr(Trainer, "_update", dying)
    with pytest.raises(RuntimeError, match="killed"):
        tune("out=broken", f"recipe={recipe}")
    monkeypatch.setattr(Trainer, "_update", update)
    assert newest("broken/2-tune").name == "000001"
    one_line(tune("out=broken", f"recipe={recipe}"), "broken/1-pretrain is not empty", "resume=true")
    status, _, err = tune("out=broken", f"recipe={recipe}", "resume=true")
    assert status == 0 and "1/3 steps" not in err, err
    for stage in ("1-pretrain", "2-tune"):
        whole, resumed = tensors(newest(f"whole/{stage}")), tensors(newest(f"broken/{stage}"))
        assert whole.keys() == resumed.keys() and whole
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_encoder_that_is_taught_words_first_goes_on_where_it_was_killed(tune, monkeypatch):
    said = ["red thing", "red box", "blue thing", "blue box"]
    Path("w.jsonl").write_text("".join(line(f"w{i}", f"{i}.png", text) + "\n" for i, text in enumerate(said)))
    sources = "data.sources={w: {kind: pairs, format: chat, file: w.jsonl}}"
    words = [sources, "recipe=scratch", "only=[see,align]", "trainer.max_steps=4"]
    assert tune(*words, "out=whole")[0] == 0
    update, updates = Trainer._update, []

    def dying(self, parts, kept):
        updates.append(1)
        if len(updates) == 3:
            raise RuntimeError("killed")
        return update(self, parts, kept)

    monkeypatch.setattr(Trainer, "_update", dying)
    with pytest.raises(RuntimeError, match="killed"):
        tune(*words, "out=broken")
    monkeypatch.setattr(Trainer, "_update", update)
    assert tune(*words, "out=broken", "resume=true")[0] == 0
    for stage in ("1-see", "2-align"):
        whole, resumed = tensors(newest(f"whole/{stage}")), tensors(newest(f"broken/{stage}"))
        assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not (newest("whole/2-align") / "visual_words.safetensors").exists()
    moved = {name.split(".")[0] for name in changed(weights("whole/1-see"), weights("whole/2-align"))}
    assert moved == {"vision", "backbone"}


def test_an_encoder_taught_things_and_boxes_serves_models_with_other_connectors(tune, tmp_path):
    said = [f"red thing [{x},0,{x + 300},400], blue box [500,500,999,999]" for x in (0, 100, 200, 300)]
    Path("d.jsonl").write_text("".join(line(f"d{i}", f"{i}.png", text) + "\n" for i, text in enumerate(said)))
    sources = f"data.sources={SOURCES[:-1]}, d: {{kind: regions, format: chat, file: d.jsonl}}}}"
    words = [sources, "recipe=grounded", "trainer.max_steps=2"]
    status, _, err = tune(*words, "out=first")
    assert status == 0, err
    assert sorted(p.name for p in (tmp_path / "first").iterdir()) == ["1-see", "2-align", "3-tune"]
    seen, aligned = weights("first/1-see"), weights("first/2-align")
    assert all(not name.startswith("vision.encoder.") for name in changed(seen, aligned))

    other = [*words, "only=[align]", "+row.model.connector.activation=relu"]
    outcome = tune(*other, "out=second", "encoder_from=first/1-see")
    assert outcome[0] == 0, outcome[2]
    theirs = weights("second/2-align")
    assert all(torch.equal(theirs[name], seen[name]) for name in seen if name.startswith("vision.encoder."))

    outcome = tune(*words, "only=[align]", "out=third", "init=first")  # the last stage of a recipe's runs
    assert outcome[0] == 0, outcome[2]
    theirs, last = weights("third/2-align"), weights("first/3-tune")
    assert all(torch.equal(theirs[name], last[name]) for name in last if name.startswith("vision.encoder."))

    one_line(tune(*other, "out=first"), "first/1-see was trained with row.model.connector.activation=None, not relu")
    config = Assistant.from_pretrained(newest("first/1-see")).model.config
    stem = {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [8, 16]}
    with pytest.raises(ValueError, match=r"encoder_from=first/1-see has another shape than row.model.encoder"):
        module._take_encoder(LVLM.from_config(config | {"encoder": stem}, 300), Path("first/1-see"))
    with pytest.raises(ValueError, match="this model has no encoder"):
        module._take_encoder(LVLM.from_config({"backbone": config["backbone"]}, 300), Path("first"))


def test_pictures_are_read_once_for_questions_that_are_met_together(tune):
    lines = [line(f"q{i}", f"{i // 2}.png", "red") for i in range(8)]
    Path("q.jsonl").write_text("\n".join(lines) + "\n")
    losses = []
    words = ["recipe=scratch", "only=[tune]", "stages={tune: {data: [instructions]}}"]
    sources = "data.sources={q: {kind: instructions, together: 2, format: chat, file: q.jsonl}}"
    for number, packing in enumerate([[], ["packing=shared_prefix"]]):
        status, _, error = tune(sources, *words, *packing, f"out=run{number}")
        assert status == 0, error
        losses.append([float(loss) for loss in re.findall(r"loss ([\d.]+)", error)])
    assert losses[0] == pytest.approx(losses[1], abs=2e-3) and len(set(losses[0])) > 1
    one_line(tune(sources.replace("2", "0"), *words, "out=none"), "together of source 'q'", "got 0")
    one_line(tune("packing=null", "out=none"), "packing=null", "needs a name, or to be left out")


def test_a_stage_of_low_rank_updates_is_saved_merged_and_the_next_starts_from_it(tune):
    low_rank = "{train: {connector: full, backbone: lora}, lr: 0.01}"
    nothing = "{train: {connector: full}, lr: 0.0}"
    status, _, err = tune("out=run", f"stages={{pretrain: {low_rank}, tune: {nothing}}}")
    assert status == 0, err
    assert tune("out=not", f"stages={{pretrain: {nothing}}}", "only=[pretrain]")[0] == 0
    first, second, untrained = weights("run/1-pretrain"), weights("run/2-tune"), weights("not/1-pretrain")
    assert not [name for name in first if "lora" in name or "base_layer" in name]
    moved = {name for name in changed(untrained, first) if name.startswith("backbone.")}
    assert moved == {n for n in first if n.endswith(("_proj.weight",)) and n.startswith("backbone.")}
    assert not changed(first, second)


def test_parts_of_a_batch_weigh_by_the_words_that_are_learned(tune):
    one, two = ((f"out={name}", f"trainer.accumulate={parts}") for name, parts in (("one", 1), ("two", 2)))
    for words in (one, two):
        status, _, err = tune(*words, "optimizer=sgd", "only=[tune]", "stages={tune: {lr: 0.1, batch_size: 4}}")
        assert status == 0, err
    a, b = weights("one/2-tune"), weights("two/2-tune")
    assert max((a[name].double() - b[name].double()).abs().max().item() for name in a) < 1e-6


def test_broken_samples_are_named_or_left_out_and_counted(tune, tmp_path):
    (tmp_path / "1.png").unlink()
    one_line(tune("out=stops", "only=[tune]"), "1.png", "q1")
    status, out, err = tune("out=goes", "only=[tune]", "data.on_error=skip", "stages={tune: {batch_size: 4}}")
    assert status == 0, err
    assert "left out: 1" in out


@pytest.mark.parametrize(
    "words, parts",
    [
        (["stages={tunes: {lr: 1.0}}"], ["stages has 'tunes'", "pretrain, tune"]),
        (["only=[tunes]"], ["only has 'tunes'", "pretrain, tune"]),
        (["stages={tune: {step: 3}}"], ["stages.tune has 'step'", "steps"]),
        (["stages={tune: {train: {encoders: full}}}"], ["stages.tune.train has 'encoders'", "encoder"]),
        (["stages={tune: {train: {encoder: half}}}"], ["stages.tune.train.encoder is half", "frozen"]),
        (["stages={tune: {train: {encoder: frozen}}}"], ["nothing trains"]),
        (["stages={tune: {data: []}}"], ["stages.tune says no data"]),
        ([f"data.sources={SOURCES.replace('format: chat', 'format: chatt', 1)}"], ["chatt", "chat"]),
        (["data.sources={c: {kind: pairs, format: chat, file: c.jsonl}}"],
         ["stage tune learns from instructions, text", "pairs"]),
        (["data.sources={c: {format: chat, file: c.jsonl}}"], ["data.sources.c needs kind"]),
        ([f"data.sources={SOURCES.replace('c.jsonl', 'no.jsonl')}"], ["no.jsonl"]),
        (["trainer.max_step=3"], ["'trainer.max_step'", "'trainer.max_steps'"]),
        (["recipe=llava-2"], ["llava-2", "llava"]),
        (["init=nowhere"], ["nowhere"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(tune, tmp_path, words, parts):
    one_line(tune("out=run", *words), *parts)
    for folder in tmp_path.glob("run/*"):  # the first stage may be through where only the second can tell
        shutil.rmtree(folder)


def test_what_the_second_stage_lacks_is_said_before_the_first_begins(tune, tmp_path):
    one_line(tune("out=run", "stages={tune: {data: [scenes]}}"), "stage tune learns from scenes")
    one_line(tune("out=run", "stages={tune: {train: {backbone: fully}}}"), "stages.tune.train.backbone is fully")
    assert not (tmp_path / "run").exists()
