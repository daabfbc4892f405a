"""Lets tests import `fakes`, and configs name it, as a user's own package would be: through EMBODIED_PLUGINS."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


@pytest.fixture
def plugins(monkeypatch):
    monkeypatch.setenv("EMBODIED_PLUGINS", "fakes")


@pytest.fixture
def point_env(plugins):
    """`point_env(delay=...)`: the config of `fakes.point.PointWorld` with its expert."""

    def config(fails=0, **make):
        return {
            "name": "fake/point",
            "make": {"_target_": "fakes.point.PointWorld", **make},
            "expert": {"_target_": "fakes.point.PointExpert", "fails": fails},
        }

    return config
