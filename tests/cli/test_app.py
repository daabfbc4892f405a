"""A command ends in one line when its command line, or the work itself, meets a mistake; a sweep ends in one table."""

import csv
import errno
import json
import os
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from embodied.cli import app, configs

FILES = {
    "__init__.py": "",
    "thing.yaml": """
defaults:
  - env: house
  - trainer: plain
  - experiment: null
  - _self_
seed: 0
rate: 1.0
out: runs/thing
source: ???
""",
    "env/house.yaml": "name: house\nmax_steps: 10\n",
    "env/lab/door.yaml": "# @package env\nname: lab/door\nmax_steps: 20\n",
    "env/lab/drawer.yaml": "# @package env\nname: lab/drawer\nmax_steps: 30\n",
    "trainer/plain.yaml": "batch_size: 8\noptimizer:\n  learning_rate: 0.1\n",
    "experiment/quick.yaml": "# @package _global_\ntrainer:\n  batch_size: 2\n",
}


@pytest.fixture
def thing(tmp_path, monkeypatch):
    """Runs `embodied-thing` on a small tree of configs: `thing(words, work)`."""
    for name, text in FILES.items():
        file = tmp_path / "small_conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(app.SWEEP_OUT, raising=False)
    store = ConfigStore.instance()  # without the options that `conf`, imported by other tests, registers for all
    monkeypatch.setattr(store, "repo", {name: node for name, node in store.repo.items() if name != "env"})
    for module in (app, configs):
        monkeypatch.setattr(module, "CONFIGS", "small_conf")
    seen: list[DictConfig] = []

    def start(words, work=lambda config: None):
        def wrapped(config):
            seen.append(config)
            return work(config)

        monkeypatch.setattr(sys, "argv", ["embodied-thing", *words])
        app.command("thing", wrapped)()
        return seen

    yield start
    sys.modules.pop("small_conf", None)
    os.environ.pop(app.SWEEP_OUT, None)


def refusal(thing, capsys, words, work=lambda config: None) -> str:
    with pytest.raises(SystemExit) as end:
        thing(words, work)
    assert end.value.code not in (0, None)
    captured = capsys.readouterr()
    assert captured.err.startswith("embodied-thing: ") and captured.err.count("\n") == 1
    return captured.err


def test_the_work_gets_the_composed_config_and_nothing_is_written_for_it(thing, tmp_path):
    before = set(tmp_path.iterdir())
    (config,) = thing(["env=lab/door", "experiment=quick", "seed=3"])
    assert (config.env.name, config.env.max_steps, config.trainer.batch_size, config.seed) == ("lab/door", 20, 2, 3)
    assert "hydra" not in config
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "__pycache__"}


@pytest.mark.parametrize(
    "word, says",
    [
        ("trainer.batch_sise=4", "unknown key 'trainer.batch_sise'; did you mean 'trainer.batch_size'?"),
        ("batch_size=4", "did you mean 'trainer.batch_size'? (in small_conf/trainer/plain.yaml)"),
        ("trainer.optimizer.learning_rat=1", "did you mean 'trainer.optimizer.learning_rate'?"),
        ("sead=1", "unknown key 'sead'; did you mean 'seed'? (in small_conf/thing.yaml)"),
        ("experimnt=quick", "did you mean 'experiment'?"),
        ("env.max_step=1", "did you mean 'env.max_steps'? (in small_conf/env/house.yaml)"),
        ("env=huose", "no option 'huose' for env; did you mean 'house'?"),
        ("env=lab/dor", "no option 'lab/dor' for env; did you mean 'lab/door'?"),
        ("env=leb/door", "did you mean 'lab/door'?"),
        ("experiment=slow", "no option 'slow' for experiment; there is quick"),
        ("seed=1,2", "add -m to sweep"),
        ("seed", "seed"),
        ("seed=[1", "seed"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_nearest_and_its_file(thing, capsys, word, says):
    assert says in refusal(thing, capsys, [word])


def test_the_file_named_is_the_one_whose_value_counts(thing, capsys):
    line = refusal(thing, capsys, ["experiment=quick", "trainer.batch_sise=4"])
    assert "(in small_conf/experiment/quick.yaml)" in line
    line = refusal(thing, capsys, ["env=lab/drawer", "env.max_step=4"])
    assert "(in small_conf/env/lab/drawer.yaml)" in line


def test_a_value_that_must_be_given_is_asked_for(thing, capsys):
    line = refusal(thing, capsys, [], lambda config: print(config.source))
    assert "source is not given: add source=... to the command" in line


def test_a_group_that_must_be_chosen_is_asked_for_with_its_options(thing, capsys, tmp_path):
    file = tmp_path / "small_conf" / "thing.yaml"
    file.write_text(file.read_text().replace("env: house", "env: ???"))
    assert "env is not given: add env=..., one of house, lab/door, lab/drawer" in refusal(thing, capsys, ["seed=1"])
    thing(["--help"])
    assert "env: house, lab/door, lab/drawer" in capsys.readouterr().out
    assert thing(["env=house"])


def raises(error):
    def work(config):
        raise error

    return work


@pytest.mark.parametrize(
    "error, says",
    [
        (ValueError("no camera 'top'\n  it has front"), "no camera 'top' it has front"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "data/x"), "No such file or directory: data/x"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a.bin"), "the disk is full (runs/a.bin)"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full (runs/thing)"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "Permission denied: runs"),
        (ModuleNotFoundError("No module named 'metaworld'", name="metaworld"), "pip install -e '.[mujoco]'"),
        (ModuleNotFoundError("No module named 'frobnicate.x'", name="frobnicate.x"), "pip install frobnicate"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_what_the_person_can_mend_is_one_line(thing, capsys, error, says):
    assert says in refusal(thing, capsys, [], raises(error))


def test_a_fault_of_the_program_keeps_its_traceback(thing):
    with pytest.raises(RuntimeError, match="ours"):
        thing([], raises(RuntimeError("ours")))


def test_the_traceback_is_there_for_who_asks(thing, capsys, monkeypatch):
    monkeypatch.setenv("EMBODIED_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        thing([], raises(ValueError("why")))
    assert "in work" in capsys.readouterr().err


def test_help_shows_groups_options_and_defaults(thing, capsys):
    thing(["--help"])
    page = capsys.readouterr().out
    for expected in ("usage: embodied-thing", "env: house, lab/door, lab/drawer", "batch_size: 8", "experiment: quick"):
        assert expected in page


def test_a_sweep_leaves_one_folder_per_job_and_one_table(thing, capsys, tmp_path):
    out = tmp_path / "it's a sweep"
    quoted = str(out).replace("'", "\\'")

    def work(config):
        Path(config.out).mkdir(parents=True, exist_ok=True)
        return {"success": config.seed / 2, "steps": config.env.max_steps, "not": ["a", "scalar"]}

    seen = thing(["-m", "seed=0,1", "env=lab/door,lab/drawer", f"out='{quoted}'"], work)
    assert [config.out for config in seen] == [str(out / str(i)) for i in range(4)]
    with (out / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["env"], row["success"], row["steps"]) for row in rows] == [
        ("0", "lab/door", "0", "20"),
        ("0", "lab/drawer", "0", "30"),
        ("1", "lab/door", "0.5", "20"),
        ("1", "lab/drawer", "0.5", "30"),
    ]
    assert (out / "sweep.md").read_text() in capsys.readouterr().out + "\n"
    assert not (tmp_path / "multirun").exists() and not (tmp_path / "outputs").exists()


def test_a_job_that_fails_is_a_row_and_the_others_go_on(thing, capsys, tmp_path):
    def work(config):
        if config.seed == 1:
            raise ValueError("seed 1 | is unlucky")
        return {"success": 1.0}

    with pytest.raises(SystemExit) as end:
        thing(["-m", "seed=0,1,2", "out=swept"], work)
    assert end.value.code == 2
    with (tmp_path / "swept" / "sweep.csv").open() as file:
        assert [(row["success"], row["error"]) for row in csv.DictReader(file)] == [
            ("1", ""),
            ("", "seed 1 | is unlucky"),
            ("1", ""),
        ]
    assert "1 of the sweep's jobs failed" in capsys.readouterr().err


def test_a_smaller_sweep_in_the_same_folder_forgets_the_rows_of_the_larger_but_no_files(thing, tmp_path):
    def work(config):
        Path(config.out).mkdir(parents=True, exist_ok=True)
        (tmp_path / config.out / "weights").touch()
        return {"value": config.seed}

    thing(["-m", "seed=0,1,2", "out=swept"], work)
    thing(["-m", "seed=7,8", "out=swept"], work)
    with (tmp_path / "swept" / "sweep.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["7", "8"]
    assert (tmp_path / "swept" / "2" / "weights").exists()


def test_a_typo_in_a_sweep_is_found_before_any_job_runs(thing, capsys):
    assert "did you mean 'seed'?" in refusal(thing, capsys, ["-m", "sead=0,1"], raises(AssertionError("it ran")))


def test_a_pattern_sweeps_over_what_it_matches_and_must_match_something(thing, capsys, tmp_path):
    thing(["-m", "env=glob(h*)", "out=swept"], lambda config: {"steps": config.env.max_steps})
    assert "10" in (tmp_path / "swept" / "sweep.csv").read_text()
    assert "'env=glob(z*)' matches no option" in refusal(thing, capsys, ["-m", "env=glob(z*)"])


def test_flags_and_overrides_may_come_in_any_order(thing, tmp_path):
    thing(["out=swept", "--multirun", "seed=0,1"], lambda config: {"value": config.seed})
    assert (tmp_path / "swept" / "sweep.csv").exists()


def test_the_work_sees_the_command_line_as_it_was_typed(thing):
    seen = []
    for words in (["seed=3"], ["seed=1,2", "-m", "out=swept"], ["--config-dir", ".", "seed=3"]):
        thing(words, lambda config: seen.append(list(sys.argv[1:])))
        assert seen[-1] == words


def test_hydras_own_flags_work_and_leave_no_folders(thing, capsys, tmp_path):
    thing(["seed=5", "--cfg", "job"], raises(AssertionError("it ran")))
    assert "seed: 5" in capsys.readouterr().out
    (tmp_path / "mine" / "env").mkdir(parents=True)
    (tmp_path / "mine" / "env" / "own.yaml").write_text("name: own\n")
    (config,) = thing(["--config-dir", str(tmp_path / "mine"), "env=own"])
    assert config.env.name == "own"
    assert not (tmp_path / "multirun").exists() and not (tmp_path / "outputs").exists()


def test_a_result_that_json_cannot_say_does_not_lose_the_job(thing, tmp_path):
    thing(["-m", "seed=0,1", "out=swept"], lambda config: {"loss": float("nan")})
    assert json.loads((tmp_path / "swept" / "0" / "sweep_job.json").read_text())["results"] == {"loss": "nan"}
