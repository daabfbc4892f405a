"""What trains and what stays: freezing by pattern, and a table that shows it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

from torch import nn


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Stop the parameters whose name contains a match of a pattern (a regular expression) from training.

    Raises:
        ValueError: a pattern that is no regular expression or that matches nothing, with near names; nothing is left.
    """
    parameters = dict(module.named_parameters())
    for pattern in patterns:
        for name in matching("freeze", pattern, parameters):
            parameters[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(f"freeze: {list(patterns)} freezes every parameter, so there is nothing to train")


def matching(where: str, pattern: str, names: Iterable[str]) -> list[str]:
    """The names that contain a match of `pattern`.

    Raises:
        ValueError: no name does, or the pattern is malformed; `where` says whose pattern it is.
    """
    names = list(names)
    try:
        found = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise ValueError(f"{where}: '{pattern}' is not a regular expression: {error}") from None
    if not found:
        raise ValueError(f"{where}: '{pattern}' matches nothing; {_near(pattern, names)}")
    return found


def table(module: nn.Module) -> str:
    """Trainable and total parameters per part, as aligned lines; the largest part is shown by its children."""
    cells = [("part", "trainable", "total")] + [(n, _shown(t), _shown(total)) for n, t, total in _rows(module) if total]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return "\n".join(f"  {n:<{widths[0]}}  {t:>{widths[1]}}  {total:>{widths[2]}}" for n, t, total in cells)


def count(module: nn.Module, trainable: bool = False) -> int:
    """How many numbers a module's parameters hold, or those of them that train."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def _rows(module: nn.Module) -> Iterator[tuple[str, int, int]]:
    """Part, trainable, total; what several parts share counts for the first."""

    def fresh(part: nn.Module, seen: set[int]) -> tuple[int, int]:
        parameters = [p for p in part.parameters() if id(p) not in seen]
        seen.update(id(p) for p in parameters)
        return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)

    met: set[int] = set()
    sizes = {name: fresh(child, met)[1] for name, child in module.named_children()}
    met.clear()
    for name, child in module.named_children():
        opened = sizes[name] == max(sizes.values()) or type(child) in (nn.Module, nn.ModuleDict)  # mere containers
        inner = list(child.named_children()) if opened else []
        yield from ((f"{name}.{n}", *fresh(part, met)) for n, part in inner)
        yield f"{name} (rest)" if inner else name, *fresh(child, met)
    yield "all", count(module, trainable=True), count(module)


def _shown(n: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.2f}{unit}"
    return str(n)


def _near(pattern: str, names: Sequence[str]) -> str:
    """Names close to a pattern, parts of the tree (`model.backbone`) included, as the end of a sentence."""
    prefixes = {".".join(words[: i + 1]) for name in names if (words := name.split(".")) for i in range(len(words))}
    plain = re.sub(r"[\\^$*+?()\[\]{}|]", "", pattern)
    close = difflib.get_close_matches(plain, prefixes, n=3, cutoff=0.6)
    last = {prefix.rpartition(".")[2]: prefix for prefix in sorted(prefixes, key=len, reverse=True)}
    close += [last[word] for word in difflib.get_close_matches(plain.rpartition(".")[2], last, n=2, cutoff=0.6)]
    if close:
        return f"near names: {', '.join(dict.fromkeys(close))}"
    return f"the parts are {', '.join(sorted({'.'.join(name.split('.')[:2]) for name in names}))}"
