"""Make a house from a seed and write it: as a picture, as glTF, as MJCF, or as its own JSON.

    embodied-house out=house.png seed=3
    embodied-house out=house.glb seed=3 habitat=true
    embodied-house out=house.xml house=house.json

The ending of `out` says what is written. Houses of a seed are the same everywhere; `house=` reads one that was written
as .json, and perhaps changed by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from embodied.cli.app import command


class Exporter(Protocol):
    """What the config's `exporter` names: it knows houses, this command knows files."""

    def write(self, out: Path, seed: int, house: str | None, habitat: bool, size: int) -> dict[str, Any]: ...


def work(config: DictConfig) -> dict[str, Any]:
    """Write the file; `rooms`, `objects`, `parts`, and the `files` written."""
    from embodied.building import build

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    seed, habitat, size = plain["seed"], plain["habitat"], plain["size"]
    if (
        not isinstance(seed, int)
        or isinstance(seed, bool)
        or not isinstance(size, int)
        or not isinstance(habitat, bool)
    ):
        raise ValueError(f"seed and size are whole numbers and habitat is true or false, got {seed}, {size}, {habitat}")
    exporter: Exporter = build(plain["exporter"])
    made = exporter.write(Path(str(plain["out"])), seed, plain["house"], habitat, size)
    print(f"{', '.join(made['files'])}: {made['rooms']} rooms, {made['objects']} objects, {made['parts']} parts")
    return made


main = command("house", work)

if __name__ == "__main__":
    main()
