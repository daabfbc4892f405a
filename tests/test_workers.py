"""Worker processes carry values unchanged, die with their parent, and say in one line what went wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embodied.workers import EnvironmentHost, Pool, Worker, WorkerDied, WorkerError, wait

ECHO = "fakes.hosts.Echo"


@pytest.fixture
def echo(plugins):
    worker = Worker(ECHO, {})
    yield worker
    worker.close()


def test_values_and_arrays_come_back_as_they_went(echo):
    random = np.random.default_rng(0)
    arrays = {
        "image": random.integers(0, 256, (96, 96, 3), np.uint8),
        "turned": random.integers(0, 256, (5, 4, 3), np.uint8)[::-1].transpose(1, 0, 2),
        "vector": random.normal(size=7).astype(np.float32),
        "scalar": np.float64(0.1),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "zero_dimensional": np.array(5, np.int64),
    }
    value = {"text": "grün", "number": 0.1 + 0.2, "nothing": None, "list": [1, [2.5, "x"]], "arrays": arrays}
    back = echo.call("echo", value=value)
    assert {k: v for k, v in back.items() if k != "arrays"} == {k: v for k, v in value.items() if k != "arrays"}
    for key, array in arrays.items():
        np.testing.assert_array_equal(back["arrays"][key], array)
        if isinstance(array, np.ndarray):
            assert back["arrays"][key].dtype == array.dtype and back["arrays"][key].shape == array.shape


def test_large_arrays_cross_in_both_directions(echo):
    array = np.random.default_rng(0).integers(0, 256, (4, 1080, 1920, 3), np.uint8)
    np.testing.assert_array_equal(echo.call("echo", value=array), array)


def test_a_worker_needs_neither_torch_nor_more_than_one_thread(echo):
    modules = echo.call("modules")
    assert "embodied.workers" in modules
    assert not {"torch", "transformers", "hydra"} & set(modules)
    assert echo.call("environ", name="OMP_NUM_THREADS") == "1"


def test_the_python_path_of_the_caller_is_the_workers(plugins, tmp_path, monkeypatch):
    (tmp_path / "my_robot").mkdir()
    (tmp_path / "my_robot" / "__init__.py").write_text("class Arm:\n    def ping(self):\n        return 'pong'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EMBODIED_PLUGINS", "my_robot")
    worker = Worker("my_robot.Arm", {})
    assert worker.call("ping") == "pong"
    worker.close()


def test_a_killed_worker_is_noticed_with_the_signal(echo):
    echo.ask("sleep", seconds=60)
    os.kill(echo.process.pid, signal.SIGKILL)
    assert wait([echo], timeout=10) == [echo]
    with pytest.raises(WorkerDied, match="SIGKILL"):
        echo.answer()


def test_a_worker_that_died_while_idle_is_noticed_at_the_next_call(echo):
    echo.call("pid")
    os.kill(echo.process.pid, signal.SIGSEGV)
    echo.process.wait()
    with pytest.raises(WorkerDied, match="SIGSEGV"):
        echo.call("pid")


def test_an_exception_is_one_line_with_its_place_and_the_worker_lives_on(echo):
    with pytest.raises(WorkerError, match=r"KeyError: 'joint7' \(hosts.py, line \d+\)"):
        echo.call("fail")
    assert echo.call("echo", value=1) == 1


def test_a_missing_file_in_the_worker_is_an_oserror_here(echo):
    with pytest.raises(FileNotFoundError) as caught:
        echo.call("read", file="/no/such/file")
    assert caught.value.filename == "/no/such/file"


def test_what_building_raised_is_raised_by_the_first_answer(plugins):
    worker = Worker(ECHO, {"problem": "no GL library"})
    with pytest.raises(WorkerError, match=r"^no GL library$"):
        worker.call("pid")
    worker.close()


def test_a_class_outside_the_allowed_packages_is_not_built(monkeypatch):
    monkeypatch.delenv("EMBODIED_PLUGINS", raising=False)
    worker = Worker("subprocess.Popen", {"args": ["true"]})
    with pytest.raises(WorkerError, match="outside the allowed packages"):
        worker.call("pid")
    worker.close()


def test_ctrl_c_is_left_to_the_parent(echo):
    assert echo.call("interrupt") == "still here"


def test_workers_end_when_their_parent_is_killed(plugins):
    script = """
import time
from embodied.workers import Worker
worker = Worker("fakes.hosts.Echo", {})
print(worker.call("pid"), flush=True)
worker.ask("sleep", seconds=60)
time.sleep(60)
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def test_a_pool_says_what_could_not_be_built_and_why(plugins):
    make = {"_target_": "fakes.point.PointWorld", "broken": True}
    message = r"^fake/point could not be built: no GL library: install libegl1$"
    with Pool("fake/point", EnvironmentHost, {"make": make}, 1) as pool, pytest.raises(ValueError, match=message):
        pool.tasks  # noqa: B018


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
