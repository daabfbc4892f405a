"""How the parts are wired: one YAML per part, and families of options that differ in one word.

Importing this package registers one option per simulator task with Hydra (`env=metaworld/button-press-topdown`), made
from the simulator's one YAML. No simulator is imported for it.
"""

from __future__ import annotations

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


def register_metaworld() -> None:
    """`env=metaworld/<task>` for each of the 50 tasks, `env=metaworld/mt10` and `env=metaworld/mt50`."""
    tasks = list(_read(_folder("envs") / "mujoco" / "metaworld_tasks.yaml"))
    base = _read(_folder("conf") / "env" / "metaworld.yaml")
    options = {"mt10": list(MT10), "mt50": tasks} | {task: [task] for task in tasks}
    for option, chosen in options.items():
        name = f"metaworld/{option}"
        node = base | {"name": name, "make": base["make"] | {"tasks": chosen}}
        ConfigStore.instance().store(
            group="env/metaworld", name=option, node=node, package="env", provider="conf/env/metaworld.yaml"
        )


def _folder(package: str) -> Path:
    spec = find_spec(package)  # finds a package without running it
    assert spec is not None and spec.origin is not None, package
    return Path(spec.origin).parent


def _read(file: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(content, dict), file
    return {str(key): value for key, value in content.items()}


register_metaworld()
