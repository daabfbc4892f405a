"""Build, train, save and speak to every row of the zoo, tiny, and write the page that says what each did.

    embodied-zoo out=docs/zoo.md
    embodied-zoo rows=[llava-1.5,qwen2-vl]

Parameters are counted at the released size, which takes no memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from embodied.building import nearest
from embodied.cli.app import command
from embodied.cli.configs import CONFIGS

if TYPE_CHECKING:
    from embodied.lvlm.zoo import Row

WITHIN = 0.03
"""How far the number of parameters may be from the published one."""


@dataclass(frozen=True)
class Entry:
    """A row of the zoo with what lies around it in files.

    Attributes:
        key: its file's name, as in `model=zoo/<key>`.
        row: the row.
        about: the comment at the top of its file.
        chat: the node of its chat template.
        stages: of its recipe, by name; None where that is not known.
    """

    key: str
    row: Row
    about: str
    chat: dict[str, Any]
    stages: dict[str, Any] | None


def zoo(config: DictConfig) -> dict[str, Any]:
    """Run the rows; how many there were, and the largest difference in parameters.

    Raises:
        ValueError: there is no such row; the page has rows that this run leaves out; a row fell short.
    """
    from embodied.cli.zoo_page import page, rows_of
    from embodied.files import write_text

    keys = list(config.rows) if config.rows is not None else names()
    entries = {key: entry(str(key)) for key in keys}
    if not entries:
        raise ValueError("rows is empty: name rows of the zoo, or leave it out for all")
    if config.out and Path(config.out).exists():
        left_out = set(rows_of(Path(config.out).read_text(encoding="utf-8"))) - {e.row.name for e in entries.values()}
        if left_out:
            raise ValueError(f"{config.out} has {len(left_out)} rows that this run leaves out: choose another out=")
    cells, faults = {}, []
    for number, (key, each) in enumerate(entries.items(), 1):
        cells[key], problem = run(each)
        faults += [f"{key}: {problem}"] if problem else []
        print(f"{number}/{len(entries)} {key}: {problem or 'built, trained, saved and spoken to'}", flush=True)
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(entries)} rows fall short, and no page is written: {'; '.join(faults)}"
        )
    text = page(list(entries.values()), cells)
    if config.out:
        write_text(config.out, text)
        print(config.out)
    apart = [difference(each.row, cells[key]["count"]) for key, each in entries.items()]
    differences = [abs(each) for each in apart if each is not None]
    return {"rows": len(entries), "largest_difference": max(differences, default=0.0)}


def run(each: Entry) -> tuple[dict[str, Any], str | None]:
    """What a row did: `count`, parameters at the released size, `trained`, the parts by stage; and what went wrong."""
    from embodied.training.exercise import exercise

    try:
        with tempfile.TemporaryDirectory() as folder:
            done = exercise(each.row, each.chat, each.stages, Path(folder))
        count = each.row.count()
    except Exception as error:  # a row that falls short is named, and the others run
        return {}, " ".join(f"{type(error).__name__}: {error}".split())
    apart = difference(each.row, count)
    problem = f"it has {apart:+.1%} parameters of the published" if apart and abs(apart) > WITHIN else None
    return {"count": count, "trained": done.trained}, problem


def difference(row: Row, count: int) -> float | None:
    """The relative difference of a number of parameters from the published one; None where there is none."""
    return None if row.parameters is None else count / row.parameters - 1


def names() -> list[str]:
    """The rows of the zoo, as `model=zoo/<name>` takes them."""
    return sorted(file.stem for file in (_conf() / "model" / "zoo").glob("*.yaml"))


def entry(key: str) -> Entry:
    """A row with its template and recipe.

    Raises:
        ValueError: there is no such row, or what it names.
    """
    from embodied.lvlm.zoo import Row

    if key not in names():
        raise ValueError(f"the zoo has no row '{key}'{nearest(key, names())}")
    file = _conf() / "model" / "zoo" / f"{key}.yaml"
    row = Row.from_dict(_read(file)["row"])
    top = [line[1:].strip() for line in file.read_text(encoding="utf-8").split("row:")[0].splitlines()]
    about = " ".join(line for line in top if line and not line.startswith("@package"))
    stages = _read(_conf() / "recipe" / f"{row.recipe}.yaml")["recipe"]["stages"] if row.recipe else None
    return Entry(key, row, about, dict(_read(_conf() / "chat" / f"{row.chat}.yaml")), stages)


def _conf() -> Path:
    return Path(str(files(CONFIGS)))


def _read(file: Path) -> Mapping[str, Any]:
    import yaml

    node: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return node


main = command("zoo", zoo)

if __name__ == "__main__":
    main()
