"""Memory stays flat however many frames are gathered."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied.data.frames import MappedFrames

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MB = 2**20


def mapped_files():
    """Resident memory of this process that is mapped files, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.parametrize("budget, stays", [(16 * MB, True), (10_000 * MB, False)])
def test_gathering_everything_keeps_only_the_budget_resident(tmp_path, budget, stays):
    """256 MB of frames; without a budget all of them stay, which shows that this measures what it should."""
    shape = (1024, 512, 512, 1)
    (tmp_path / "frames.u8").touch()
    with (tmp_path / "frames.u8").open("r+b") as file:
        file.truncate(int(np.prod(shape)))
    frames = MappedFrames(tmp_path / "frames.u8", shape, budget)
    before, peak = mapped_files(), 0
    for indices in np.random.default_rng(0).permutation(1024).reshape(-1, 8):
        frames.gather(indices)
        peak = max(peak, mapped_files() - before)
    assert (peak < 48 * MB) == stays, f"{peak / MB:.0f} MB"


def test_the_benchmark_runs(capsys, monkeypatch):
    script = Path(__file__).parents[2] / "benchmarks/loader_memory.py"
    spec = importlib.util.spec_from_file_location("loader_memory", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(
        sys, "argv", ["loader_memory.py", "--gigabytes", "0.003", "--height", "64", "--width", "64", "--epochs", "1"]
    )
    assert module.main() == 0
    assert "0.00 GB" in capsys.readouterr().out
