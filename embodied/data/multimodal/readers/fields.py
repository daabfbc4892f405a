"""Fields of a record by name and kind, and prompts that fields are filled into: a wrong one is named in one line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from embodied.building import nearest
from embodied.data.multimodal.sample import BrokenSample

PLACE = re.compile(r"\{(\w+)\}")


class Fields:
    """A record of a dataset.

    Args:
        record: a mapping.
        number: its place in the file, from 0.

    Raises:
        BrokenSample: it is no mapping.
    """

    def __init__(self, record: Any, number: int = 0) -> None:
        if not isinstance(record, Mapping):
            raise BrokenSample("wrong field", f"a record is a mapping, got {record!r:.60}")
        self.record, self.number = record, number

    def __contains__(self, key: str) -> bool:
        """Whether a field is there and not null."""
        return self.record.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """A text; `default`, if there is one, where it is missing or null."""
        return self._of(key, str, "a text", default)

    def number_of(self, key: str, default: float | None = None) -> float:
        """A number."""
        return self._of(key, (int, float), "a number", default)

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        return self._of(key, int, "a whole number", default)

    def label(self, key: str, default: str | None = None) -> str:
        """What something is called: a text that is not empty, or a whole number, as text."""
        found = self._of(key, (str, int), "a text or a whole number", default)
        if found == "":
            raise BrokenSample("wrong field", f"'{key}' is empty")
        return str(found)

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        """A list of texts."""
        found = self._of(key, list, "a list of texts", default)
        if not all(isinstance(item, str) for item in found):
            raise BrokenSample("wrong field", f"'{key}' is a list of texts, got {found!r:.60}")
        return found

    def records(self, key: str) -> list[Fields]:
        """A list of mappings."""
        return [Fields(item, number) for number, item in enumerate(self._of(key, list, "a list of mappings", None))]

    def get(self, key: str) -> Any:
        """A field as it is; None where it is missing."""
        return self.record.get(key)

    def _of(self, key: str, kind: Any, meaning: str, default: Any) -> Any:
        found = self.record.get(key)
        if found is None:
            if default is not None:
                return default
            if key in self.record:
                raise BrokenSample("wrong field", f"'{key}' is null; it should be {meaning}")
            raise BrokenSample("wrong field", f"it has no '{key}'{nearest(key, self.record)}")
        if not isinstance(found, kind) or isinstance(found, bool):
            raise BrokenSample("wrong field", f"'{key}' is {meaning}, got {found!r:.60}")
        return found


class Prompt:
    """A text with places such as `{question}` to fill in.

    Args:
        template: the text.
        known: the places it may have.
        name: of the setting it comes from, for messages.

    Raises:
        ValueError: it has another place.
    """

    def __init__(self, template: str, known: Collection[str], name: str = "prompt") -> None:
        for place in PLACE.findall(template):
            if place not in known:
                raise ValueError(f"{name} has a place {{{place}}} that nothing fills{nearest(place, known)}")
        self.template = template

    def fill(self, **values: str) -> str:
        """The text; a line of nothing but places that are empty is left out."""
        lines = []
        for line in self.template.split("\n"):
            places = PLACE.findall(line)
            if not places or PLACE.sub("", line).strip() or any(values.get(place) for place in places):
                lines.append(PLACE.sub(lambda found: values.get(found[1], ""), line))
        return "\n".join(lines)
