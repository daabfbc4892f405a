"""Processes that each hold one object, usually an environment, and answer calls.

A worker is a fresh interpreter, never a fork (a forked rendering context is broken), started without the caller's main
module, so that it needs no `if __name__ == "__main__"` and does not import torch. It talks over a socket: a call or an
answer is one line of JSON, and arrays follow it as raw bytes. Nothing is pickled.

A worker ends with its parent, however the parent ends. A worker that dies is noticed at once (`WorkerDied`); what it
was doing is the caller's to repeat in a new one. An exception inside a worker is raised in the caller as one line
(`WorkerError`); `EMBODIED_TRACEBACK=1` shows where it came from.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from embodied.building import build, find_class
from embodied.interaction import Illustrated
from embodied.spec import IMAGES, Embodiment

EXPERT_ACTION = "expert.action"
"""Key under which a host with an expert adds the expert's action to an observation."""

_LENGTH = struct.Struct("<I")
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from embodied.workers import serve
serve(int(sys.argv[1]))
"""
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    "LP_NUM_THREADS": "0",  # Mesa's software renderer: in the calling thread
}


class WorkerDied(Exception):
    """The process is gone: killed, crashed in native code, or silent for too long."""


class WorkerError(ValueError):
    """The object in the worker raised; the message is that exception in one line."""


class Worker:
    """The caller's end of one worker process.

    Args:
        host: dotted name of the class to hold, from the packages that configs may build.
        arguments: its constructor's arguments, plain JSON types.

    The constructor returns at once; the first answer waits for the process to be up, and raises what building raised.
    """

    def __init__(self, host: str, arguments: Mapping[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        path = [str(Path(entry or ".").absolute()) for entry in sys.path]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what native libraries print must not mix with a command's output
                env=os.environ | _ONE_THREAD,
            )
        self._socket = ours
        self._socket.setblocking(True)
        self.asked_at: float | None = None
        _send(self._socket, {"host": host, "arguments": dict(arguments)})

    def ask(self, call: str, **arguments: Any) -> None:
        """Send a call without waiting; one `answer` follows each `ask`.

        Raises:
            WorkerDied: the process is gone.
        """
        assert self.asked_at is None, "a worker answers one call at a time"
        self.asked_at = time.monotonic()
        try:
            _send(self._socket, {"call": call, "arguments": arguments})
        except OSError:
            raise WorkerDied(self._obituary()) from None

    def answer(self) -> Any:
        """Wait for the answer to the last `ask`.

        Raises:
            WorkerDied: the process is gone.
            WorkerError: the call raised.
            OSError: the call raised one, of a file or of a full disk: the same.
        """
        try:
            reply = _receive(self._socket)
        except (OSError, EOFError):
            raise WorkerDied(self._obituary()) from None
        self.asked_at = None
        if "error" in reply:
            if os.environ.get("EMBODIED_TRACEBACK"):
                sys.stderr.write(reply["traceback"])
            if reply["os"]:
                raise OSError(*reply["os"])
            raise WorkerError(reply["error"])
        return reply["result"]

    def call(self, call: str, **arguments: Any) -> Any:
        """`ask`, then `answer`."""
        self.ask(call, **arguments)
        return self.answer()

    def fileno(self) -> int:
        """The socket's, to wait on."""
        return self._socket.fileno()

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()
        self._socket.close()

    def hang_up(self) -> None:
        """Tell the process to close what it holds and end, without waiting for that."""
        self._socket.close()

    def close(self) -> None:
        """`hang_up`, and wait; a process that has not ended after five seconds is killed."""
        self.hang_up()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def _obituary(self) -> str:
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "the worker process closed its connection"
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        return f"the worker process {how}"


def wait(workers: Sequence[Worker], timeout: float | None = None) -> list[Worker]:
    """Those whose answer, or end, has arrived; waits until there is one or `timeout` seconds have passed."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.fileno(), selectors.EVENT_READ, worker)
        return [key.data for key, _ in selector.select(timeout)]


class Pool:
    """Workers that hold the same kind of environment; a context manager.

    The constructor returns at once; the first use waits until the environments are built.

    Args:
        name: the environment's, for messages.
        host: what each worker holds: `EnvironmentHost` or a class with its `describe`.
        arguments: the host's, plain JSON types.
        count: how many workers.

    Attributes:
        embodiment, tasks, max_steps: what the environments say of themselves; a ValueError with the reason where they
            could not be built.
    """

    def __init__(self, name: str, host: type, arguments: Mapping[str, Any], count: int) -> None:
        self.name, self._host, self._arguments = name, f"{host.__module__}.{host.__qualname__}", arguments
        self.workers = [Worker(self._host, arguments) for _ in range(count)]

    @property
    def embodiment(self) -> Embodiment:
        return Embodiment.from_dict(self._about["embodiment"])

    @property
    def tasks(self) -> list[str]:
        return self._about["tasks"]

    @property
    def max_steps(self) -> int:
        return self._about["max_steps"]

    @cached_property
    def _about(self) -> dict[str, Any]:
        try:
            return self.workers[0].call("describe")
        except (WorkerError, WorkerDied) as error:
            raise ValueError(f"{self.name} could not be built: {error}") from None

    def replace(self, worker: Worker) -> Worker:
        """A new process in the place of one that died."""
        worker.kill()
        new = self.workers[self.workers.index(worker)] = Worker(self._host, self._arguments)
        return new

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.hang_up()
        for worker in self.workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EnvironmentHost:
    """One environment, and its expert where wanted, as a worker holds them.

    Args:
        make: the environment's config node.
        expert: the expert's config node; with it every observation also holds `expert.action`.
    """

    def __init__(self, make: Mapping[str, Any], expert: Mapping[str, Any] | None = None) -> None:
        self.env = build(make)
        self.expert = None if expert is None else build(expert, env=getattr(self.env, "unwrapped", self.env))
        self.embodiment: Embodiment = self.env.embodiment

    def describe(self) -> dict[str, Any]:
        """The body, the tasks and the step limit of the environment."""
        env = self.env
        return {"embodiment": self.embodiment.to_dict(), "tasks": list(env.tasks), "max_steps": int(env.max_steps)}

    def reset(self, seed: int, task: str, filmed: bool = False) -> dict[str, Any]:
        """Begin the episode that (task, seed) names.

        Returns:
            `observation`; and where it is filmed the environment's `drawings`, and a `rendering` where there would be
            nothing else to see.
        """
        observation, _ = self.env.reset(seed=seed, options={"task": task})
        if self.expert is not None:
            self.expert.reset(seed)
        return self._seen(observation, filmed)

    def step(self, action: Any, filmed: bool = False) -> dict[str, Any]:
        """As `reset`, with `reward`, `terminated`, `truncated`, `success`; and what `info` says of a whole episode:
        `measures`, `prediction`, `reference`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        ended = {"terminated": bool(terminated), "truncated": bool(truncated)}
        reply = self._seen(observation, filmed) | ended | {"reward": float(reward), "success": bool(info["success"])}
        if "measures" in info:
            reply["measures"] = {str(name): float(value) for name, value in info["measures"].items()}
        return reply | {key: info[key] for key in ("prediction", "reference") if key in info}

    def render(self) -> np.ndarray | None:
        """A picture of the scene for people, (H, W, 3) uint8; None where the environment draws none."""
        render = getattr(self.env, "render", None)
        picture = None if render is None else render()
        return None if picture is None else np.asarray(picture, dtype=np.uint8)

    def close(self) -> None:
        self.env.close()

    def drawings(self) -> dict[str, np.ndarray]:
        """What the environment draws of its truth, by name (`embodied.interaction.Illustrated`)."""
        inner = getattr(self.env, "unwrapped", self.env)
        return dict(inner.drawings()) if isinstance(inner, Illustrated) else {}

    def _seen(self, observation: Mapping[str, Any], filmed: bool) -> dict[str, Any]:
        seen: dict[str, Any] = {"observation": dict(observation)}
        if self.expert is not None:
            # Not clipped here: whoever executes it does that, and counts it.
            seen["observation"][EXPERT_ACTION] = np.asarray(self.expert.act(), np.float32).reshape(-1)
        if filmed:
            seen["drawings"] = self.drawings()
            if not seen["drawings"] and not any(key.startswith(IMAGES) for key in observation):
                seen["rendering"] = self.render()
        return seen


def within_bounds(action: np.ndarray, embodiment: Embodiment) -> np.ndarray:
    """`action` (A,) clipped to the embodiment's bounds, float32; an index of a name is left as it is."""
    spec = embodiment.action
    if spec.kind == "categorical":
        return np.asarray(action, np.float32).reshape(1)
    low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
    return np.clip(np.asarray(action, np.float32), low, high)


def serve(descriptor: int) -> None:
    """The life of a worker process: build the object, answer calls until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides what ends
    threading.Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()
    connection = socket.socket(fileno=descriptor)
    hosted: Any = None
    problem = None
    try:
        order = _receive(connection)
        try:
            hosted = find_class(order["host"])(**order["arguments"])
        except Exception as error:
            problem = _report(error)
        while True:
            order = _receive(connection)
            try:
                reply = problem or {"result": getattr(hosted, order["call"])(**order["arguments"])}
            except Exception as error:
                reply = _report(error)
            _send(connection, reply)
    except (EOFError, OSError):
        pass
    finally:
        if hasattr(hosted, "close"):
            hosted.close()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _report(error: Exception) -> dict[str, Any]:
    text = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError):  # not written for people: say what and where
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"
    system = None
    if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
        system = [error.errno, error.strerror, *([error.filename] if error.filename else [])]
    return {"error": text, "os": system, "traceback": "".join(traceback.format_exception(error))}


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    arrays: list[np.ndarray] = []

    def describe(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(np.ascontiguousarray(value))
            return {"__array__": [value.dtype.str, value.shape]}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"a {type(value).__name__} cannot cross between processes")

    header = json.dumps(message, default=describe).encode()
    connection.sendall(_LENGTH.pack(len(header)) + header)
    for array in arrays:
        connection.sendall(_bytes_of(array))


def _receive(connection: socket.socket) -> Any:
    def restore(value: dict[str, Any]) -> Any:
        if "__array__" not in value:
            return value
        dtype, shape = value["__array__"]
        array = np.empty(shape, dtype)
        _fill(connection, _bytes_of(array))
        return array

    length = bytearray(_LENGTH.size)
    _fill(connection, memoryview(length))
    header = bytearray(_LENGTH.unpack(length)[0])
    _fill(connection, memoryview(header))
    return json.loads(header, object_hook=restore)


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _fill(connection: socket.socket, target: memoryview) -> None:
    while target:
        count = connection.recv_into(target)
        if count == 0:
            raise EOFError
        target = target[count:]
