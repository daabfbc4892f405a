"""What the scorers of agents share: an episode at a time, figures as means over episodes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from embodied.evaluation.scorers.base import Metric, Record, Scorer, Scores, Unit, wrong
from embodied.evaluation.scorers.navigation.graphs import Graphs, House


class EpisodeScorer(Scorer):
    """Figures that are means over episodes of what one episode is worth.

    Attributes:
        figures: by name, whether it is a rate or a number; the first is the headline.
        score_of: the figure that a sample is sorted by in the report.
        parts: keys of references whose values split the episodes into parts.
        notes: what a reader has to know.
    """

    figures: ClassVar[Mapping[str, Unit]] = {}
    score_of: ClassVar[str] = "spl"
    parts: Sequence[str] = ()
    notes: Sequence[str] = ()

    @abstractmethod
    def episode(self, record: Record) -> dict[str, float]:
        """What one episode is worth: a value for each of `figures`, or for the same part of them in every episode.

        Raises:
            ValueError: the episode cannot be scored; the message names it.
        """

    def check(self, records: Sequence[Record]) -> None:
        super().check(records)
        for record in records:
            self.episode(record)

    def score(self, records: Sequence[Record]) -> Scores:
        """The figures, each with its interval, of all episodes and of the parts that `parts` names."""
        Scorer.check(self, records)
        found = [self.episode(record) for record in records]
        names = [name for name in self.figures if all(name in one for one in found)]
        lacking = [name for name in self.figures if name not in names and any(name in one for one in found)]
        notes = list(self.notes)
        if lacking:
            notes.append(f"{', '.join(lacking)} left out: not every episode says what is needed for them")

        def of(places: Sequence[int]) -> dict[str, Metric]:
            return {name: self.mean([found[place][name] for place in places], self.figures[name]) for name in names}

        samples = [
            {
                "id": record.id,
                "prediction": summary(record.prediction),
                **{name: one[name] for name in names if name != self.score_of},
                "score": one.get(self.score_of),
            }
            for record, one in zip(records, found, strict=True)
        ]
        return Scores(of(range(len(records))), samples, self.by(records, self.parts, of), notes)


class GraphScorer(EpisodeScorer):
    """Episodes that are paths through graphs of viewpoints.

    Args:
        connectivity: the folder of `<scan>_connectivity.json` files.
        edges: whether a path may only go along edges of the graph. Room-to-Room's and CVDN's scorers stop at a jump
            between viewpoints that are not joined; REVERIE's and SOON's count the shortest way between them.
    """

    def __init__(self, connectivity: str, edges: bool) -> None:
        self.graphs, self.edges = Graphs(connectivity), edges

    def house(self, record: Record) -> House:
        """The house an episode is in."""
        scan = record.reference.get("scan")
        try:
            return self.graphs.house(str(scan))
        except ValueError as error:
            raise wrong(record, f"is in scan {scan}: {error}") from None

    def rows(self, record: Record, house: House, names: Any) -> np.ndarray:
        """Rows of the viewpoints that a reference names."""
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise wrong(record, "has a path in its reference that is no list of viewpoints")
        try:
            return house.rows(names)
        except ValueError as error:
            raise wrong(record, f"has a reference that does not fit: {error}") from None

    def walk(self, record: Record, house: House, start: int) -> np.ndarray:
        """Rows of the viewpoints that the agent was at.

        Raises:
            ValueError: one is not in the house, the first is not the start, or the path jumps and may not.
        """
        path = record.prediction["path"]
        try:
            rows = house.rows(path)
        except ValueError as error:
            raise wrong(record, f"has a trajectory that does not fit: {error}") from None
        if rows[0] != start:
            raise wrong(record, f"starts at {house.names[start]}, but its trajectory starts at {path[0]}")
        jump = house.jump(rows) if self.edges else None
        if jump:
            raise wrong(record, f"has a trajectory that jumps from {jump[0]} to {jump[1]}, which no edge joins")
        if not np.isfinite(house.distances[start, rows]).all():
            raise wrong(record, "has a trajectory with viewpoints that no way joins")
        return rows


def summary(prediction: Mapping[str, Any]) -> str:
    """What an agent did, in a few words, for the table of samples."""
    if "path" in prediction:
        path = prediction["path"]
        return f"{len(path)} viewpoints, ends at {path[-1]}"
    positions = prediction["positions"]
    end = ", ".join(f"{value:.2f}" for value in positions[-1])
    stop = {True: ", stopped", False: ", did not stop"}.get(prediction.get("stop"), "")  # type: ignore[arg-type]
    return f"{len(positions) - 1} actions, ends at ({end}){stop}"
