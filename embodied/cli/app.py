"""What every command shares: Hydra composes its config, a mistake ends in one line, a sweep ends in one table.

A command is a function from its resolved config to its results:

    def train(config: DictConfig) -> dict: ...
    main = command("train", train)

Its config is `conf/<name>.yaml`, completed by groups (`env=`, `experiment=`) and `key=value` overrides. A mistake of
the person at the keyboard is a `ValueError` or an `OSError` anywhere below: it is printed as one line and the command
exits 2. `EMBODIED_TRACEBACK=1` shows where it was raised. Heavy imports belong inside the function, so that `--help`
and a typo answer at once.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from embodied.cli.configs import CONFIGS, check, compose, explain, first_of_sweeps, help_page, missing_value
from embodied.cli.sweep import forget_jobs, write_job, write_table

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: threads that spin while they wait make
# everything 20 times slower as soon as simulators, or anyone else, want the same cores

Work = Callable[[DictConfig], Mapping[str, Any] | None]
QUIET = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled")
"""A command writes to its `out` folder and nowhere else: Hydra's own output folders and log files are switched off."""

MULTIRUN = ("-m", "--multirun")

SWEEP_OUT = "EMBODIED_SWEEP_OUT"
"""Tells the jobs of a sweep, wherever a launcher runs them, the folder that their own folders go into."""


def command(name: str, work: Work, read: Callable[[list[str]], list[str]] = list) -> Callable[[], None]:
    """The `main()` of `embodied-<name>`.

    Args:
        name: of the command and of its config.
        work: what it does.
        read: turns the words of its command line into Hydra's, where they are not already.
    """

    def main() -> None:
        importlib.import_module(CONFIGS)  # registers families of configs, such as one per simulator task
        words = [" ".join(word.splitlines()) for word in read(sys.argv[1:])]  # Hydra's grammar knows no lines
        flags = [word for word in words if word.startswith("-")]
        overrides = [word for word in words if not word.startswith("-")]
        if {"-h", "--help"} & set(flags):
            _show(help_page(name, sys.modules[work.__module__].__doc__ or ""))
        elif set(MULTIRUN) & set(flags):
            _sweep(name, work, words, overrides)
        elif flags:  # --cfg, --info, --config-dir and the like are Hydra's own
            _with_hydra(name, words, QUIET, lambda config: run(name, work, config))
        else:
            try:
                config = compose(name, overrides)
            except (HydraException, OmegaConfBaseException) as error:
                _maybe_traceback()
                fail(name, explain(name, overrides, error))
            run(name, work, config)

    return main


def run(name: str, work: Work, config: DictConfig) -> Mapping[str, Any] | None:
    """Do the work; end the process with one line where the person at the keyboard has to act."""
    try:
        return work(config)
    except KeyboardInterrupt:
        fail(name, "interrupted", status=130)
    except Exception as error:
        problem = mistake(error, config)
        if problem is None:
            raise
        _maybe_traceback()
        fail(name, problem)


def fail(name: str, problem: str, status: int = 2) -> NoReturn:
    """End the process: one line on stderr, non-zero exit."""
    sys.stderr.write(f"embodied-{name}: {_one_line(problem)}\n")
    sys.stderr.flush()
    raise SystemExit(status)


def mistake(error: Exception, config: Mapping[str, Any]) -> str | None:
    """What the person at the keyboard can do about an error; None where it is a fault of the program."""
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            where = error.filename or config.get("out") or "while writing"
            return f"the disk is full ({where}): free space and run the same command again"
        return str(error) if error.filename is None else f"{error.strerror}: {error.filename}"
    if isinstance(error, MissingMandatoryValue):
        return missing_value(error)
    if isinstance(error, ValueError | OmegaConfBaseException):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        return f"this needs the package '{package}', which is not installed: {install_hint(package)}"
    return None


def install_hint(package: str) -> str:
    """How to install a package: by the extra of this project that brings it, where one does."""
    try:
        requirements = metadata.requires("embodied") or []
    except metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        named = re.match(r"[A-Za-z0-9_.-]+", requirement)
        if extra and named and named.group().lower().replace("-", "_") == package.lower().replace("-", "_"):
            return f"pip install -e '.[{extra.group(1)}]'"
    return f"pip install {package}"


def _with_hydra(name: str, words: list[str], settings: Sequence[str], job: Callable[[DictConfig], Any]) -> None:
    # argparse takes overrides in one piece only, and a flag's value must stay beside it
    words = sorted(words, key=lambda word: word not in MULTIRUN)
    first = next((i for i, word in enumerate(words) if "=" in word and not word.startswith("-")), len(words))
    typed = sys.argv

    def as_typed(config: DictConfig) -> Any:
        sys.argv = typed  # results record the command line as the person wrote it
        return job(config)

    sys.argv = [typed[0], *words[:first], *settings, *words[first:]]
    GlobalHydra.instance().clear()
    hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=name)(as_typed)()
    sys.argv = typed


def _sweep(name: str, work: Work, words: list[str], overrides: list[str]) -> None:
    """Every combination in a folder of its own under `out`; one that fails is a row of the table, not the end of it."""
    try:
        first = first_of_sweeps(overrides)
        problem = check(name, first)
        if problem:
            fail(name, problem)
        folder = Path(str(compose(name, first).out))
        forget_jobs(folder)
    except (OmegaConfBaseException, OSError, ValueError) as error:
        fail(name, mistake(error, {}) or str(error))
    os.environ[SWEEP_OUT] = str(folder.absolute())
    settings = [f"hydra.sweep.dir={quoted(str(folder))}", "hydra.sweep.subdir=${hydra.job.num}", *QUIET]

    def job(config: DictConfig) -> None:
        details = HydraConfig.get()
        out = Path(os.environ[SWEEP_OUT]) / str(details.job.num)
        config.out = str(out)
        swept = list(details.overrides.task)
        try:
            results = work(config)
        except Exception as error:
            problem = mistake(error, config)
            if problem is None:
                raise
            _maybe_traceback()
            sys.stderr.write(f"embodied-{name}: job {details.job.num} ({' '.join(swept)}): {_one_line(problem)}\n")
            write_job(out, swept, {}, _one_line(problem))
        else:
            write_job(out, swept, results or {})

    try:
        _with_hydra(name, words, settings, job)
    except KeyboardInterrupt:
        fail(name, "interrupted", status=130)
    table, failed = write_table(folder)
    print(table)
    if failed:
        fail(name, f"{failed} of the sweep's jobs failed; the table in {folder / 'sweep.md'} says why")


def quoted(text: str) -> str:
    """A value as Hydra's override grammar reads it back unchanged."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _show(page: str) -> None:
    """Print a page, of which the reader may want only the `head`."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own last flush succeeds


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _maybe_traceback() -> None:
    if os.environ.get("EMBODIED_TRACEBACK"):
        traceback.print_exc()
