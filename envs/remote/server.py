"""Serve a Gymnasium environment, or any object with methods, to another interpreter: one file, on its own.

It needs Python 3.9 or later, numpy and msgpack, and imports nothing else of this project, so that it can be copied to
where the simulator is and run with that interpreter. The token is read from the environment variable
EMBODIED_REMOTE_TOKEN or from a file, never from the command line:

    export EMBODIED_REMOTE_TOKEN=$(python -c "import secrets; print(secrets.token_hex())")
    python server.py --env CartPole-v1 --port 8700
    python server.py --env my_simulators.py:Kitchen --arguments '{"size": 64}' --port 8700 --token-file ~/.remote-token

What crosses: a message is its length (4 bytes, big-endian) and one msgpack value; extension 1 is an array, 2 a numpy
scalar, 3 a tuple. Nothing is pickled. Server and client prove to each other that they have the token, by an HMAC of
both sides' fresh random numbers, before anything else is read; the rest is not encrypted, so beyond one machine use a
tunnel. Each client gets a process of its own, with a fresh environment in it, which ends with the client or the server.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import importlib
import importlib.util
import json
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

PROTOCOL, VERSION = "embodied-remote", 1
TOKEN = "EMBODIED_REMOTE_TOKEN"
LIMIT = 256 * 2**20
"""Bytes of the largest message, unless told otherwise."""
GREETING = 4096
"""Bytes of the largest message before the other side has proved that it has the token."""
PATIENCE = 10.0
"""Seconds for a greeting, and for the rest of a message that has begun."""
STRANGERS = 32
"""So many may be at their greeting at once."""
ARRAY, SCALAR, TUPLE = 1, 2, 3
SPACES = ("Box", "Discrete", "MultiBinary", "MultiDiscrete", "Text", "Dict", "Tuple", "Sequence")
_LENGTH = struct.Struct(">I")


class Fault(Exception):
    """What the other side did wrong, or that it is gone; the message is one line."""


def pack(value):
    """Any of None, bool, int, float, str, bytes, list, tuple, dict, numpy arrays and scalars, as bytes.

    Raises:
        TypeError: something else.
    """
    try:
        return msgpack.packb(value, default=_extend, strict_types=True)
    except (OverflowError, RecursionError) as error:
        raise TypeError(f"{error}") from None


def unpack(data):
    """The inverse of `pack`; arrays can be written to.

    Raises:
        Fault: these bytes are no message.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_extended, strict_map_key=False)
    except Fault:
        raise
    except Exception as error:  # msgpack's own, and what damaged lengths lead to
        raise Fault(f"a message that cannot be read ({type(error).__name__}: {_one_line(error)})") from None


def _extend(value):
    if isinstance(value, tuple):
        return msgpack.ExtType(TUPLE, pack(list(value)))
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "biufcSU":
            raise TypeError(f"an array of {value.dtype}")
        header = msgpack.packb([value.dtype.str, list(value.shape)])
        code = ARRAY if isinstance(value, np.ndarray) else SCALAR
        return msgpack.ExtType(code, struct.pack(">H", len(header)) + header + value.tobytes())
    for plain in (dict, list, str, bytes, int, float):  # their subclasses, such as OrderedDict
        if isinstance(value, plain):
            return plain(value)  # type: ignore[arg-type]
    raise TypeError(f"a {type(value).__name__}")


def _extended(code, data):
    if code == TUPLE:
        return tuple(unpack(data))
    if code not in (ARRAY, SCALAR):
        raise Fault(f"a message with an extension {code}, which this version does not have")
    (start,) = struct.unpack_from(">H", data)
    name, shape = msgpack.unpackb(data[2 : 2 + start])
    if str(name)[1:2] not in tuple("biufcSU"):  # after the order of bytes, as `dtype.str` writes it
        raise Fault(f"a message with an array of {name!s:.20}")
    dtype = np.dtype(str(name))
    array = np.frombuffer(data, dtype, offset=2 + start).reshape(shape).copy()
    return array[()] if code == SCALAR else array


def send(connection, message, limit=LIMIT):
    """Send one message.

    Raises:
        TypeError: it holds what cannot cross.
        Fault: it is too large, or the other side is gone.
    """
    body = pack(message)
    if len(body) > min(limit, 2**32 - 1):
        raise Fault(f"a message of {len(body)} bytes is larger than the limit of {limit}")
    try:
        connection.sendall(_LENGTH.pack(len(body)))
        connection.sendall(body)
    except OSError as error:
        raise Fault(f"the connection broke ({error})") from None


def send_off(connection, reason):
    """The last message to one who is cut off; bytes left unread would reset the connection, and the reason be lost."""
    with contextlib.suppress(Fault, OSError):
        send(connection, {"error": reason})
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1)
        until = time.monotonic() + 1
        while time.monotonic() < until and connection.recv(65536):
            pass


def receive(connection, limit=LIMIT, wait=None):
    """The next message; None where the other side has closed.

    Args:
        wait: seconds until it begins; None for ever. The rest of it has `PATIENCE` between two pieces.

    Raises:
        Fault: nothing comes, it breaks off, it is too large, or it is no message.
    """
    head = _exactly(connection, _LENGTH.size, wait)
    if head is None:
        return None
    (size,) = _LENGTH.unpack(head)
    if size > limit:
        raise Fault(f"a message of {size} bytes is larger than the limit of {limit}")
    body = _exactly(connection, size, PATIENCE)
    if body is None and size:
        raise Fault("a message that breaks off")
    return unpack(body or b"")


def _exactly(connection, size, wait):
    """So many bytes; None where the connection ends before the first of them."""
    data, have = bytearray(size), 0
    with memoryview(data) as view:
        while have < size:
            connection.settimeout(PATIENCE if have else wait)
            try:
                count = connection.recv_into(view[have:])
            except socket.timeout:  # noqa: UP041 (two things before Python 3.10)
                raise Fault("no message came in time" if not have else "a message that breaks off") from None
            except OSError:
                count = 0
            if not count:
                if have:
                    raise Fault("a message that breaks off")
                return None
            have += count
    connection.settimeout(None)
    return data


def read_token(path=None):
    """The token from a file, or else from the environment variable.

    Raises:
        ValueError: there is none, it is short, or others can read the file.
    """
    if path:
        path = Path(path).expanduser()
        if path.stat().st_mode & 0o077:
            raise ValueError(f"others can read the token in {path}: chmod 600 {path}")
        token, where = path.read_text(encoding="utf-8").strip(), path
    else:
        token, where = os.environ.get(TOKEN, "").strip(), TOKEN
    if not token:
        raise ValueError(f"there is no token in {where}: set {TOKEN}, or name a file, on both sides")
    if len(token) < 16:
        raise ValueError(f"the token in {where} should have at least 16 characters, such as secrets.token_hex() gives")
    return token


def proof(token, side, server, client):
    """What shows that a side has the token, for this connection's two random numbers only."""
    return hmac.new(token.encode(), side.encode() + b":" + server + b":" + client, "sha256").digest()


def admit(connection, token):
    """The server's greeting.

    Raises:
        Fault: the client speaks another version, has another token, or is no client.
    """
    nonce = secrets.token_bytes(32)
    send(connection, {"protocol": PROTOCOL, "version": VERSION, "nonce": nonce})
    answer = receive(connection, GREETING, PATIENCE)
    if not isinstance(answer, dict) or answer.get("protocol") != PROTOCOL:
        raise Fault("it does not speak this protocol")
    if answer.get("version") != VERSION:
        raise Fault(f"it speaks version {answer.get('version')} of the protocol, not {VERSION}")
    theirs, shown = answer.get("nonce"), answer.get("proof")
    if not isinstance(theirs, bytes) or not isinstance(shown, bytes) or len(theirs) != 32:
        raise Fault("its greeting is incomplete")
    if not hmac.compare_digest(shown, proof(token, "client", nonce, theirs)):
        raise Fault("it has another token")
    send(connection, {"proof": proof(token, "server", nonce, theirs)})


def build(target, arguments, imports=()):
    """`package.module:Class` or `file.py:Class`, called with arguments; anything else is an id for `gymnasium.make`.

    Raises:
        ValueError: there is no such thing.
    """
    for name in imports:
        importlib.import_module(name)
    left, colon, right = target.rpartition(":")
    if not colon:
        return importlib.import_module("gymnasium").make(target, disable_env_checker=True, **arguments)
    if left.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(left).stem, left)
        if spec is None or not Path(left).exists():
            raise ValueError(f"there is no file {left}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    else:
        module = importlib.import_module(left)
    if not hasattr(module, right):
        raise ValueError(f"{left} has no {right}")
    return getattr(module, right)(**arguments)


def space(value):
    """A Gymnasium space as plain data; the name of its class alone where it is none of `SPACES`."""
    kind = next((c.__name__ for c in type(value).__mro__ if c.__name__ in SPACES), None)
    if kind == "Box":
        return {"kind": kind, "low": value.low, "high": value.high, "dtype": np.dtype(value.dtype).str}
    if kind == "Discrete":
        return {"kind": kind, "n": int(value.n), "start": int(value.start)}
    if kind == "MultiBinary":
        return {"kind": kind, "n": np.asarray(value.n)}
    if kind == "MultiDiscrete":
        return {"kind": kind, "nvec": value.nvec, "start": value.start, "dtype": np.dtype(value.dtype).str}
    if kind == "Text":
        characters = "".join(sorted(value.character_set))
        return {"kind": kind, "low": int(value.min_length), "high": int(value.max_length), "characters": characters}
    if kind == "Dict":
        return {"kind": kind, "spaces": [[key, space(part)] for key, part in value.spaces.items()]}
    if kind == "Tuple":
        return {"kind": kind, "spaces": [space(part) for part in value.spaces]}
    if kind == "Sequence":
        return {"kind": kind, "feature": space(value.feature_space), "stack": bool(value.stack)}
    return {"kind": type(value).__name__}


def describe(served):
    """What a client has to know of the object."""
    about: dict[str, Any] = {"python": sys.version.split()[0], "methods": sorted(methods(served))}
    for name in ("observation_space", "action_space"):
        if hasattr(served, name):
            about[name] = space(getattr(served, name))
    inner = getattr(served, "unwrapped", served)
    body = getattr(inner, "embodiment", None)
    if body is not None and hasattr(body, "to_dict"):
        about["embodiment"] = json.loads(json.dumps(body.to_dict()))
        about["tasks"] = [str(task) for task in inner.tasks]
    steps = getattr(inner, "max_steps", None) or getattr(getattr(served, "spec", None), "max_episode_steps", None)
    about["max_steps"] = None if steps is None else int(steps)
    about["metadata"] = crossing(dict(getattr(served, "metadata", {})), "metadata", [])
    about["render_mode"] = getattr(served, "render_mode", None)
    return about


def methods(served):
    """What a client may call: an environment's own, and those that the object's class lists in `remote_methods`."""
    own = ("reset", "step", "render") if hasattr(served, "action_space") else ()
    return {*own, *getattr(type(getattr(served, "unwrapped", served)), "remote_methods", ())}


def call(served, order):
    """Do what a message asks for; the answer to send."""
    name = str(order.get("call") if isinstance(order, dict) else order)
    left_out: list[str] = []
    if name not in methods(served):
        return {"error": f"it has no method {name:.50}; there is {', '.join(sorted(methods(served)))}"}
    try:
        target = served if hasattr(served, name) else served.unwrapped
        result = getattr(target, name)(*order.get("arguments", ()), **order.get("options", {}))
        wanted = {"reset": 2, "step": 5}.get(name)
        if wanted and hasattr(served, "action_space"):
            if not isinstance(result, tuple) or len(result) != wanted or not isinstance(result[-1], dict):
                raise ValueError(f"{name} did not give Gymnasium's {wanted} values: wrap what is older")
            result = (*result[:-1], crossing(result[-1], "info", left_out))
        return {"result": result, "left_out": left_out}
    except Exception as error:
        return {"error": explain(error)}


def crossing(value, path, left_out):
    """The part of `info` that can be sent; what cannot is named in `left_out`."""
    if isinstance(value, dict):
        kept = {key: crossing(part, f"{path}.{key}", left_out) for key, part in value.items()}
        return {key: part for key, part in kept.items() if part is not Fault}
    try:
        pack(value)
    except TypeError:
        left_out.append(path)
        return Fault  # a value that no environment has
    return value


def explain(error):
    """One line; where it happened too, unless it was written for people."""
    text = _one_line(error)
    if isinstance(error, (ValueError, OSError)):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


def session(connection, options):
    """Build the object, say what it is, answer calls until the client closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: who started this decides
    sys.path.insert(0, str(Path.cwd()))
    threading.Thread(target=_end_with, args=[connection, os.getppid()], daemon=True).start()
    limit = options.max_message
    served: Any = None
    try:
        try:
            served = build(options.env, json.loads(options.arguments), options.imports)
            send(connection, {"result": describe(served)}, limit)
        except Fault:
            raise
        except Exception as error:
            send(connection, {"error": explain(error)}, limit)
            return
        while True:
            order = receive(connection, limit)
            if order is None or order == {"call": "close"}:
                return
            answer = call(served, order)
            try:
                send(connection, answer, limit)
            except TypeError as error:
                send(connection, {"error": f"it gave {error}, which cannot cross"}, limit)
            except Fault as fault:
                if "larger" not in str(fault):
                    raise
                send(connection, {"error": f"it gave {fault}"}, limit)
    except Fault as fault:
        say(f"a client of {options.env} was cut off: {fault}")
        send_off(connection, f"the server cut off: {fault}")
    finally:
        if hasattr(served, "close"):
            served.close()
        connection.close()


def _end_with(connection, parent):
    """End this process when its client hangs up or its parent dies, even in the middle of a long call."""
    watch = select.poll()
    watch.register(connection.fileno(), select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    while os.getppid() == parent:
        try:
            if watch.poll(500):
                break
        except OSError:
            break
    time.sleep(3)  # for the call to end and the environment to be closed
    os._exit(1)


def listen(options):
    """Accept clients until the process is ended; each becomes a process."""
    token = read_token(options.token_file)
    door = socket.create_server((options.host, options.port))
    host, port = door.getsockname()[:2]
    running: dict[int, subprocess.Popen] = {}
    lock = threading.Lock()

    def welcome(connection, address):
        where = ":".join(map(str, address[:2]))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
                if hasattr(socket, name):  # so that a client whose machine vanished is noticed within a minute
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            admit(connection, token)
            until = time.monotonic() + 3  # for one that has just closed
            while len(running) >= options.clients and time.monotonic() < until:
                time.sleep(0.05)
            with lock:
                if len(running) >= options.clients:
                    raise Fault(f"there are {options.clients} clients already, see --clients")
                process = start(connection, [sys.executable, str(Path(__file__).resolve())], options)
                running[process.pid] = process
        except Fault as fault:
            say(f"{where} was refused: {fault}")
            send_off(connection, f"refused: {fault}")
            return
        finally:
            connection.close()
        status = process.wait()
        with lock:
            del running[process.pid]
        if status < 0:
            say(f"the environment of {where} was ended by {signal.Signals(-status).name}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    say(f"serving {options.env} at {host}:{port}")
    try:
        while True:
            connection, address = door.accept()
            if threading.active_count() > options.clients + STRANGERS:
                connection.close()
            else:
                threading.Thread(target=welcome, args=[connection, address], daemon=True).start()
    except KeyboardInterrupt:
        pass
    finally:
        door.close()
        for process in list(running.values()):
            process.kill()


def start(connection, command, options):
    """The process of one client; its output goes to this one's stderr, and it knows no token."""
    words = ["--env", options.env, "--arguments", options.arguments, "--max-message", str(options.max_message)]
    for name in options.imports:
        words += ["--import", name]
    return subprocess.Popen(
        [*command, *words, "--session", str(connection.fileno())],
        pass_fds=[connection.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=2,
        env={name: value for name, value in os.environ.items() if name != TOKEN},
    )


def say(text):
    """One line for whoever runs the server."""
    print(f"remote: {_one_line(text)}\n", end="", file=sys.stderr, flush=True)


def _one_line(text):
    return " ".join(str(text).split())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True, help="a Gymnasium id, package.module:Class or file.py:Class")
    parser.add_argument("--arguments", default="{}", help="its arguments, a JSON object")
    parser.add_argument("--import", dest="imports", action="append", default=[], help="a module to import before")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free; the first line of output says which")
    parser.add_argument("--token-file", help=f"a file with the token, instead of the environment variable {TOKEN}")
    parser.add_argument("--max-message", type=int, default=LIMIT, help="bytes of the largest message")
    parser.add_argument("--clients", type=int, default=8, help="at once")
    parser.add_argument("--session", type=int, help=argparse.SUPPRESS)  # an open socket, inherited
    options = parser.parse_args()
    try:
        if not isinstance(json.loads(options.arguments), dict):
            raise ValueError(f"--arguments is a JSON object, got {options.arguments}")
        if options.session is None:
            listen(options)
        else:
            session(socket.socket(fileno=options.session), options)
    except (ValueError, OSError, OverflowError) as error:
        say(explain(error) if not isinstance(error, json.JSONDecodeError) else f"--arguments is no JSON: {error}")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
