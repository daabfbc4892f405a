"""One progress line: how far, how fast, how long still."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Rate and ETA on one line: rewritten in place on a terminal, a new line every ten seconds elsewhere.

    Args:
        total: how many units make the whole.
        what: the unit, in the plural (`episodes`, `steps`).
        done: how many were there before this run; they do not count towards the rate.
        stream: where to; None prints nothing.
    """

    def __init__(self, total: int, what: str, done: int = 0, stream: TextIO | None = sys.stderr) -> None:
        self.total, self.what, self.done, self._first = total, what, done, done
        self._stream, self._start, self._shown = stream, time.monotonic(), 0.0
        self._every = 0.2 if stream is not None and stream.isatty() else 10.0

    def advance(self, n: int = 1, note: str = "") -> None:
        """`n` more units are done; `note` is appended to the line."""
        self.done += n
        now = time.monotonic()
        if self._stream is not None and (now - self._shown >= self._every or self.done >= self.total):
            self._shown = now
            end = "\n" if not self._stream.isatty() or self.done >= self.total else ""
            self._stream.write(("\r\x1b[K" if self._stream.isatty() else "") + self.line(note) + end)
            self._stream.flush()

    def line(self, note: str = "") -> str:
        """The line as it stands."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._first) / elapsed
        eta = clock((self.total - self.done) / rate) if rate > 0 else "?"
        shown = f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
        return f"{self.done}/{self.total} {self.what}  {shown}/s  elapsed {clock(elapsed)}  ETA {eta}" + (
            f"  {note}" if note else ""
        )


def clock(seconds: float) -> str:
    """`75` as `1:15`, `3675` as `1:01:15`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
