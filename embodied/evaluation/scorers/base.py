"""What every scorer takes and gives: records of answers in, figures with their intervals and every sample out.

A rate is a fraction in [0, 1] and comes with Wilson's 95 % interval, which takes samples as independent. Anything else
(a mean, F1, CIDEr) comes with a percentile bootstrap over samples, from a seed that the result states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from embodied.evaluation.statistics import wilson

Unit = Literal["rate", "number"]
"""A rate is shown in percent, a number as it is."""


@dataclass(frozen=True)
class Record:
    """One answer beside what it is held against.

    Attributes:
        id: of the sample; unique in a result.
        prediction: what the model said, untouched; where it acted, what it did (a trajectory).
        reference: what the scorer needs, under the names that its docstring gives.
        where: file and place of the reference, for messages.
    """

    id: str
    prediction: Any
    reference: Mapping[str, Any]
    where: str = ""


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        value: the figure itself.
        low, high: ends of its 95 % interval; None where there is none.
        n: of how many samples (or images, or groups of samples: whatever the rule counts).
        unit: whether it is a fraction.
        interval: how the interval was made.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    unit: Unit = "rate"
    interval: str = "wilson"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        ends = None if self.low is None or self.high is None else [float(self.low), float(self.high)]
        return {
            "value": float(self.value),
            "ci95": ends,
            "n": int(self.n),
            "unit": self.unit,
            "interval": self.interval if ends else None,
        }


@dataclass
class Scores:
    """What a scorer found.

    Attributes:
        metrics: by name, the one a leaderboard ranks by first.
        samples: one dict per record, in order: `id`, `prediction`, and what the rule made of it.
        groups: by name of a part (a question type, a category), its metrics.
        notes: what a reader of the figures has to know.
        tools: versions and settings of what was used beside this package.
    """

    metrics: dict[str, Metric]
    samples: list[dict[str, Any]]
    groups: dict[str, dict[str, Metric]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tools: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> tuple[str, Metric]:
        """Name and figure that stand for the whole."""
        return next(iter(self.metrics.items()))


@dataclass(frozen=True)
class Resampling:
    """How bootstraps are drawn.

    Attributes:
        resamples: how many.
        seed: of the draws.
    """

    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or self.seed < 0:
            raise ValueError(
                f"a bootstrap needs resamples >= 1 and seed >= 0, got resamples={self.resamples} and seed={self.seed}"
            )

    def of(self, rows: np.ndarray, figure: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """95 % percentile interval of a figure that depends on the sum over samples alone.

        Args:
            rows: (n, k), what each sample adds.
            figure: from sums (r, k) to figures (r,).
        """
        rows = np.asarray(rows, dtype=float)
        kinds, counts = np.unique(rows, axis=0, return_counts=True)
        # drawing how often each distinct row comes is the same bootstrap, and cheap where few rows are distinct
        draw = np.random.default_rng(self.seed)
        block = max(1, 2_000_000 // len(kinds))
        drawn = []
        for start in range(0, self.resamples, block):
            size = min(block, self.resamples - start)
            times = draw.multinomial(len(rows), counts / len(rows), size=size)
            drawn.append(figure(times @ kinds))
        low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
        return float(low), float(high)

    @property
    def name(self) -> str:
        return f"bootstrap, {self.resamples} resamples, seed {self.seed}"


class Scorer(ABC):
    """The rule of one benchmark.

    Attributes:
        needs: names that every reference has; a tuple of names means any of them.
        resampling: how its bootstraps are drawn; whoever builds the scorer may set it.
    """

    needs: ClassVar[tuple[str | tuple[str, ...], ...]] = ()
    resampling: Resampling = Resampling()

    @abstractmethod
    def score(self, records: Sequence[Record]) -> Scores:
        """Score what was answered.

        Raises:
            ValueError: a reference is not what the rule needs; the message names the sample.
        """

    def check(self, records: Sequence[Record]) -> None:
        """Stop at the first reference that lacks what the rule needs.

        Raises:
            ValueError: there are no records, or one lacks something; it is named.
        """
        if not records:
            raise ValueError("there are no answers to score")
        for record in records:
            for need in self.needs:
                names = (need,) if isinstance(need, str) else need
                if not any(record.reference.get(name) not in (None, "", []) for name in names):
                    raise wrong(record, f"has no {' or '.join(names)}, which {type(self).__name__} needs")

    def rate(self, hits: Sequence[bool]) -> Metric:
        """A share of samples with Wilson's interval."""
        won = sum(bool(hit) for hit in hits)
        low, high = wilson(won, len(hits))
        return Metric(won / len(hits), low, high, len(hits))

    def mean(self, values: Sequence[float], unit: Unit = "rate") -> Metric:
        """A mean with its bootstrap interval; Wilson's where every value is 0 or 1."""
        if unit == "rate" and set(values) <= {0, 1}:
            return self.rate([bool(value) for value in values])
        rows = np.array([[value, 1.0] for value in values])
        low, high = self.resampling.of(rows, lambda sums: sums[:, 0] / sums[:, 1])
        return Metric(float(np.mean(values)), low, high, len(values), unit, self.resampling.name)

    def ratio(
        self,
        rows: Sequence[Sequence[float]] | np.ndarray,
        figure: Callable[[np.ndarray], np.ndarray],
        unit: Unit = "rate",
    ) -> Metric:
        """A figure of the sums over samples, with its bootstrap interval.

        Args:
            rows: (n, k), what each sample adds.
            figure: from sums (r, k) to figures (r,).
        """
        table = np.asarray(rows, dtype=float)
        value = float(figure(table.sum(axis=0, keepdims=True))[0])
        low, high = self.resampling.of(table, figure)
        return Metric(value, low, high, len(table), unit, self.resampling.name)

    def by(
        self, records: Sequence[Record], names: Sequence[str], figures: Callable[[list[int]], dict[str, Metric]]
    ) -> dict[str, dict[str, Metric]]:
        """The same figures for each part that references name: `{"type: yes/no": {...}}`.

        Args:
            names: keys of references to group by; a record without one is in no group of it.
            figures: from the places of a group's records to its metrics.
        """
        found: dict[str, dict[str, Metric]] = {}
        for name in names:
            groups: dict[str, list[int]] = {}
            for place, record in enumerate(records):
                value = record.reference.get(name)
                if isinstance(value, Hashable) and value not in (None, ""):
                    groups.setdefault(str(value), []).append(place)
            for group, places in sorted(groups.items()):
                found[f"{name}: {group}"] = figures(places)
        return found


def wrong(record: Record, what: str) -> ValueError:
    """An error that names the sample and the file it came from."""
    return ValueError(f"{record.where + ': ' if record.where else ''}sample {record.id} {what}")


def answers_of(record: Record) -> list[str]:
    """The reference's `answers` as texts; its one `answer` where there is no list.

    Raises:
        ValueError: there are none, or one is not text.
    """
    found = record.reference.get("answers")
    if found is None:
        found = record.reference.get("answer")
    answers = [found] if isinstance(found, str | int | float) else found
    if not isinstance(answers, list) or not answers:
        raise wrong(record, "has no answers")
    for answer in answers:
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise wrong(record, f"has the answer {answer!r}, which is no text")
    if not any(str(answer).strip() for answer in answers):
        raise wrong(record, "has only empty answers")
    return [str(answer) for answer in answers]


def divide(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Quotients, 0 where there is nothing to divide by."""
    return np.divide(over, under, out=np.zeros_like(over, dtype=float), where=under != 0)
