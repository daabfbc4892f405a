"""How sure a success rate is, and whether two of them differ.

Rates are fractions in [0, 1] here; results on disk are in percent, as LeRobot writes them.

- One rate: Wilson's score interval (Wilson 1927), which stays inside [0, 1] and has a width at 0 of n and n of n.
- A mean over tasks: each task weighs the same, and its interval combines the tasks' Wilson intervals (MOVER; Zou and
  Donner 2008, Statistics in Medicine 27).
- Two policies on the same episodes: McNemar's exact test on the pairs that differ, and a bootstrap over pairs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

MIN_DISCORDANT = 6
"""With fewer pairs that differ than this, McNemar's exact two-sided p cannot get below 0.05 (2 * 0.5**5 = 0.0625)."""


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a success rate.

    Raises:
        ValueError: no episodes, or more successes than episodes.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a success rate needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, spread = successes / n, z * z / n
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * float(np.sqrt(rate * (1 - rate) / n + spread / (4 * n)))
    # exactly 0 and 1 at the ends, where rounding would leave 1e-17
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def mean_over_tasks(outcomes: Mapping[Hashable, Sequence[bool]], confidence: float = 0.95) -> tuple[float, Interval]:
    """Mean of the tasks' success rates, each task weighing the same, and its interval.

    With one task it is that task's rate and Wilson interval.

    Args:
        outcomes: per task, whether each of its episodes succeeded.

    Raises:
        ValueError: no tasks, or a task without episodes.
    """
    if not outcomes:
        raise ValueError("a mean over tasks needs at least one task")
    rates, below, above = [], [], []
    for results in outcomes.values():
        won, n = sum(bool(r) for r in results), len(results)
        low, high = wilson(won, n, confidence)
        rates.append(won / n)
        below.append((won / n - low) ** 2)
        above.append((high - won / n) ** 2)
    k, mean = len(rates), float(np.mean(rates))
    return mean, Interval(mean - float(np.sqrt(sum(below))) / k, mean + float(np.sqrt(sum(above))) / k)


@dataclass(frozen=True)
class McNemar:
    """Paired outcomes of policies A and B, and how likely such a one-sided split of the differing pairs is by chance.

    Attributes:
        both, only_a, only_b, neither: how many episodes were solved by whom.
        p: two-sided exact p-value; 1 where no pair differs.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    p: float

    @property
    def n(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def discordant(self) -> int:
        """How many pairs differ: only these say anything about which policy is better."""
        return self.only_a + self.only_b

    @property
    def difference(self) -> float:
        """B's success rate less A's."""
        return (self.only_b - self.only_a) / self.n


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """McNemar's exact test: among the pairs that differ, is each policy ahead in half?

    Args:
        a, b: success of each policy on the same episodes, in the same order.

    Raises:
        ValueError: lengths differ, or there are no pairs.
    """
    x, y = _paired(a, b)
    only_a, only_b = int((x & ~y).sum()), int((~x & y).sum())
    return McNemar(int((x & y).sum()), only_a, only_b, int((~x & ~y).sum()), _fair_coin(only_a, only_b))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p-values, adjusted for having looked at all of them (Holm 1979); order is kept."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def paired_bootstrap(
    a: Sequence[bool] | Sequence[float],
    b: Sequence[bool] | Sequence[float],
    tasks: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of mean(b) - mean(a) over episodes resampled in pairs.

    Where all pairs differ by the same amount (usually: no pair differs) a bootstrap can only say "exactly that". For
    successes the interval is then widened by Wilson's upper bound on the share of other pairs that n could have hidden.

    Args:
        a, b: results of the same episodes, in the same order: successes, or returns.
        tasks: the task of each pair; pairs are then resampled within their task, and each task weighs the same.
        seed: of the resampling.

    Raises:
        ValueError: lengths differ, there are no pairs, or nothing is to be resampled.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired results need the same number of episodes, at least one: got {len(a)} and {len(b)}")
    if resamples < 1:
        raise ValueError(f"a bootstrap needs resamples, 1 or more: got resamples={resamples}")
    difference = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    labels = [0] * len(difference) if tasks is None else list(tasks)
    groups: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    draw = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for rows in groups.values():
        values = difference[rows]
        for start in range(0, resamples, 1000):  # in blocks, so that 10^4 x 10^4 draws are never held at once
            picks = draw.integers(len(values), size=(min(1000, resamples - start), len(values)))
            means[start : start + len(picks)] += values[picks].mean(axis=1) / len(groups)
    tail = (1 - confidence) / 2
    low, high = (float(q) for q in np.quantile(means, [tail, 1 - tail]))
    if np.ptp(difference) == 0 and _binary(a) and _binary(b):
        hidden = wilson(0, len(difference), confidence).high
        low, high = max(-1.0, low - hidden), min(1.0, high + hidden)
    return Interval(low, high)


def pairs_needed(test: McNemar, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """How many pairs would show a difference of the size seen, were it real (Connor 1987, Biometrics 43).

    None where the policies are level, for then no number would.
    """
    if test.only_a == test.only_b:
        return None
    normal = NormalDist()
    share, gap = test.discordant / test.n, abs(test.difference)
    reach = normal.inv_cdf(1 - alpha / 2) * share**0.5 + normal.inv_cdf(power) * max(share - gap * gap, 0.0) ** 0.5
    return max(int(np.ceil((reach / gap) ** 2)), MIN_DISCORDANT)


def _fair_coin(heads: int, tails: int) -> float:
    """Two-sided probability of a split at least this uneven, in whole numbers until the last division."""
    n, term, total = heads + tails, 1, 0
    for k in range(min(heads, tails) + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return min(1.0, float(Fraction(2 * total, 2**n)))


def _paired(a: Sequence[bool], b: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    if len(a) != len(b) or not len(a):
        raise ValueError(f"paired results need the same number of episodes, at least one: got {len(a)} and {len(b)}")
    return np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)


def _binary(values: Sequence[bool] | Sequence[float]) -> bool:
    return set(np.unique(np.asarray(values, dtype=float))) <= {0.0, 1.0}
