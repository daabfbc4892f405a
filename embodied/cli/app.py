"""What every command shares: Hydra composes its config, a mistake ends in one line, a sweep ends in one table.

A command is a function from its resolved config to its results:

    def train(config: DictConfig) -> dict: ...
    main = command("train", train)

Its config is `conf/<name>.yaml`, completed by groups (`env=`, `experiment=`) and `key=value` overrides. A mistake of the
person at the keyboard is a `ValueError` or an `OSError` anywhere below: it is printed as one line and the command exits 2.
`EMBODIED_TRACEBACK=1` shows where it was raised.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from embodied.building import nearest
from embodied.files import write_json, write_text

CONFIGS = "conf"


def command(name: str, work: Callable[[DictConfig], Mapping[str, Any] | None]) -> Callable[[], None]:
    """The `main()` of `embodied-<name>`."""

    def job(config: DictConfig) -> None:
        swept = HydraConfig.get().mode == RunMode.MULTIRUN
        if swept:
            config.out = str(Path(config.out) / str(HydraConfig.get().job.num))
        results = run(name, work, config)
        if swept:
            overrides = list(HydraConfig.get().overrides.task)
            write_json(Path(config.out) / "sweep_job.json", {"overrides": overrides, "results": _scalars(results or {})})

    def main() -> None:
        importlib.import_module(CONFIGS)  # registers families of configs, such as one per simulator task
        arguments = [word for word in sys.argv[1:] if not word.startswith("-")]
        problem = check(name, arguments)
        if problem:
            fail(name, problem)
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIGS}", config_name=name)(job)()
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            table = write_table(Path(compose(name, _first_of_sweeps(arguments)).out))
            print(table)

    return main


def run(name: str, work: Callable[[DictConfig], Mapping[str, Any] | None], config: DictConfig) -> Mapping[str, Any] | None:
    """Do the work; end the process with one line where the person at the keyboard has to act."""
    try:
        return work(config)
    except KeyboardInterrupt:
        fail(name, "interrupted", status=130)
    except OSError as error:
        _maybe_traceback()
        if error.errno == errno.ENOSPC:
            fail(name, f"the disk is full ({error.filename or config.get('out') or 'while writing'}): free space and run the same command again")
        fail(name, str(error) if error.filename is None else f"{error.strerror}: {error.filename}")
    except (ValueError, OmegaConfBaseException) as error:
        _maybe_traceback()
        fail(name, str(error))


def fail(name: str, problem: str, status: int = 2) -> Any:
    """End the process: one line on stderr, non-zero exit."""
    line = " ".join(problem.split())
    sys.stderr.write(f"embodied-{name}: {line}\n")
    sys.stderr.flush()
    raise SystemExit(status)


def compose(name: str, overrides: list[str]) -> DictConfig:
    """The config of a command without running it."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
        return hydra.compose(name, overrides)


def check(name: str, overrides: list[str]) -> str | None:
    """What is wrong with a command line, or None: unknown keys and options get their nearest valid name."""
    try:
        compose(name, _first_of_sweeps(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        return explain(name, overrides, str(error))
    return None


def explain(name: str, overrides: list[str], message: str) -> str:
    """Hydra's message, said shorter, with the nearest valid key and the file that defines it."""
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown and "is not in struct" in message:
        key = unknown.group(1)
        groups = [o for o in _first_of_sweeps(overrides) if o.split("=")[0].lstrip("+~") in _groups()]
        known = dict(_flatten(compose(name, groups)))
        near = nearest(key, known) if key.count(".") else nearest(key, {k.split(".")[0] for k in known})
        hint = re.search(r"did you mean '([^']+)'", near)
        return f"unknown key '{key}'" + (f"{near} ({_defined_in(name, groups, hint.group(1))})" if hint else near)
    missing = re.search(r"Could not find '([^']+)'", message) or re.search(r"In '[^']+': Could not find '([^']+)'", message)
    if missing:
        group, _, option = missing.group(1).rpartition("/")
        return f"no config '{missing.group(1)}'{nearest(option, _options(group))}"
    return message.splitlines()[0]


def write_table(folder: Path) -> str:
    """One Markdown and one CSV table over the jobs of a sweep (`sweep.md`, `sweep.csv` in `folder`); returns the Markdown."""
    jobs = [json.loads(file.read_text()) for file in sorted(folder.glob("*/sweep_job.json"), key=lambda f: _number(f.parent.name))]
    if not jobs:
        return f"no job of the sweep in {folder} ended"
    swept = [dict(o.split("=", 1) for o in job["overrides"] if "=" in o) for job in jobs]
    varied = [key for key in swept[0] if len({s.get(key) for s in swept}) > 1] or list(swept[0])[:3]
    results = list(dict.fromkeys(key for job in jobs for key in job["results"]))
    rows = [[s.get(key, "") for key in varied] + [_shown(job["results"].get(key)) for key in results] for s, job in zip(swept, jobs, strict=True)]
    header = varied + results
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    write_text(folder / "sweep.md", "\n".join(lines) + "\n")
    write_text(folder / "sweep.csv", "\n".join(",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in [header, *rows]) + "\n")
    return "\n".join(lines)


def _scalars(results: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if isinstance(value, int | float | str | bool)}


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(name: str) -> int:
    return int(name) if name.isdigit() else 0


def _first_of_sweeps(overrides: list[str]) -> list[str]:
    """The same overrides with each sweep (`a=1,2`) cut to its first choice, so that they compose to one config."""
    first = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            first.append(text)
            continue
        first.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}" if override.is_sweep_override() else text)
    return first


def _flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in config:
        path = f"{prefix}{key}"
        yield path, None
        if not OmegaConf.is_missing(config, key) and OmegaConf.is_dict(child := OmegaConf.to_container(config)[key]) or isinstance(child, dict):
            yield from _flatten(OmegaConf.create(child), f"{path}.")


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def _groups() -> set[str]:
    with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
        return set(_loader().list_groups(""))


def _options(group: str) -> list[str]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
        return _loader().get_group_options(group) + _loader().list_groups(group)


def _defined_in(name: str, groups: list[str], key: str) -> str:
    """The file that gives `key` its value, as `conf/trainer/default.yaml`."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module(CONFIGS, version_base="1.3"):
        composed = hydra.compose(name, groups, return_hydra_config=True)
        choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    head = key.split(".")[0]
    if head in choices:
        return f"in {CONFIGS}/{head}/{choices[head]}.yaml"
    return f"in {CONFIGS}/{name}.yaml"


def _maybe_traceback() -> None:
    if os.environ.get("EMBODIED_TRACEBACK"):
        traceback.print_exc()
