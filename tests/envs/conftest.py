"""A missing simulator skips its tests; on the project's own machines (CI=true) it is a failure."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for metaworld_episodes


@pytest.hookimpl(tryfirst=True)  # before any fixture makes an environment
def pytest_runtest_setup(item):
    for mark in item.iter_markers("simulator"):
        for package in mark.args:
            if importlib.util.find_spec(package) is None and os.environ.get("CI") != "true":
                pytest.skip(f"{package} is not installed")


def pytest_configure(config):
    config.addinivalue_line("markers", "simulator(package): the test needs this package")
