"""Who judges an open-ended answer: a program on this machine, or a model behind an HTTP endpoint."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlsplit

MOST_BYTES = 1_000_000
"""No verdict is longer; what is longer is no verdict."""

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that may be over when asked again."""


class NoVerdict(ValueError):
    """The judge could not be asked, or did not answer in time; asking again will not help or did not."""


class Judge(ABC):
    """Answers a prompt with text.

    Args:
        timeout: seconds that one verdict may take.
        retries: how often a verdict is asked for again after a failure that may pass.
        wait: seconds before the first retry; doubled before each next one.

    Attributes:
        retried: how often it had to be asked again so far.
    """

    def __init__(self, timeout: float = 60.0, retries: int = 2, wait: float = 1.0) -> None:
        for name, value, least in (("timeout", timeout, 0.001), ("retries", retries, 0), ("wait", wait, 0)):
            if value < least:
                raise ValueError(f"{type(self).__name__}: {name} is {least} or more, got {value}")
        self.timeout, self.retries, self.wait, self.retried = timeout, retries, wait, 0

    def ask(self, prompt: str) -> str:
        """The judge's answer.

        Raises:
            NoVerdict: there is none, after all retries.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._ask(prompt)
            except _Passing as error:
                if attempt == self.retries:
                    raise NoVerdict(f"{error} (asked {attempt + 1} times)") from None
                self.retried += 1
                time.sleep(self.wait * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    @abstractmethod
    def _ask(self, prompt: str) -> str: ...

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Which judge this is, for the result: kind, model, version, settings. Never a secret."""


class CommandJudge(Judge):
    """A program that reads the prompt on its standard input and writes the verdict on its standard output.

    Args:
        command: the program and its arguments, cut into words as a shell would; no shell runs it.
        version: what to write down as its version.

    Raises:
        ValueError: the command is empty.
    """

    def __init__(
        self, command: str, version: str | None = None, timeout: float = 60.0, retries: int = 2, wait: float = 1.0
    ) -> None:
        super().__init__(timeout, retries, wait)
        self.command, self.version = shlex.split(command), version
        if not self.command:
            raise ValueError("CommandJudge: command is empty; name the program that judges")

    def _ask(self, prompt: str) -> str:
        try:
            done = subprocess.run(self.command, input=prompt.encode(), capture_output=True, timeout=self.timeout)
        except FileNotFoundError:
            raise NoVerdict(f"there is no program '{self.command[0]}' to judge with") from None
        except PermissionError:
            raise NoVerdict(f"'{self.command[0]}' may not be run") from None
        except subprocess.TimeoutExpired:
            raise _Passing(f"'{self.command[0]}' took longer than {self.timeout:g} s") from None
        if done.returncode:
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["without a word"])[-1]
            raise _Passing(f"'{self.command[0]}' ended with status {done.returncode}: {last[:200]}")
        if len(done.stdout) > MOST_BYTES:
            raise NoVerdict(f"'{self.command[0]}' wrote more than {MOST_BYTES} bytes")
        return done.stdout.decode(errors="replace").strip()

    def identity(self) -> dict[str, Any]:
        return {"kind": "command", "command": self.command, "version": self.version}


class HTTPJudge(Judge):
    """A model behind an endpoint that speaks OpenAI's chat completions.

    Args:
        url: of the endpoint, down to `/chat/completions`.
        model: its name there.
        key: the *name* of the environment variable that holds the key; None sends none.
        temperature, max_tokens, seed: of the generation.
        context: characters of a prompt that are sent at most.

    Raises:
        ValueError: the address is none of http and https, or the environment variable is not set.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        temperature: float = 0.0,
        max_tokens: int = 256,
        seed: int | None = 0,
        context: int = 100_000,
        timeout: float = 60.0,
        retries: int = 2,
        wait: float = 1.0,
    ) -> None:
        super().__init__(timeout, retries, wait)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError(f"HTTPJudge: url is http(s)://host/.../chat/completions without a name in it, got '{url}'")
        if key is not None and not os.environ.get(key):
            raise ValueError(f"HTTPJudge: the environment variable {key}, which is to hold the key, is not set")
        self.url, self.model, self.key = url, model, key
        self.settings = {"temperature": temperature, "max_tokens": max_tokens} | (
            {} if seed is None else {"seed": seed}
        )
        self.context = context
        self.served: str | None = None

    def _ask(self, prompt: str) -> str:
        if len(prompt) > self.context:
            raise NoVerdict(f"the prompt has {len(prompt)} characters, more than {self.context}")
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], **self.settings}
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {os.environ[self.key]}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers, method="POST")
        try:
            with _OPENER.open(request, timeout=self.timeout) as response:
                data = response.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            said = error.read(200).decode(errors="replace").strip().replace("\n", " ")
            problem = f"{self.url} answered {error.code} {error.reason}: {said}"
            raise (_Passing if error.code in RETRIED else NoVerdict)(problem) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise _Passing(f"{self.url} cannot be reached: {reason}") from None
        if len(data) > MOST_BYTES:
            raise NoVerdict(f"{self.url} answered with more than {MOST_BYTES} bytes")
        try:
            reply = json.loads(data)
            text = reply["choices"][0]["message"]["content"]
            self.served = str(reply.get("model") or self.model)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise NoVerdict(f"{self.url} answered with something else than a chat completion") from None
        if not isinstance(text, str):
            raise NoVerdict(f"{self.url} answered without text")
        return text.strip()

    def identity(self) -> dict[str, Any]:
        return {"kind": "http", "url": self.url, "model": self.model, "served": self.served, **self.settings}


class _Passing(Exception):
    """A failure that may be over when asked again."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)
