"""A run that is interrupted in any way goes on to the very weights it would have had, and nothing is ever lost."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from fakes.training import TinyAgent, TinyStream, a_trainer, adapted, quick_processes, state, train_and_die, weights
from safetensors.torch import load_file

from embodied.training.run_folder import RunFolder, newest, steps

KINDS = {"plain": {}, "ema": {"ema": {"decay": 0.9}}, "lora": {"prepare": adapted}}
KINDS["both"] = KINDS["ema"] | KINDS["lora"]
LONG = {"max_steps": 24, "save_every": 1, **KINDS["both"]}


@pytest.fixture(scope="module")
def processes():
    return quick_processes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    a_trainer(out, **LONG).train()
    return out


def same(a, b):
    """Bit for bit: the agents, the training states, and what the states say."""
    a, b = Path(a) / "checkpoints" / "last", Path(b) / "checkpoints" / "last"
    assert a.resolve().name == b.resolve().name
    for read in (weights, state):
        one, two = read(a), read(b)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = (json.loads((folder / "training_state/trainer.json").read_text()) for folder in (a, b))
    assert one == two


def leftovers(out):
    return [p.name for p in (Path(out) / "checkpoints").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_is_uninterrupted(tmp_path, kind):
    a_trainer(tmp_path / "whole", max_steps=10, save_every=100, **KINDS[kind]).train()
    stopped = a_trainer(tmp_path / "stopped", max_steps=10, save_every=100, **KINDS[kind])
    update = stopped._update

    def stopping(parts, kept):
        if stopped.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(parts, kept)

    stopped._update = stopping
    with pytest.raises(SystemExit) as ended:
        stopped.train()
    assert ended.value.code == 128 + signal.SIGTERM
    assert newest(tmp_path / "stopped").name == "000005"
    stopped.run.close()
    a_trainer(tmp_path / "stopped", resume=True, max_steps=10, save_every=100, **KINDS[kind]).train()
    same(tmp_path / "whole", tmp_path / "stopped")


def test_killed_at_random_moments_it_ends_where_it_would_have(tmp_path, processes, uninterrupted):
    killed, moments = 0, random.Random(0)
    for _ in range(12):
        child = processes.Process(target=train_and_die, args=(tmp_path,), kwargs={"pace": 0.02, **LONG})
        child.start()
        deadline = time.monotonic() + 60
        before = newest(tmp_path)
        while child.is_alive() and newest(tmp_path) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.1))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if newest(tmp_path):
            TinyAgent.from_pretrained(newest(tmp_path))
    assert killed >= 4
    a_trainer(tmp_path, resume=True, **LONG).train()
    same(uninterrupted, tmp_path)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    "moment, call",
    [
        ("embodied.training.checkpoint.save_file", 1),  # the first checkpoint, nothing but a part of it written
        ("embodied.training.checkpoint.write_json", 2),
        ("fakes.training.TinyAgent.save_pretrained", 3),
        ("embodied.files.os.fsync", 13),
        ("embodied.files.os.replace", 9),  # written whole, not yet in its place
        ("embodied.training.run_folder.RunFolder.point", 3),  # in its place, `last` not yet
        ("pathlib.Path.replace", 3),
        ("embodied.training.run_folder.RunFolder.prune", 2),
        ("os.rmdir", 1),  # an old one half removed
    ],
)
def test_killed_while_writing_a_checkpoint(tmp_path, processes, uninterrupted, moment, call):
    child = processes.Process(target=train_and_die, args=(tmp_path, moment, call), kwargs=LONG)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL, "it did not get that far"
    whole = {p.relative_to(newest(uninterrupted)) for p in newest(uninterrupted).rglob("*")}
    for folder in steps(tmp_path):
        assert {p.relative_to(folder) for p in folder.rglob("*")} == whole, "a checkpoint is there whole or not at all"
    a_trainer(tmp_path, resume=True, **LONG).train()
    same(uninterrupted, tmp_path)
    assert not leftovers(tmp_path)


def test_the_saved_agent_has_the_average_and_the_state_the_raw_weights(tmp_path):
    trainer = a_trainer(tmp_path, ema={"decay": 0.9})
    trainer.train()
    saved, raw = weights(newest(tmp_path)), state(newest(tmp_path))
    for name, parameter in trainer.agent.named_parameters():
        assert torch.equal(saved[name], trainer.ema.shadow[name])
        assert torch.equal(raw[f"weights.safetensors:{name}"], parameter)
    assert not torch.equal(saved["head.weight"], trainer.agent.head.weight)


def test_only_the_last_checkpoints_are_kept_and_last_names_the_newest(tmp_path):
    a_trainer(tmp_path, max_steps=9, save_every=2, keep=3).train()
    assert [p.name for p in steps(tmp_path)] == ["000006", "000008", "000009"]
    assert (tmp_path / "checkpoints/last").readlink() == Path("000009")


def test_nothing_but_tensors_json_and_text_is_written(tmp_path):
    a_trainer(tmp_path, ema={"decay": 0.9}, prepare=adapted).train()
    kinds = {p.suffix for p in newest(tmp_path).rglob("*") if p.is_file()}
    assert kinds == {".safetensors", ".json"}


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    trainer = a_trainer(tmp_path, max_steps=20, save_every=2)
    written = []

    def full(tensors, file, metadata=None):
        written.append(file)
        if len(written) > 1:
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        original(tensors, file, metadata)

    import embodied.training.checkpoint as module

    original = module.save_file
    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert [p.name for p in steps(tmp_path)] == ["000002"] and not leftovers(tmp_path)
    monkeypatch.undo()
    trainer.run.close()
    a_trainer(tmp_path, resume=True, max_steps=20, save_every=2).train()
    a_trainer(tmp_path / "whole", max_steps=20, save_every=2).train()
    same(tmp_path / "whole", tmp_path)


def _train_with_small_files(out, said):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the operating system itself refuses to write more
    try:
        a_trainer(out, resume=True).train()
    except OSError as error:
        said.put(error.errno)


def test_what_the_system_refuses_to_write_is_an_error_and_loses_nothing(tmp_path, processes):
    a_trainer(tmp_path, max_steps=6, save_every=2, max_minutes=1e-9).train()
    before = sorted(p.name for p in steps(tmp_path))
    said = processes.Queue()
    child = processes.Process(target=_train_with_small_files, args=(tmp_path, said))
    child.start()
    assert said.get(timeout=60) == errno.EFBIG
    child.join(60)
    assert sorted(p.name for p in steps(tmp_path)) == before and not leftovers(tmp_path)
    assert weights(newest(tmp_path))


def test_a_run_is_not_overwritten(tmp_path):
    a_trainer(tmp_path).train()
    with pytest.raises(ValueError, match="is not empty: resume=true continues it"):
        a_trainer(tmp_path)


def test_a_folder_of_something_else_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds no run but thesis"):
        a_trainer(tmp_path, resume=True)


def test_two_trainings_do_not_share_a_folder(tmp_path):
    trainer = a_trainer(tmp_path)
    with pytest.raises(ValueError, match="another training is running"):
        a_trainer(tmp_path, resume=True)
    trainer.run.close()


def test_with_nothing_to_resume_it_starts(tmp_path):
    results = a_trainer(tmp_path / "new", resume=True).train()
    assert results["steps"] == 6


def test_a_run_that_is_done_says_so_and_stays(tmp_path):
    first = a_trainer(tmp_path).train()
    before = weights(newest(tmp_path))
    again = a_trainer(tmp_path, resume=True)
    assert again.train()["loss"] == first["loss"]
    assert "trained already" in again.said[-1]
    assert all(torch.equal(before[k], v) for k, v in weights(newest(tmp_path)).items())


@pytest.mark.parametrize("key, value", [("clip", 0.5), ("batch_size", 4), ("max_steps", 12)])
def test_another_config_is_refused_by_key_and_values(tmp_path, key, value):
    trainer = a_trainer(tmp_path)
    trainer.train()
    trainer.run.close()
    was = getattr(trainer.settings, key)
    with pytest.raises(ValueError, match=rf"trainer.{key} was .* and is now {value}"):
        config = {
            "trainer": vars(trainer.settings) | {key: value},
            "schedule": {"name": "cosine"},
            "out": str(tmp_path),
        }
        saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
        saved["trainer"] = vars(trainer.settings)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
        RunFolder(tmp_path, config, resume=True)
    assert was != value


def test_a_level_schedule_may_be_prolonged_and_gives_the_longer_run(tmp_path):
    a_trainer(tmp_path / "long", max_steps=8, schedule="constant").train()
    a_trainer(tmp_path / "more", max_steps=4, schedule="constant").train()
    a_trainer(tmp_path / "more", resume=True, max_steps=8, schedule="constant").train()
    same(tmp_path / "long", tmp_path / "more")


def test_a_spent_time_budget_saves_and_resuming_ends_where_it_would_have(tmp_path):
    a_trainer(tmp_path / "whole").train()
    short = a_trainer(tmp_path / "short", max_minutes=1e-9)
    assert short.train()["steps"] < 6 and "max_minutes is spent" in short.said[-1]
    short.run.close()
    a_trainer(tmp_path / "short", resume=True).train()
    same(tmp_path / "whole", tmp_path / "short")


@pytest.mark.parametrize("file", ["optimizer", "ema", "weights"])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path, file):
    a_trainer(tmp_path, ema={"decay": 0.9}).train()
    damaged = newest(tmp_path) / "training_state" / f"{file}.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf"{file}.safetensors is damaged .*; remove .*/000006 to continue"):
        a_trainer(tmp_path, resume=True, ema={"decay": 0.9})
    shutil.rmtree(newest(tmp_path))
    assert a_trainer(tmp_path, resume=True, ema={"decay": 0.9}).train()["steps"] == 6


def test_a_state_of_other_parameters_is_refused(tmp_path):
    a_trainer(tmp_path).train()
    with pytest.raises(ValueError, match="don't train here: model"):
        a_trainer(tmp_path, resume=True, prepare=lambda agent: agent.model["encoder"].requires_grad_(False))


def test_a_loss_that_is_not_finite_stops_names_the_sample_and_keeps_the_checkpoint(tmp_path):
    bad = next(i for i in range(64) if i not in TinyStream(8).indices(0))  # a checkpoint comes before it
    stream = TinyStream(8, bad=bad)
    first = next(step for step in range(100) if bad in stream.indices(step))
    trainer = a_trainer(tmp_path, stream=stream, max_steps=100, save_every=1)
    with pytest.raises(
        ValueError, match=rf"loss is not finite at step {first + 1}, samples {bad}; .*{first:06d} is untouched"
    ):
        trainer.train()
    assert newest(tmp_path).name == f"{first:06d}"
    assert all(v.isfinite().all() for v in load_file(newest(tmp_path) / "model.safetensors").values())


def test_a_run_of_an_earlier_version_is_continued_though_its_config_lacks_new_keys(tmp_path):
    new = {"seed": 0, "init": None, "own": ["head"]}
    old = {"seed": 0}
    (tmp_path / "checkpoints/000001").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert RunFolder(tmp_path, new, resume=True, write=False).saved == 1
    with pytest.raises(ValueError, match=r"init was absent and is now runs/x"):
        RunFolder(tmp_path, new | {"init": "runs/x"}, resume=True, write=False)
