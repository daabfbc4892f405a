"""What one probe found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "missing", "broken", "note"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        section: the heading it stands under.
        name: what was looked at.
        state: `ok`; `missing`, it is not here; `broken`, it is here and does not work; `note`, a figure.
        text: what was found.
        mend: what to do about it; empty where there is nothing to do.
        core: nothing at all works without it.
    """

    section: str
    name: str
    state: State
    text: str
    mend: str = ""
    core: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)
