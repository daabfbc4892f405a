"""A served Gymnasium environment, as if it were here: same spaces, observations, rewards and infos."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from embodied.spec import Embodiment
from envs.remote import server
from envs.remote.client import Link, RemoteError
from envs.remote.spaces import space_of


class RemoteEnv(gymnasium.Env):
    """A Gymnasium environment of another interpreter or machine.

    Args:
        env: what to start a server of: a Gymnasium id, `package.module:Class` or `file.py:Class`; None with `address`.
        arguments: its arguments.
        python: the interpreter that has it; None for this one.
        imports: modules that the server imports first.
        address: `host:port` of a server that runs already, instead of `env`. Its token comes from `token_file` or the
            environment variable EMBODIED_REMOTE_TOKEN.
        token_file: a file that only you can read.
        timeout: seconds without an answer after which the server counts as dead.
        start_timeout: seconds that building it, and each reset, may take.
        max_message: bytes of the largest message.

    A server that died is started, or connected to, again by the next `reset`.

    Raises:
        ValueError: neither or both of `env` and `address`; what `Link` raises; a space that cannot cross.
    """

    def __init__(
        self,
        env: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        python: str | None = None,
        imports: Sequence[str] = (),
        address: str | None = None,
        token_file: str | None = None,
        timeout: float = 60.0,
        start_timeout: float = 300.0,
        max_message: int = server.LIMIT,
    ) -> None:
        if (env is None) == (address is None):
            raise ValueError("a remote environment is either an env to start or the address of a server, one of both")
        if timeout <= 0 or start_timeout <= 0 or max_message < server.GREETING:
            raise ValueError(
                f"timeout {timeout} and start_timeout {start_timeout} should be above 0 seconds, and max_message "
                f"{max_message} at least {server.GREETING} bytes"
            )
        self._server = {"env": env, "arguments": arguments, "python": python, "imports": imports}
        self._address, self._token_file = address, token_file
        self._timeout, self._start, self._limit = float(timeout), float(start_timeout), int(max_message)
        self._link = self._open()
        about = self._link.about
        self._told: set[str] = set()
        try:
            self.observation_space = space_of(about["observation_space"])
            self.action_space = space_of(about["action_space"])
        except KeyError as missing:
            self._link.close()
            raise RemoteError(f"{self._link.name} is no environment: it has no {missing}") from None
        except ValueError as error:
            self._link.close()
            raise RemoteError(f"{self._link.name}: {error}") from None
        self.metadata = dict(about.get("metadata") or {})
        self.render_mode = about.get("render_mode")
        self.max_steps: int | None = about.get("max_steps")
        body = about.get("embodiment")
        if body is not None:
            self.embodiment = Embodiment.from_dict(body)
            self.tasks = tuple(about["tasks"])

    def _open(self) -> Link:
        if self._address is not None:
            return Link.connected(self._address, server.read_token(self._token_file), self._limit, self._start)
        return Link.started(**self._server, limit=self._limit, start=self._start)  # type: ignore[arg-type]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The served environment's own `reset`.

        Raises:
            RemoteError: it raised, or the server is gone or silent.
        """
        super().reset(seed=seed)
        if not self._link.open:
            self._link = self._open()
        observation, info = self._link.call("reset", wait=self._start, seed=seed, options=options)
        self._tell()
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The served environment's own `step`.

        Raises:
            RemoteError: it raised, or the server is gone or silent.
        """
        observation, reward, terminated, truncated, info = self._link.call("step", action, wait=self._timeout)
        self._tell()
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """The served environment's own `render`."""
        return self._link.call("render", wait=self._timeout)

    def close(self) -> None:
        """End the connection, and the server where it was started here; `reset` opens both again."""
        self._link.close()

    def _tell(self) -> None:
        new = self._link.left_out - self._told
        if new:
            self._told |= new
            warnings.warn(f"{self._link.name}: {', '.join(sorted(new))} cannot cross and is left out", stacklevel=3)
