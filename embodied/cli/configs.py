"""Composing a command's config, and explaining what is wrong with a command line.

A typo is answered with the nearest valid key and the file that defines it: Hydra alone says only that the key is
unknown.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from embodied.building import nearest

CONFIGS = "conf"
SHOWN = 8
"""How many alternatives a message or a help page lists before it only counts them."""


def compose(name: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a command, as Hydra would give it to the command; `${hydra:...}` works in it.

    Raises:
        HydraException, OmegaConfBaseException: it cannot be composed; `explain` says why.
    """
    _initialised()
    try:
        config = hydra.compose(name, list(overrides), return_hydra_config=True)
    except ValueError as error:  # of `group=null` and `group=3`, which Hydra does not name
        if isinstance(error, (HydraException, OmegaConfBaseException)):
            raise
        words = " ".join(word for word in overrides if not isinstance(_value(word), (str, list)))
        raise ConfigCompositionException(f"{error}: a group among {words} needs a name, or to be left out") from None
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


def check(name: str, overrides: Sequence[str]) -> str | None:
    """What is wrong with a command line, or None."""
    try:
        compose(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        return explain(name, overrides, error)
    return None


def _value(word: str) -> Any:
    """What a word of the command line sets its key to; the word itself where it cannot be read."""
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return word


def explain(name: str, overrides: Sequence[str], error: Exception) -> str:
    """Hydra's message, said shorter, with the nearest valid key and the file that defines it."""
    message = str(error)
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown and "is not in struct" in f"{message} {error.__cause__}":
        return _unknown_key(name, overrides, unknown.group(1))
    missing = re.search(r"Could not find '([^']+)'", message)
    if missing:
        return _unknown_option(overrides, missing.group(1))
    choose = re.search(r"You must specify '([^']+)'", message)
    if choose:
        return f"{choose.group(1)} is not given: add {choose.group(1)}=..., one of {_listed(_options(choose.group(1)))}"
    if "Ambiguous value for argument" in message:
        return f"{message.splitlines()[0]}: add -m to sweep over it, or write a list as key=[a,b]"
    if isinstance(error, OverrideParseException):
        return (
            f"'{error.override}' cannot be read ({message.splitlines()[0]}): write key=value, and quote odd characters"
        )
    if isinstance(error, MissingMandatoryValue):
        return missing_value(error)
    return message.splitlines()[0]


def missing_value(error: OmegaConfBaseException) -> str:
    """What a config that lacks a required value asks for."""
    key = getattr(error, "full_key", None) or "a value"
    return f"{key} is not given: add {key}=... to the command"


def first_of_sweeps(overrides: Sequence[str]) -> list[str]:
    """The same overrides with each sweep (`a=1,2`) cut to its first choice, so that they compose to one config.

    Raises:
        ValueError: a pattern (`glob(...)`) that nothing matches.
    """
    first = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            first.append(text)  # said better when it is composed
            continue
        if override.is_sweep_override():
            choice = next(_choices(override), None)
            if choice is None:
                raise ValueError(f"'{text}' matches no option{_short(nearest('', _options(override.key_or_group)))}")
            text = f"{override.get_key_element()}={choice}"
        first.append(text)
    return first


def help_page(name: str, about: str) -> str:
    """What `embodied-<name> --help` prints: what it does, the groups to choose from, every key with its default."""
    _initialised()
    lines = [about.strip(), "", f"usage: embodied-{name} [group=option] [key=value] ...", ""]
    groups = [(group, _options(group)) for group in _groups_of(name)]
    if groups:
        lines.append("Groups (group=option):")
        lines += [f"  {group}: {_listed(options)}" for group, options in groups]
        lines.append("")
    lines.append("Keys (key=value, a.b=value), with their defaults:")
    try:
        text = OmegaConf.to_yaml(compose(name, []))
        lines += ["  " + line for line in text.splitlines()]
    except (HydraException, OmegaConfBaseException) as error:
        lines.append(f"  (choose first: {explain(name, [], error)})")
    lines += ["", "Sweep over values with -m: a.b=1,2,3. Print the config without running: --cfg job."]
    return "\n".join(lines)


def _unknown_key(name: str, overrides: Sequence[str], key: str) -> str:
    chosen = [text for text in overrides if text.split("=")[0].lstrip("+~").split("@")[0] in _groups()]
    try:
        config = OmegaConf.to_container(compose(name, chosen), resolve=False)
    except (HydraException, OmegaConfBaseException):
        config = {}
    known = [*_keys(config), *_groups_of(name)]
    leaf = key.rpartition(".")[2]
    same_leaf = [other for other in known if other.rpartition(".")[2] == leaf]
    parent = key.rpartition(".")[0]
    siblings = [other for other in known if other.rpartition(".")[0] == parent]
    near = (
        f"; did you mean '{same_leaf[0]}'?" if len(same_leaf) == 1 else nearest(key, [*siblings, *same_leaf] or known)
    )
    if "did you mean" not in near:
        elsewhere = nearest(key, known)
        near = elsewhere if "did you mean" in elsewhere else near
    hint = re.search(r"did you mean '([^']+)'", near)
    where = _defined_in(name, chosen, hint.group(1)) if hint else None
    return f"unknown key '{key}'{_short(near)}" + (f" (in {where})" if where else "")


def _unknown_option(overrides: Sequence[str], path: str) -> str:
    for text in overrides:
        group, _, option = text.lstrip("+").partition("=")
        group = group.partition("@")[0]
        if f"{group}/{option}" == path:
            return f"no option '{option}' for {group}{_short(nearest(option, _options(group)))}"
    group, _, option = path.rpartition("/")
    return f"no config '{path}'{_short(nearest(option, _options(group)))}"


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


def _defined_in(name: str, overrides: Sequence[str], key: str) -> str | None:
    """The file whose value of `key` counts, as `conf/trainer/default.yaml`; None where no file has it."""
    loader = _initialised()
    try:
        defaults = loader.compute_defaults_list(name, list(overrides), RunMode.RUN).defaults
    except HydraException:
        return None
    for entry in reversed(defaults):
        path, package = entry.config_path, entry.package or ""
        if path is None or path.startswith("hydra"):
            continue
        loaded = loader.repository.load_config(path)
        inside = key.removeprefix(f"{package}.") if package else key
        if loaded is None or (package and inside == key):
            continue
        if inside in set(_keys(OmegaConf.to_container(loaded.config, resolve=False))):
            made = loaded.provider.endswith(".yaml")  # an option of a family says what file it was made from
            return loaded.provider if made else f"{CONFIGS}/{path.removesuffix('.yaml')}.yaml"
    return None


def _choices(override: Override) -> Iterator[str]:
    if override.value_type != ValueType.GLOB_CHOICE_SWEEP:
        return override.sweep_string_iterator()
    glob: Any = override.value()
    options = _listing(
        _initialised(), override.key_or_group, ObjectType.CONFIG
    )  # as Hydra does: not those of subgroups
    kept = [o for o in options if any(fnmatch.fnmatch(o, p) for p in glob.include)]
    return iter([o for o in kept if not any(fnmatch.fnmatch(o, p) for p in glob.exclude)])


def _initialised() -> ConfigLoaderImpl:
    GlobalHydra.instance().clear()
    hydra.initialize_config_module(CONFIGS, version_base="1.3")
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    return loader


def _listing(loader: ConfigLoaderImpl, group: str, kind: ObjectType) -> list[str]:
    # not loader.list_groups, which copies every config there is on each call
    return list(loader.repository.get_group_options(group, kind))


def _groups() -> set[str]:
    loader = _initialised()
    found, waiting = set(), [""]
    while waiting:
        parent = waiting.pop()
        for child in _listing(loader, parent, ObjectType.GROUP):
            group = f"{parent}/{child}" if parent else child
            found.add(group)
            waiting.append(group)
    return found


def _groups_of(name: str) -> list[str]:
    """The groups this command's config chooses from."""
    loader = _initialised()
    loaded = loader.repository.load_config(name)
    entries = [] if loaded is None else list(loaded.defaults_list or [])
    groups = [entry.group for entry in entries if isinstance(entry, GroupDefault)]
    known = _groups()
    return [group for group in groups if group is not None and group in known]


def _options(group: str, loader: ConfigLoaderImpl | None = None) -> list[str]:
    """Options of a group, those of its subgroups with their path (`metaworld/door-open`)."""
    loader = loader or _initialised()
    options = _listing(loader, group, ObjectType.CONFIG)
    for child in _listing(loader, group, ObjectType.GROUP):
        options += [f"{child}/{option}" for option in _options(f"{group}/{child}" if group else child, loader)]
    return options


def _listed(options: Sequence[str]) -> str:
    more = len(options) - SHOWN
    return ", ".join(options[:SHOWN]) + (f", ... ({more} more)" if more > 0 else "")


def _short(hint: str) -> str:
    """An error's list of alternatives, cut to what a person reads."""
    head, found, rest = hint.partition("; there is ")
    return head + found + _listed(rest.split(", ")) if found else hint
