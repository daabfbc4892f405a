"""The rules that hold for the whole tree: who may import whom, what configs may name, what code may call."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from embodied.building import find_class
from embodied.cli.configs import compose

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("embodied", "envs", "policies", "maps", "conf")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))
PROVIDES = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "hydra": "hydra-core",
    "OpenGL": "pyopengl",
    "google": "protobuf",
    "rerun": "rerun-sdk",
}
"""Import names that differ from the distribution's."""

importlib.import_module("conf")


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(file: Path) -> Iterator[str]:
    """Every absolute module name a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


# Who may know whom


def test_the_import_rules_hold():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_core_never_names_the_rooms_that_implement_its_contracts():
    """Independent of import-linter: plain reading of the source."""
    for file in SOURCES:
        room = file.relative_to(ROOT).parts[0]
        for module in imports(file):
            other = module.split(".")[0]
            if room == "embodied":
                assert other not in ("envs", "policies", "maps", "conf"), f"{name_of(file)} imports {module}"
            elif room != "conf" and other in PACKAGES and other != room:
                assert other == "embodied", f"{name_of(file)} imports {module}"


def test_what_is_imported_is_declared():
    declared = {requirement(text).name for text in every_requirement()} | {"setuptools"}
    for file in SOURCES:
        for module in imports(file):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES:
                continue
            distribution = PROVIDES.get(top, top).lower().replace("_", "-")
            assert distribution in declared, f"{name_of(file)} imports {module}, which pyproject.toml does not declare"


# What configs name


def nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_`, however deep."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config
        for value in config.values():
            yield from nodes(value)
    elif isinstance(config, list):
        for value in config:
            yield from nodes(value)


def registered(folder: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Options that `conf` registers in code, such as one per simulator task."""
    for name, entry in folder.items():
        if isinstance(entry, ConfigNode):
            if str(entry.provider).startswith("conf/"):
                yield f"{path}{name}", OmegaConf.to_container(entry.node, resolve=False)
        elif isinstance(entry, dict):
            yield from registered(entry, f"{path}{name}/")


FROM_FILES = [(name_of(file), OmegaConf.to_container(OmegaConf.load(file), resolve=False)) for file in CONFIGS]
IN_CODE = list(registered(ConfigStore.instance().repo))


@pytest.mark.parametrize("where, config", FROM_FILES, ids=[where for where, _ in FROM_FILES])
def test_each_target_in_a_config_is_a_class_that_takes_its_arguments(where, config):
    for node in nodes(config):
        takes(where, node)


def test_each_target_of_a_registered_option_is_a_class_that_takes_its_arguments():
    assert IN_CODE
    for where, config in IN_CODE:
        for node in nodes(config):
            takes(where, node)


def takes(where: str, node: dict[str, Any]) -> None:
    target = node["_target_"]
    if target == "???" or "${" in target:
        return
    parameters = inspect.signature(find_class(target)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = [key for key in node if key not in parameters and not key.startswith("_")]
    assert not unknown, f"{where}: {target} takes no {', '.join(unknown)}"


def commands() -> list[str]:
    return sorted(name.removeprefix("embodied-") for name in PROJECT["project"]["scripts"])


def module_of(command: str) -> str:
    return PROJECT["project"]["scripts"][f"embodied-{command}"].partition(":")[0]


def groups_of(command: str) -> dict[str, Any]:
    defaults = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / f"{command}.yaml"), resolve=False)["defaults"]
    chosen = [item for item in defaults if isinstance(item, dict)]
    return {
        re.sub(r"^(optional|override) ", "", k).split("@")[0].lstrip("/"): v for item in chosen for k, v in item.items()
    }


def choices() -> Iterator[tuple[str, str]]:
    for command in commands():
        file = ROOT / "conf" / f"{command}.yaml"
        if file.exists() and "defaults" in OmegaConf.load(file):
            for group in groups_of(command):
                for option in sorted((ROOT / "conf" / group).rglob("*.yaml")):
                    yield command, f"{group}={option.relative_to(ROOT / 'conf' / group).with_suffix('').as_posix()}"


@pytest.mark.parametrize("command, choice", list(choices()))
def test_each_option_of_each_group_composes_with_each_command(command, choice):
    importlib.import_module(module_of(command))  # registers its resolvers
    missing = (
        [f"env={IN_CODE[0][0].removeprefix('env/').removesuffix('.yaml')}"]
        if groups_of(command).get("env") == "???"
        else []
    )
    wanted = [choice] if choice.startswith("env=") else [*missing, choice]
    assert compose(command, wanted) is not None


# What code may do


FORBIDDEN_IMPORTS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "hydra.utils"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    "torch.load",
    "torch.save",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "hydra.utils",
}
FORBIDDEN_KEYWORDS = {"shell", "allow_pickle", "trust_remote_code"}


def forbidden(source: str) -> Iterator[str]:
    """Ways to run what a file contains, which no file that travels may have."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for name in [module] if module else [alias.name for alias in node.names]:
                if name in FORBIDDEN_IMPORTS or name.split(".")[0] in FORBIDDEN_IMPORTS:
                    yield f"import {name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if f"{node.value.id}.{node.attr}" in FORBIDDEN_ATTRIBUTES:
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
                yield f"{node.func.id}()"
            for keyword in node.keywords:
                if keyword.arg in FORBIDDEN_KEYWORDS and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield f"{keyword.arg}="


def test_nothing_unpickles_or_evaluates():
    found = {name_of(file): list(forbidden(file.read_text(encoding="utf-8"))) for file in SOURCES}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load('x')",
        "eval('1')",
        "np.load(x, allow_pickle=True)",
        "run(x, shell=True)",
        "from hydra.utils import instantiate",
        "f(trust_remote_code=flag)",
    ],
)
def test_the_search_for_it_finds_it(source):
    assert list(forbidden(source))
    assert not list(forbidden("model.eval(); np.load(x, allow_pickle=False); json.loads('1')"))


# How the project is put together


def every_requirement() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"]
    return [*PROJECT["project"]["dependencies"], *(text for group in extras.values() for text in group)]


def requirement(text: str) -> Requirement:
    found = Requirement(text)
    found.name = found.name.lower().replace("_", "-")
    return found


def test_the_tested_versions_are_within_the_declared_ranges():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    tested = dict(line.split("==") for line in lines)
    for text in every_requirement():
        wanted = requirement(text)
        if wanted.name in tested:
            assert tested[wanted.name] in wanted.specifier, f"{text} excludes the tested {tested[wanted.name]}"
    core = {requirement(text).name for text in PROJECT["project"]["dependencies"]}
    assert core <= set(tested), f"constraints.txt lacks {core - set(tested)}"


@pytest.mark.parametrize("script, target", list(PROJECT["project"]["scripts"].items()))
def test_each_command_exists(script, target):
    module, _, function = target.partition(":")
    assert callable(getattr(importlib.import_module(module), function)), script


@pytest.mark.parametrize("command", commands())
def test_each_command_explains_itself_without_loading_torch(command):
    code = (
        f"import sys; sys.argv = ['embodied-{command}', '--help']; from {module_of(command)} import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert f"embodied-{command}" in done.stdout


@pytest.mark.parametrize("file", [*SOURCES, *TESTS], ids=name_of)
def test_a_file_is_one_idea(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500


def test_test_files_have_names_of_their_own_and_lie_in_no_package():
    tests = [file for file in TESTS if file.name.startswith("test_")]
    names = [file.name for file in tests]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})
    assert not [name_of(file) for file in tests if (file.parent / "__init__.py").exists()]


def test_every_package_ships_its_configs_and_pages():
    from importlib.resources import files

    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").exists()
        data = PROJECT["tool"]["setuptools"]["package-data"].get(package, [])
        for file in (ROOT / package).rglob("*"):
            if file.suffix in (".yaml", ".html", ".css"):
                assert any(pattern.endswith(file.suffix) for pattern in data), f"{name_of(file)} would not be installed"
    assert files("embodied.evaluation").joinpath("report.css").is_file()
