"""Build objects from configs that may have travelled, without ever running foreign code.

A config node is a mapping with a `_target_`: the dotted name of a class; its other keys are the constructor's
arguments, and nested nodes are built first. A checkpoint carries such nodes, so a target must pass an allow-list:

- its top-level package is checked before anything is imported: this project's packages, plus those the user named on
  their own machine in the environment variable `EMBODIED_PLUGINS` (comma-separated);
- what the name resolves to is checked after: it must be a class that was *defined* in an allowed package, so an alias
  such as `embodied.agent.torch.load` or an imported `subprocess.Popen` is refused although its name starts well.

Functions are never built: a class's constructor is the only code a config can reach. (Hydra's own `instantiate` calls
any importable callable, and is not used in this project.)
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALLOWED = frozenset({"embodied", "envs", "policies", "maps"})
PLUGINS = "EMBODIED_PLUGINS"


class ForbiddenTarget(ValueError):
    """A config names something that configs may not build."""


def allowed_packages() -> frozenset[str]:
    """This project's packages and the user's own from `EMBODIED_PLUGINS`."""
    return ALLOWED | {name.strip() for name in os.environ.get(PLUGINS, "").split(",") if name.strip()}


def find_class(target: str) -> type:
    """The class a `_target_` names.

    Raises:
        ForbiddenTarget: it is outside the allow-list, an alias of something outside it, or not a class.
        ValueError: it does not exist.
    """
    allowed = allowed_packages()
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        raise ForbiddenTarget(f"_target_ '{target}' is not a dotted class name such as policies.heads.mlp.MLPHead")
    if any(part.startswith("__") for part in parts):
        raise ForbiddenTarget(f"_target_ '{target}' reaches into Python's own names, which no config needs")
    if parts[0] not in allowed:
        raise ForbiddenTarget(
            f"_target_ '{target}' is outside the allowed packages ({', '.join(sorted(allowed))}); "
            f"if you trust it, name its package in {PLUGINS}"
        )
    module_name, attribute = ".".join(parts[:-1]), parts[-1]
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise  # a dependency of that module is missing: that message says which
        raise ValueError(
            f"_target_ '{target}': there is no module '{error.name}'{_did_you_mean(module_name)}"
        ) from None
    if not hasattr(found, attribute):
        names = [n for n, v in vars(found).items() if inspect.isclass(v) and v.__module__.split(".")[0] in allowed]
        raise ValueError(f"_target_ '{target}': {found.__name__} has no '{attribute}'{nearest(attribute, names)}")
    found = getattr(found, attribute)
    if not inspect.isclass(found):
        raise ForbiddenTarget(f"_target_ '{target}' is a {type(found).__name__}; only classes are built from a config")
    home = found.__module__.split(".")[0]
    if home not in allowed:
        raise ForbiddenTarget(
            f"_target_ '{target}' is another name for {found.__module__}.{found.__qualname__}, which is not allowed"
        )
    return found


def build(node: Any, within: tuple[type, ...] = (object,), /, **runtime: Any) -> Any:
    """Build what `node` describes; `runtime` adds arguments that no config holds (sizes, an environment).

    Mappings without `_target_` and lists are walked, anything else is returned as it is.

    Args:
        node: a config node as plain containers.
        within: every class built, nested ones too, must derive from one of these.
        runtime: arguments for the outermost object.

    Raises:
        ForbiddenTarget: see `find_class`; or the class is none of `within`.
        ValueError: an argument the class does not take, or one it needs and did not get.
    """
    if isinstance(node, Mapping):
        arguments = {str(key): build(value, within) for key, value in node.items() if key != "_target_"} | runtime
        if "_target_" not in node:
            return arguments
        cls = find_class(str(node["_target_"]))
        if not issubclass(cls, within):
            kinds = " or ".join(kind.__name__ for kind in within)
            raise ForbiddenTarget(f"_target_ '{node['_target_']}' is not a {kinds}, the only thing built here")
        check_arguments(cls, arguments)
        return cls(**arguments)
    if isinstance(node, list | tuple):
        return [build(item, within) for item in node]
    return node


def check_arguments(cls: type, arguments: Mapping[str, Any]) -> None:
    """Stop at an argument the class does not take or misses, naming the nearest.

    Raises:
        ValueError: with the class, the argument and its nearest valid name.
    """
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(cls).parameters
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    if (owner.__module__, owner.__name__) == ("torch.nn.modules.module", "Module"):
        parameters = {}  # nn.Module's own constructor looks as if it took anything, and takes nothing
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    where = f"{cls.__module__}.{cls.__qualname__}"
    for name in arguments:
        if name not in parameters:
            raise ValueError(f"{where} takes no '{name}'{nearest(name, parameters)}")
    needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    missing = [name for name in needed if name not in arguments]
    if missing:
        raise ValueError(f"{where} needs {', '.join(missing)}")


def nearest(name: str, options: Any) -> str:
    """`; did you mean 'x'?`, or the options where none is near, to end an error message with."""
    options = [str(option) for option in options]
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there is {', '.join(sorted(options))}" if options else ""


def _did_you_mean(module_name: str) -> str:
    package_name, _, last = module_name.rpartition(".")
    try:
        package = importlib.import_module(package_name)
        names = [path.stem for root in package.__path__ for path in _python_files(root)]
    except (ImportError, AttributeError, ValueError):
        return ""
    return nearest(last, names)


def _python_files(root: str) -> list[Path]:
    return [
        path for path in Path(root).iterdir() if (path.suffix == ".py" and path.stem != "__init__") or path.is_dir()
    ]
