"""The page of the zoo: a table of what each row is made of and what it did, and how a row is used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embodied.cli.zoo import Entry

COMMAND = "embodied-zoo out=docs/zoo.md"
PARTS = ("encoder", "connector", "adapter", "backbone", "resolution", "recipe")
DID = ("built", "trained", "generated")
NUMBERS = ("parameters here", "published", "difference")
COLUMNS = ("row", "model", *PARTS, *DID, *NUMBERS, "parity", "reference class")
SIZES = (("num_hidden_layers", "hidden_size"), ("num_layers", "d_model"), ("n_layers", "d_model"), ("depth", "width"))

TOP = f"""# The zoo

Models of the literature as compositions: a row is a file, `conf/model/zoo/<row>.yaml`, that names the parts, their
released sizes, the chat template and the training recipe. This page is written by `{COMMAND}`, which builds each row at
its tiny size, trains every stage of its recipe (two steps, because gates that begin closed let nothing through in the
first), checks that what is frozen stayed and each part that trains changed, saves it, loads it, and has both answer the
same; and which counts parameters at the released size without allocating them. A row that falls short anywhere writes
no page; the parameters may be {{within}} from the published number.

To use a row, tiny to try it and then at its size:

```
embodied-tune model=zoo/llava-1.5 tiny=true recipe=llava-1.5 out=runs/try \\
    'data.sources={{captions: {{kind: pairs, format: chat, file: captions.jsonl}}, \\
                   questions: {{kind: instructions, format: chat, file: questions.jsonl}}}}'
embodied-tune model=zoo/llava-1.5 init=<Hugging Face folder> ...   # released weights of a family composed here
```

A copy of a row's file under another name is another row: its parts are nodes with a `_target_`, as in `conf/encoder`,
`conf/connector`, `conf/adapter`, `conf/resolution` and `conf/backbone`, and can be swapped there.

| parity | what is compared with the reference class, in the tests |
|---|---|
| model | the whole, from picture and text to logits |
| parts | each part that has a class of its own in transformers |
| limits | what is new has no reference: with its gate at 0, with equal experts and the like it is the plain model |
"""


def page(entries: Sequence[Entry], cells: Mapping[str, Mapping[str, Any]]) -> str:
    """The page in Markdown.

    Args:
        entries: the rows, in order.
        cells: by the row's key, what it did (`embodied.cli.zoo.run`).
    """
    from embodied.cli.zoo import WITHIN, difference

    lines = [TOP.replace("{within}", f"{WITHIN:.0%}"), f"{len(entries)} rows.", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for entry in entries:
        did, row = cells[entry.key], entry.row
        apart = difference(row, did["count"])
        trained = "; ".join(f"{stage}: {', '.join(parts)}" for stage, parts in did["trained"].items())
        numbers = (
            _billions(did["count"]),
            "not published" if row.parameters is None else _billions(row.parameters),
            "" if apart is None else f"{apart:+.2%}",
        )
        cells_of_row = [*facts(entry).values(), "yes", trained, "yes", *numbers, row.parity, row.reference or "none"]
        lines.append(f"| {' | '.join(cells_of_row)} |")
    lines += ["", "## What each row is, and what it lacks", ""]
    lines += [
        f"- {entry.about}" + (f" Parameters: {entry.row.source}." if entry.row.source else "") for entry in entries
    ]
    return "\n".join(lines) + "\n"


def facts(entry: Entry) -> dict[str, str]:
    """The cells of a row that its file alone says: the name and `PARTS`."""
    model = entry.row.model
    adapters = model.get("adapters") or {}
    return {
        "row": f"`{entry.key}`",
        "model": entry.row.name,
        "encoder": part(model["encoder"]),
        "connector": part(model["connector"]),
        "adapter": " + ".join(part(adapter) for adapter in adapters.values()) or "none",
        "backbone": part(model["backbone"]),
        "resolution": part(model["resolution"]),
        "recipe": f"`{entry.row.recipe}`" if entry.row.recipe else "none: all parts once",
    }


def part(node: Mapping[str, Any]) -> str:
    """A part in a few words: its class, what it is of transformers', layers x width, and the parts within it."""
    config = node.get("config") or {}
    words = [config["model_type"]] if "model_type" in config else []
    for layers, width in SIZES:
        for where in (config, node):
            if layers in where and width in where:
                words.append(f"{where[layers]} x {where[width]}")
                break
        if len(words) > ("model_type" in config):
            break
    size = node.get("image_size") or config.get("image_size") or node.get("side")
    words += [f"{size} px"] if size else []
    inner = [*node.get("members", []), *(value for value in node.values() if _is_part(value))]
    name = node["_target_"].rpartition(".")[2]
    within = ", ".join([*words, *(part(each) for each in inner)])
    return f"{name} ({within})" if within else name


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """The table of a page, by the model's name: column to cell.

    Raises:
        ValueError: the text has no such table.
    """
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    tables = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]
    rows = [cells for cells in tables if len(cells) == len(COLUMNS)]
    if not rows or tuple(rows[0]) != COLUMNS:
        raise ValueError("this is no page of the zoo: it has no table of its rows")
    return {cells[1]: dict(zip(COLUMNS, cells, strict=True)) for cells in rows[1:]}


def _is_part(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def _billions(count: float) -> str:
    return f"{count / 1e9:.3f} B"
