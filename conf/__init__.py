"""How the parts are wired: one YAML per part, and families of options that differ in one word.

Importing this package registers one option per simulator task with Hydra (`env=metaworld/button-press-topdown`), made
from the simulator's one YAML. No simulator is imported for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

MT10 = (
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "window-close",
)
"""The ten tasks of Meta-World's MT10, in its order."""


def register_family(family: str, options: Mapping[str, Mapping[str, Any]]) -> None:
    """`env=<family>/<option>` for each option, from the settings that all share in `conf/env/<family>.yaml`.

    Args:
        family: the simulator's name.
        options: by option, which of the shared `make` settings it has otherwise; usually `tasks` alone.
    """
    file = f"env/{family}.yaml"
    base = _read(_folder("conf") / file)
    for option, settings in options.items():
        unknown = set(settings) - set(base["make"])
        assert not unknown, f"conf/{file} has no make.{min(unknown)}, which {family}/{option} sets"
        node = base | {"name": f"{family}/{option}", "make": base["make"] | dict(settings)}
        ConfigStore.instance().store(
            group=f"env/{family}", name=option, node=node, package="env", provider=f"conf/{file}"
        )


def tasks_of(file: str) -> list[str]:
    """The tasks that a simulator's YAML lists, in its order: `mujoco/metaworld_tasks.yaml`, in `envs`."""
    return list(_read(_folder("envs") / file))


def one_each(tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """An option per task, named like it."""
    return {task: {"tasks": [task]} for task in tasks}


def _folder(package: str) -> Path:
    spec = find_spec(package)  # finds a package without running it
    assert spec is not None and spec.origin is not None, package
    return Path(spec.origin).parent


def _read(file: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(content, dict), file
    return {str(key): value for key, value in content.items()}


METAWORLD = tasks_of("mujoco/metaworld_tasks.yaml")
register_family("metaworld", {"mt10": {"tasks": list(MT10)}, "mt50": {"tasks": METAWORLD}} | one_each(METAWORLD))
register_family("fetch", one_each(["reach", "push", "pick-place", "slide"]))
register_family("maze", one_each(["umaze", "open", "medium", "large"]))
register_family("kitchen", one_each(["complete", "mixed"]))
register_family("adroit", one_each(["door", "hammer", "pen", "relocate"]))
PANDA = one_each(tasks_of("pybullet/panda_tasks.yaml"))
PANDA |= {task: settings | {"max_steps": 50} for task, settings in PANDA.items() if task != "stack"}
PANDA["slide"] |= {"cameras": ["overview"]}  # the puck leaves the pictures of the others
register_family("panda", PANDA)
register_family("mobile-arm", one_each(["pick-place"]))
register_family("aloha", one_each(["transfer-cube", "insertion"]))
