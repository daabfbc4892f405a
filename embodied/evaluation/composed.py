"""Policies that a config composes of parts: `policy=explorer`, `policy=my/policy.yaml`, `policy={_target_: ...}`.

A name is that of a YAML in `conf/policies`; one with `defaults: [explorer]` says only what is otherwise than there.
Its values may refer to the rest of the command's config (`${env.make.body.turn}`), and `settings=` changes some of
them: `settings={frontiers: {least: 5}}`. What is built passes the allow-list of `embodied.building`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from embodied.building import build, find_class
from embodied.interaction import Policy
from embodied.spec import Embodiment

CONFIGS, GROUP, TARGET = "conf", "policies", "_target_"


def composed_names() -> list[str]:
    """The policies that `conf/policies` composes."""
    return sorted(file.stem for file in _folder().glob("*.yaml"))


def is_composed(spec: Any) -> bool:
    """Whether what was named as a policy is one that a config composes."""
    return isinstance(spec, Mapping | DictConfig) or str(spec).endswith(".yaml") or str(spec) in composed_names()


def called(spec: Any) -> str:
    """What a composed policy is called in results: its name, its file's, or its class's."""
    if isinstance(spec, Mapping | DictConfig):
        return str(spec.get(TARGET, "policy")).rpartition(".")[2]
    return Path(str(spec)).stem if is_composed(spec) else str(spec)


def compose_policy(
    spec: Any, settings: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The node that builds a composed policy, with nothing left to resolve.

    Args:
        spec: a name, a YAML file, or a node; see `is_composed`.
        settings: what is to be otherwise than there.
        config: what its interpolations refer to.

    Raises:
        ValueError: the file is missing or no YAML, it names no class, or a reference leads nowhere or is left open.
    """
    where = f"policy={called(spec)}"
    try:
        if isinstance(spec, Mapping | DictConfig):
            node = OmegaConf.create(dict(spec))
        else:
            named = _folder() / f"{spec}.yaml"
            file = named if str(spec) in composed_names() else Path(str(spec)).expanduser()
            if not file.is_file():
                raise ValueError(f"{where}: there is no file {spec}; names are {', '.join(composed_names())}")
            node = _loaded(file)
        if not isinstance(node, DictConfig) or TARGET not in node:
            raise ValueError(f"{where}: a policy's config is a mapping with a {TARGET}")
        if settings is not None and not isinstance(settings, Mapping):
            raise ValueError(f"settings is a mapping such as {{patience: 5}}, got settings={settings}")
        around = {key: value for key, value in (config or {}).items() if key != "policy"}
        whole = OmegaConf.create({**around, "policy": OmegaConf.merge(node, settings or {})})
        made: Any = OmegaConf.to_container(whole.policy, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = str(getattr(error, "full_key", "") or "a value").removeprefix("policy.")
        given = "".join(f"{{{part}:" for part in key.split(".")) + "..." + "}" * len(key.split("."))
        raise ValueError(f"{where}: {key} is not given: add settings={given}") from None
    except (OmegaConfBaseException, YAMLError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from None
    return made


def _loaded(file: Path) -> Any:
    """What a file says, on top of those of `conf/policies` that its `defaults` name, the later the stronger.

    Raises:
        ValueError: they name another than those.
    """
    said = OmegaConf.load(file)
    if not isinstance(said, DictConfig) or "defaults" not in said:
        return said
    below = said.pop("defaults")
    if not isinstance(below, ListConfig) or not set(below) <= set(composed_names()) - {file.stem}:
        raise ValueError(f"{file}: defaults is a list of names of {', '.join(composed_names())}, got {below}")
    return OmegaConf.merge(*(_loaded(_folder() / f"{name}.yaml") for name in below), said)


def takes_embodiment(node: Mapping[str, Any]) -> bool:
    """Whether the class of a node wants to know the body that it is to drive."""
    return "embodiment" in inspect.signature(find_class(str(node[TARGET]))).parameters


def build_policy(node: Mapping[str, Any], name: str, embodiment: Embodiment | None) -> Policy:
    """The policy that a node describes.

    Raises:
        ValueError: it is no policy, an argument is wrong, or it cannot drive this body.
    """
    made = build(node, **({"embodiment": embodiment} if takes_embodiment(node) else {}))
    if not isinstance(made, Policy):
        raise ValueError(f"policy={name}: {type(made).__name__} is no embodied.interaction.Policy")
    return made


def _folder() -> Path:
    found = find_spec(CONFIGS)  # finds the package without running it
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / GROUP
