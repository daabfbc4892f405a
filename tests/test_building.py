"""A config builds this project's classes and nothing else: foreign code is refused before it runs."""

import sys

import pytest

from embodied.building import ForbiddenTarget, build, find_class, nearest

CAMERA = {"_target_": "embodied.spec.Camera", "name": "front", "height": 4, "width": 4, "renderer": "real"}


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A user's own package, not yet allowed."""
    (tmp_path / "a_plugin").mkdir()
    (tmp_path / "a_plugin" / "__init__.py").write_text("")
    (tmp_path / "a_plugin" / "parts.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\n"
        "import shutil\n"
        "class Part:\n"
        "    def __init__(self, size, inner=None): self.size, self.inner = size, inner\n"
        "def function(): raise AssertionError('a function was called')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("a_plugin")]:
        del sys.modules[name]


def test_a_class_of_this_project_is_built_with_its_arguments():
    camera = build(CAMERA, depth=True)
    assert (camera.name, camera.height, camera.depth) == ("front", 4, True)


def test_nested_nodes_are_built_inside_mappings_and_lists():
    built = build({"views": [CAMERA, CAMERA | {"name": "wrist"}], "rate": 5})
    assert [view.name for view in built["views"]] == ["front", "wrist"] and built["rate"] == 5


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "torch.load",
        "pickle.loads",
        "embodied_evil.Thing",
        "embodied.files.Path",  # imported there, defined elsewhere
        "embodied.contracts.Tensor",
        "embodied.contracts.nn",  # a module
        "embodied.files.write_text",  # ours, but a function
        "embodied.building.ALLOWED",  # ours, but a value
        "embodied.files.__builtins__",
        "embodied.files.__loader__",
        "embodied.spec.__class__",
        "embodied.__init__.os",
        "embodied",
        "",
        "embodied..spec",
        "embodied.spec.Camera()",
        "../embodied.spec",
    ],
)
def test_everything_else_is_refused(target):
    with pytest.raises(ForbiddenTarget):
        find_class(target)


@pytest.mark.parametrize(
    "target",
    [
        "embodied.files.shutil.rmtree",
        "embodied.contracts.torch.load",
        "embodied.contracts.torch.nn.Linear",
        "embodied.spec.Camera.__init__.__globals__",
        "embodied.spec.Camera.__subclasses__",
    ],
)
def test_a_way_through_an_imported_module_leads_nowhere(target):
    with pytest.raises(ValueError):
        find_class(target)


def test_a_refused_package_is_not_even_imported(plugin):
    with pytest.raises(ForbiddenTarget, match="EMBODIED_PLUGINS"):
        find_class("a_plugin.parts.Part")
    assert not (plugin / "imported").exists()


def test_a_package_the_user_names_is_allowed_and_only_its_own_classes(plugin, monkeypatch):
    monkeypatch.setenv("EMBODIED_PLUGINS", "something, a_plugin")
    part = build({"_target_": "a_plugin.parts.Part", "inner": CAMERA}, size=3)
    assert part.size == 3 and part.inner.name == "front"
    with pytest.raises(ForbiddenTarget, match="is a function"):
        find_class("a_plugin.parts.function")
    with pytest.raises(ForbiddenTarget, match="is another name for pathlib"):
        find_class("a_plugin.parts.Path")


def test_only_the_kind_asked_for_is_built_nested_ones_too(plugin, monkeypatch):
    from embodied.spec import Camera

    monkeypatch.setenv("EMBODIED_PLUGINS", "a_plugin")
    assert build([CAMERA], (Camera,))
    with pytest.raises(ForbiddenTarget, match="is not a Camera"):
        build(CAMERA | {"depth": {"_target_": "a_plugin.parts.Part", "size": 1}}, (Camera,))


@pytest.mark.parametrize(
    "node, says",
    [
        (CAMERA | {"heigth": 3}, "takes no 'heigth'; did you mean 'height'?"),
        ({"_target_": "embodied.spec.Camera", "name": "a"}, "needs height, width, renderer"),
        ({"_target_": "embodied.spec.Camra"}, "has no 'Camra'; did you mean 'Camera'?"),
        ({"_target_": "embodied.specs.Camera"}, "no module 'embodied.specs'; did you mean 'spec'?"),
    ],
)
def test_a_mistake_is_answered_with_what_is_nearest(node, says):
    with pytest.raises(ValueError) as caught:
        build(node)
    assert says in str(caught.value)


def test_a_module_without_a_constructor_takes_no_arguments(plugin, monkeypatch):
    monkeypatch.setenv("EMBODIED_PLUGINS", "a_plugin")
    (plugin / "a_plugin" / "plain.py").write_text("from torch import nn\nclass Plain(nn.Module): pass\n")
    with pytest.raises(ValueError, match="takes no 'size'"):
        build({"_target_": "a_plugin.plain.Plain", "size": 2})


def test_nearest_lists_the_options_where_none_is_near():
    assert nearest("zzz", ["alpha", "beta"]) == "; there is alpha, beta"
    assert nearest("alpa", ["alpha", "beta"]) == "; did you mean 'alpha'?"
    assert nearest("x", []) == ""
