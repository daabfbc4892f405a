"""Who may speak to a server, what its messages may be, and what becomes of strangers, liars and the dead."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.remote import server
from envs.remote.client import Link, RemoteError
from envs.remote.env import RemoteEnv

pytestmark = pytest.mark.simulator("msgpack")

HERE = Path(__file__).parent
WORLDS = str(HERE / "remote_worlds.py")
FILE = HERE.parents[1] / "envs/remote/server.py"
TOKEN = "correct horse battery staple"


class Running:
    """A server process, and what it has said."""

    def __init__(self, *words, token=TOKEN):
        environment = {name: value for name, value in os.environ.items() if name != server.TOKEN}
        if token:
            environment[server.TOKEN] = token
        self.process = subprocess.Popen(
            [sys.executable, str(FILE), *words], stderr=subprocess.PIPE, text=True, env=environment, cwd=HERE
        )
        first = self.process.stderr.readline()
        found = re.fullmatch(r"remote: serving .* at (\S+:\d+)\n", first)
        self.address = found.group(1) if found else None
        self.said = [first]
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()

    def says(self, text, seconds=5):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if any(re.search(text, line) for line in self.said):
                return True
            time.sleep(0.02)
        return False

    def strange(self):
        """A raw connection that has read the greeting."""
        host, port = self.address.split(":")
        connection = socket.create_connection((host, int(port)), 5)
        return connection, server.receive(connection, 4096, 5)

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def running():
    one = Running("--env", f"{WORLDS}:Faulty", "--clients", "2", "--max-message", "100000")
    assert one.address, one.said
    yield one
    one.stop()


def still_serves(running):
    link = Link.connected(running.address, TOKEN)
    assert link.call("reset")[0].tolist() == [0.0]
    link.close()
    return True


def test_clients_get_an_environment_each_in_a_process_each(running, monkeypatch, tmp_path):
    monkeypatch.setenv(server.TOKEN, TOKEN)
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    secret.chmod(0o600)
    one, two = RemoteEnv(address=running.address), RemoteEnv(address=running.address, token_file=str(secret))
    pids = {env.reset()[1]["pid"] for env in (one, two)}
    assert len(pids) == 2 and running.process.pid not in pids
    for pid in (*pids, running.process.pid):
        assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
    for pid in pids:
        assert TOKEN not in Path(f"/proc/{pid}/environ").read_text()
    with pytest.raises(RemoteError, match="refused: there are 2 clients already"):
        RemoteEnv(address=running.address)
    one.close()
    two.close()


def test_a_dead_environment_is_one_line_on_both_sides_and_another_begins_at_reset(running, monkeypatch):
    monkeypatch.setenv(server.TOKEN, TOKEN)
    env = RemoteEnv(address=running.address)
    env.reset()
    with pytest.raises(RemoteError, match="step: the connection ended"):
        env.step(2)
    assert running.says("was ended by SIGKILL")
    env.reset()
    env.close()


def test_another_token_is_refused(running):
    with pytest.raises(RemoteError, match="refused: it has another token"):
        Link.connected(running.address, "correct horse battery stapel")
    assert running.says("refused: it has another token") and still_serves(running)


def test_a_proof_overheard_is_worth_nothing_later(running):
    connection, hello = running.strange()
    nonce = bytes(32)
    shown = server.proof(TOKEN, "client", hello["nonce"], nonce)
    connection.close()
    again, other = running.strange()
    assert other["nonce"] != hello["nonce"]
    server.send(again, {"protocol": server.PROTOCOL, "version": server.VERSION, "nonce": nonce, "proof": shown})
    assert "another token" in server.receive(again, 4096, 5)["error"]


@pytest.mark.parametrize(
    "raw, says",
    [
        (b"GET / HTTP/1.1\r\n\r\n", "larger than the limit of 4096"),
        (struct.pack(">I", 5000) + bytes(5000), "larger than the limit of 4096"),
        (struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1", "a message that cannot be read"),
        (struct.pack(">I", 1) + b"\x01", "does not speak this protocol"),
        (struct.pack(">I", 0), "a message that cannot be read"),
        (struct.pack(">I", 100) + b"short", "breaks off"),
    ],
)
def test_garbage_for_a_greeting_is_refused(running, raw, says):
    connection, _ = running.strange()
    connection.sendall(raw)
    connection.shutdown(socket.SHUT_WR)
    answer = server.receive(connection, 4096, 5)
    assert says in answer["error"] and server.receive(connection, 4096, 5) is None
    assert running.says(says) and still_serves(running)


def test_a_client_of_another_version_is_told_so(running):
    connection, _ = running.strange()
    server.send(connection, {"protocol": server.PROTOCOL, "version": 99, "nonce": bytes(32), "proof": bytes(32)})
    assert "version 99 of the protocol, not 1" in server.receive(connection, 4096, 5)["error"]


def test_one_who_says_nothing_keeps_nobody_waiting(running):
    silent = [running.strange()[0] for _ in range(5)]
    assert still_serves(running)
    silent[0].setblocking(False)
    with pytest.raises(BlockingIOError):  # the server still waits for its greeting
        silent[0].recv(1)
    for connection in silent:
        connection.close()


@pytest.mark.parametrize(
    "raw, says",
    [
        (struct.pack(">I", 100_001), "100001 bytes is larger than the limit of 100000"),
        (struct.pack(">I", 2) + b"\xc1\xc1", "cannot be read"),
        (struct.pack(">I", 8) + msgpack.packb(msgpack.ExtType(1, b"\x00\xffab"))[:8].ljust(8, b"\0"), "cannot be read"),
    ],
)
def test_a_client_that_sends_rubbish_later_is_cut_off_alone(running, raw, says):
    link = Link.connected(running.address, TOKEN)
    link._socket.sendall(raw)
    with pytest.raises(RemoteError, match=f"cut off: .*{says}"):
        link.call("reset")
    assert running.says(says) and still_serves(running)
    link.close()


def served_by(answer):
    """The address of one that greets a single client by `answer(connection)`."""
    door = socket.create_server(("127.0.0.1", 0))

    def greet():
        connection, _ = door.accept()
        with connection, door:
            answer(connection)

    threading.Thread(target=greet, daemon=True).start()
    return f"127.0.0.1:{door.getsockname()[1]}"


def impostor(connection):
    server.send(connection, {"protocol": server.PROTOCOL, "version": server.VERSION, "nonce": bytes(32)})
    server.receive(connection, 4096, 5)
    server.send(connection, {"proof": bytes(32)})


@pytest.mark.parametrize(
    "answer, says",
    [
        (impostor, "has not shown that it has the token"),
        (lambda c: server.send(c, {"protocol": server.PROTOCOL, "version": 2}), "speaks version 2 .* this program 1"),
        (lambda c: server.send(c, ["hello"]), "does not speak this protocol"),
        (lambda c: c.sendall(b"220 mail.example.org ESMTP\r\n"), "did not greet: a message of .* larger than"),
        (lambda c: None, "does not speak this protocol"),
        (lambda c: time.sleep(1), "did not greet: no message came in time"),
    ],
)
def test_what_answers_and_is_no_server_is_refused_by_the_client(answer, says):
    with pytest.raises(RemoteError, match=says):
        Link.connected(served_by(answer), TOKEN, wait=0.4)


def test_nobody_there_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    with pytest.raises(RemoteError, match=f"no server answers at 127.0.0.1:{port}"):
        Link.connected(f"127.0.0.1:{port}", TOKEN)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ends_takes_its_environments_along_even_in_a_step(end):
    from test_remote_env import gone

    one = Running("--env", f"{WORLDS}:Faulty")
    link = Link.connected(one.address, TOKEN)
    pid = link.call("reset")[1]["pid"]
    threading.Timer(0.3, one.process.send_signal, [end]).start()
    with pytest.raises(RemoteError, match="step: "):
        link.call("step", 3, wait=20)
    assert gone(pid) and one.process.wait(5) in (0, -signal.SIGKILL)


@pytest.mark.parametrize(
    "words, token, says",
    [
        (["--env", "CartPole-v1"], None, "there is no token in EMBODIED_REMOTE_TOKEN"),
        (["--env", "CartPole-v1"], "short", "at least 16 characters"),
        (["--env", "CartPole-v1", "--token-file", "/nowhere/token"], None, "/nowhere/token"),
        (["--env", "CartPole-v1", "--token-file", WORLDS], None, "others can read the token"),
        (["--env", "CartPole-v1", "--arguments", "{"], TOKEN, "no JSON"),
        (["--env", "CartPole-v1", "--arguments", "[1]"], TOKEN, "a JSON object"),
        (["--env", "CartPole-v1", "--port", "99999"], TOKEN, "port must be 0-65535"),
        (["--env", "CartPole-v1", "--host", "203.0.113.9"], TOKEN, "assign requested address"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(words, token, says):
    Path(WORLDS).chmod(0o644)
    one = Running(*words, token=token)
    assert one.process.wait(10) == 2
    time.sleep(0.1)
    assert one.address is None and len(one.said) == 1 and says in one.said[0], one.said


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9)
values = st.recursive(
    plain | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(values)
def test_values_come_back_as_they_were(value):
    back = server.unpack(server.pack(value))
    assert back == value and repr(back) == repr(value)


@pytest.mark.parametrize("dtype", ["?", "u1", "<i4", ">i4", "i8", "f2", "f4", ">f8", "c8", "S3", "U4"])
def test_arrays_of_any_layout_come_back_as_they_were(dtype):
    for array in (np.arange(24).reshape(2, 3, 4).astype(dtype), np.zeros((0, 3), dtype), np.array(1).astype(dtype)):
        for view in (array, array.T, array[..., ::-1] if array.ndim else array):
            back = server.unpack(server.pack(view))
            assert back.dtype == view.dtype and back.shape == view.shape and (back == view).all()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 59), st.integers(0, 255))
def test_no_bytes_do_worse_than_a_fault(rubbish, place, value):
    message = bytearray(server.pack({"a": np.arange(3), "b": (1, np.float32(2)), "c": "text"}))
    message[place % len(message)] = value
    for data in (rubbish, bytes(message), message[: place + 1]):
        with contextlib.suppress(server.Fault):
            server.unpack(bytes(data))


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), np.zeros(2, "M8[s]"), 2**64, {"a": [len]}])
def test_what_cannot_cross_is_a_type_error(value):
    with pytest.raises(TypeError):
        server.pack(value)
