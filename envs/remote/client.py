"""This side of a served object: start or find its server, prove the token, call methods, and notice every end.

Either the server is started here, with the interpreter that has the simulator, and ends with this process; or it runs
already, on this machine or another, and both sides have its token (see `envs.remote.server`).
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from envs.remote import server
from envs.remote.server import Fault

START = 300.0
"""Seconds that building a simulator may take."""
SILENCE = 600.0
"""Seconds without an answer after which a server counts as dead, unless a call says otherwise."""


class RemoteError(ValueError):
    """A served object raised, or its server is gone, silent, or not what it should be; one line."""


class Link:
    """A connection to one served object; open it with `started` or `connected`.

    Attributes:
        name: of what is served, for messages.
        about: what the server says of the object (`envs.remote.server.describe`).
    """

    def __init__(
        self, connection: socket.socket, name: str, process: subprocess.Popen | None, limit: int, start: float
    ) -> None:
        self.name, self.limit = name, limit
        self._socket: socket.socket | None = connection
        self._process = process
        self.left_out: set[str] = set()
        self.about: Mapping[str, Any] = self._answer("its start", start)

    @classmethod
    def started(
        cls,
        env: str,
        arguments: Mapping[str, Any] | None = None,
        python: str | None = None,
        imports: Sequence[str] = (),
        limit: int = server.LIMIT,
        start: float = START,
    ) -> Link:
        """Start a server of `env` for this client alone.

        Args:
            env: a Gymnasium id, `package.module:Class` or `file.py:Class`.
            arguments: its arguments, plain JSON types.
            python: the interpreter, which has the simulator, numpy and msgpack; None for this one.
            imports: modules to import first, such as those that register environments.
            limit: bytes of the largest message.
            start: seconds that building may take.

        Raises:
            RemoteError: the interpreter is not there, lacks a package, or could not build `env`.
        """
        ours, theirs = socket.socketpair()
        python = str(Path(python or sys.executable).expanduser())
        options = SimpleNamespace(
            env=env, arguments=json.dumps(dict(arguments or {})), max_message=limit, imports=list(imports)
        )
        with theirs:
            try:
                process = server.start(theirs, [python, str(Path(server.__file__).resolve())], options)
            except OSError as error:
                ours.close()
                raise RemoteError(f"the interpreter {python} cannot be started: {error.strerror}") from None
        return cls(ours, f"{env} of {python}", process, limit, start)

    @classmethod
    def connected(
        cls, address: str, token: str, limit: int = server.LIMIT, start: float = START, wait: float = server.PATIENCE
    ) -> Link:
        """Connect to a server that runs already.

        Args:
            address: `host:port`.
            token: what both sides know.
            limit, start: see `started`.
            wait: seconds for the connection and the greeting.

        Raises:
            RemoteError: nobody answers there, it speaks another protocol or version, or the tokens differ.
        """
        host, colon, port = address.rpartition(":")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise RemoteError(f"a server's address is host:port, such as 127.0.0.1:8700, got '{address}'")
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), wait)
        except OSError as error:
            raise RemoteError(f"no server answers at {address}: {error.strerror or error}") from None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _greet(connection, address, token, wait)
        except Fault as fault:
            connection.close()
            raise RemoteError(f"the server at {address} did not greet: {fault}") from None
        except BaseException:
            connection.close()
            raise
        return cls(connection, f"the server at {address}", None, limit, start)

    @property
    def open(self) -> bool:
        return self._socket is not None

    def call(self, name: str, *arguments: Any, wait: float = SILENCE, **options: Any) -> Any:
        """Call a method of the served object.

        Raises:
            RemoteError: it raised (the connection goes on), or the server is gone or silent for `wait` seconds (it
                is closed).
        """
        if self._socket is None:
            raise RemoteError(f"{self.name}: the connection is closed")
        try:
            server.send(
                self._socket, {"call": name, "arguments": list(arguments), "options": dict(options)}, self.limit
            )
        except TypeError as error:
            raise RemoteError(f"{self.name}: {name} was given {error}, which cannot cross") from None
        except Fault as fault:
            if "larger" in str(fault):  # nothing was sent
                raise RemoteError(f"{self.name}: {name}: {fault}") from None
            raise RemoteError(self._end(f"{name}: {fault}")) from None
        return self._answer(name, wait)

    def _answer(self, what: str, wait: float) -> Any:
        assert self._socket is not None
        try:
            answer = server.receive(self._socket, self.limit, wait)
        except Fault as fault:
            raise RemoteError(self._end(f"{what}: {fault}", hung=True)) from None
        except BaseException:  # interrupted between question and answer: what comes next would be misread
            self.close(0)
            raise
        if not isinstance(answer, dict) or not {"result", "error"} & set(answer):
            raise RemoteError(self._end(f"{what}: the connection ended" if answer is None else f"{what}: no answer"))
        if "error" in answer:
            if what == "its start":
                self.close()
            raise RemoteError(f"{self.name}: {answer['error']}")
        self.left_out |= set(answer.get("left_out", ()))
        return answer["result"]

    def _end(self, problem: str, hung: bool = False) -> str:
        """Close what is broken, and say how the server ended where that is known."""
        process = self._process
        status = None
        if process is not None and not hung:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(5)
        self.close(0)
        if status is None:
            return f"{self.name}: {problem}"
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        return f"{self.name}: {problem}; the server {how}"

    def close(self, wait: float = 8) -> None:
        """End the connection, and the server where it was started here: after `wait` seconds it is killed."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(Fault, OSError):
                server.send(connection, {"call": "close"})
            connection.close()
        if self._process is not None:
            try:
                self._process.wait(wait)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __del__(self) -> None:
        if getattr(self, "_socket", None) is not None:
            self.close(0)


def _greet(connection: socket.socket, address: str, token: str, wait: float) -> None:
    hello = server.receive(connection, server.GREETING, wait)
    if not isinstance(hello, dict) or hello.get("protocol") != server.PROTOCOL:
        raise RemoteError(f"what answers at {address} does not speak this protocol")
    if hello.get("version") != server.VERSION:
        raise RemoteError(
            f"the server at {address} speaks version {hello.get('version')} of the protocol, this program "
            f"{server.VERSION}: run it with this program's envs/remote/server.py"
        )
    theirs, nonce = hello.get("nonce"), secrets.token_bytes(32)
    if not isinstance(theirs, bytes):
        raise Fault("its greeting is incomplete")
    shown = server.proof(token, "client", theirs, nonce)
    server.send(connection, {"protocol": server.PROTOCOL, "version": server.VERSION, "nonce": nonce, "proof": shown})
    answer = server.receive(connection, server.GREETING, wait)
    if isinstance(answer, dict) and "error" in answer:
        raise RemoteError(f"the server at {address} {answer['error']}")
    proof = answer.get("proof") if isinstance(answer, dict) else None
    if not isinstance(proof, bytes) or not server.hmac.compare_digest(
        proof, server.proof(token, "server", theirs, nonce)
    ):
        raise RemoteError(f"what answers at {address} has not shown that it has the token")
