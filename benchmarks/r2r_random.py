"""A random walker on Room-to-Room, as published, scored by this project's rules.

    python -m benchmarks.r2r_random --graphs connectivity/ --data R2R_val_unseen.json --seeds 20

The walker of Anderson et al. 2018 (Matterport3DSimulator's RandomAgent): it turns right by 30 degrees 0 to 11 times,
then goes forward up to five times, and turns right wherever nothing is ahead, all in 30 actions. Forward goes to the
viewpoint nearest to the centre of the picture (heading and elevation) among those within 40 degrees of it to the left
and right, which is what the simulator takes a picture of 640 x 480 with 60 degrees from top to bottom to show.
Published on val-unseen: navigation error 9.23 m, success 16.3 %.

Printed per figure: the mean over seeds, the spread that 95 % of single runs fall into (mean +- 1.96 standard deviations
of runs, which share the episodes), and whether the published run lies in it.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.navigation.graphs import Graphs, House
from embodied.evaluation.scorers.navigation.r2r import RoomToRoom
from embodied.evaluation.scorers.navigation.reading import Instructions
from embodied.evaluation.scorers.reading import Skipped
from embodied.files import write_json

PUBLISHED = {"navigation_error": 9.23, "success": 0.163}
"""Random on val-unseen, Anderson et al. 2018."""

TURNS, ACTIONS, FORWARD, VIEW = 12, 30, 5, math.radians(40)


def ahead(house: House) -> np.ndarray:
    """(n, 12) the viewpoint that going forward leads to from each viewpoint and heading; -1 where none is ahead."""
    found = np.full((len(house.names), TURNS), -1)
    for here, joined in enumerate(house.joined):
        others = np.flatnonzero(joined & (np.arange(len(joined)) != here))
        if not len(others):
            continue
        to = house.positions[others] - house.positions[here]
        heading = np.arctan2(to[:, 0], to[:, 1])  # 0 looks along y, and it grows to the right
        elevation = np.arctan2(to[:, 2], np.hypot(to[:, 0], to[:, 1]))
        for turn in range(TURNS):
            off = np.angle(np.exp(1j * (heading - 2 * math.pi * turn / TURNS)))
            away = np.where(np.abs(off) <= VIEW, np.hypot(off, elevation), np.inf)
            if np.isfinite(away).any():
                found[here, turn] = others[away.argmin()]
    return found


def walk(start: int, heading: float, forward: np.ndarray, draw: np.random.Generator) -> list[int]:
    """The viewpoints that one episode leads through, one per action."""
    turn = round(heading % (2 * math.pi) / (2 * math.pi / TURNS)) % TURNS
    steps, here, path = int(draw.integers(-(TURNS - 1), 1)), start, [start]
    for _ in range(ACTIONS):
        if steps >= FORWARD:
            break
        if steps < 0 or forward[here, turn] < 0:
            turn, steps = (turn + 1) % TURNS, steps + (steps < 0)
        else:
            here, steps = int(forward[here, turn]), steps + 1
        path.append(here)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=Path, required=True, help="folder of <scan>_connectivity.json")
    parser.add_argument("--data", type=Path, required=True, help="R2R_val_unseen.json")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures of every seed")
    asked = parser.parse_args()
    if asked.seeds < 2:
        sys.exit("a spread needs two seeds or more")
    try:
        graphs, scorer = Graphs(asked.graphs), RoomToRoom(str(asked.graphs))
        references = Instructions(per_path=3).read(asked.data, Skipped())
        views = {scan: ahead(graphs.house(scan)) for scan in {str(one["scan"]) for _, one in references.values()}}
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    runs = []
    for seed in range(asked.seeds):
        draw, records = np.random.default_rng(seed), []
        for name, (where, one) in references.items():
            house = graphs.house(one["scan"])
            path = walk(house.places[one["path"][0]], float(one["heading"]), views[house.scan], draw)
            records.append(Record(name, {"path": [house.names[place] for place in path]}, one, where))
        found = [scorer.episode(record) for record in records]
        runs.append({key: float(np.mean([one[key] for one in found])) for key in scorer.figures})
        print(f"seed {seed}: success {100 * runs[-1]['success']:.1f} %, NE {runs[-1]['navigation_error']:.2f} m")
    print(f"\n{len(records)} instructions, {asked.seeds} seeds: mean, 95 % of runs, published")
    for key in scorer.figures:
        values = np.array([run[key] for run in runs])
        wide, unit = 1.96 * values.std(ddof=1), 100 if scorer.figures[key] == "rate" else 1
        low, high = values.mean() - wide, values.mean() + wide
        told = PUBLISHED.get(key)
        beside = "-" if told is None else f"{unit * told:.2f} ({'inside' if low <= told <= high else 'outside'})"
        print(f"{key:17} {unit * values.mean():7.2f}  {unit * low:7.2f} to {unit * high:7.2f}  {beside}")
    if asked.out:
        write_json(
            asked.out, {"seeds": asked.seeds, "instructions": len(records), "published": PUBLISHED, "runs": runs}
        )


if __name__ == "__main__":
    main()
