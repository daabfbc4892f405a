"""Answers that are yes or no: POPE, and MME.

How an answer is read differs between benchmarks, and matters: "The image shows no dog" is "no" to POPE and neither to
MME. Each is read by its own script's rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied.evaluation.scorers.base import Metric, Record, Scorer, Scores, divide, wrong

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def read_pope(answer: str) -> str:
    """POPE's rule: what precedes the first full stop, without commas, is "no" if a word of it is No, no or not.

    Everything else is "yes": "NO", "No!" and an empty answer too. "No." is "no".
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def read_mme(answer: str) -> str:
    """MME's rule: "yes" or "no" within the first four characters, in any case; "other" where neither is.

    "Yes" wins where both are. White space in front counts as characters; lmms-eval strips it first, the official script
    does not.
    """
    start = answer.lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def label_of(record: Record, name: str) -> str:
    """A reference's "yes" or "no".

    Raises:
        ValueError: it is neither.
    """
    label = str(record.reference[name]).strip().lower().removesuffix(".")
    if label not in ("yes", "no"):
        raise wrong(record, f"has the {name} {record.reference[name]!r}: yes or no is needed")
    return label


class POPE(Scorer):
    """Polling for objects (Li et al. 2023, github.com/RUCAIBox/POPE): does the model see what is not there?

    Accuracy, precision, recall and F1 of "yes", and the share of answers that are "yes". References have `label`, yes
    or no (or an `answer` that is); figures are also given per `category` (random, popular, adversarial). Answers are
    read by `read_pope`, the official rule, which takes for "yes" whatever does not deny: such answers that do not say
    "yes" either are counted in the notes.
    """

    needs = (("label", "answer"),)

    def score(self, records: Sequence[Record]) -> Scores:
        """`f1` first, then `accuracy`, `precision`, `recall`, `yes_ratio`."""
        self.check(records)
        rows, samples, unclear = [], [], 0
        for record in records:
            label = label_of(record, "label" if "label" in record.reference else "answer")
            read = read_pope(record.prediction)
            unclear += read == "yes" and "yes" not in record.prediction.lower()
            rows.append([read == "yes" == label, read == "yes" != label, read == "no" == label, read == "no" != label])
            samples.append(
                {"id": record.id, "prediction": record.prediction, "read": read, "label": label}
                | {"score": float(read == label)}
            )
        table = np.array(rows, dtype=float)
        notes = [f"{unclear} answers say neither yes nor no; POPE's rule counts them as yes"] if unclear else []
        return Scores(
            yes_figures(self, table),
            samples,
            self.by(records, ("category",), lambda places: yes_figures(self, table[places])),
            notes,
        )


class MME(Scorer):
    """MME's accuracy and accuracy+ (Fu et al. 2023): every picture is asked twice, once where the answer is yes.

    Accuracy is of questions, accuracy+ of pictures with both right, a category's score their sum (200 at most), and
    perception and cognition the sums over their categories (2000 and 800). References have `label` (or an `answer`),
    `category` and `image`; each (category, image) has two questions. Answers are read by `read_mme`.
    """

    needs = (("label", "answer"), "category", "image")

    def score(self, records: Sequence[Record]) -> Scores:
        """`score` (perception and cognition), `perception`, `cognition`, `accuracy`, `accuracy_plus`.

        Raises:
            ValueError: a picture has not two questions.
        """
        self.check(records)
        pairs: dict[tuple[str, str], list[int]] = {}
        hits, samples, other = [], [], 0
        for place, record in enumerate(records):
            label = label_of(record, "label" if "label" in record.reference else "answer")
            read = read_mme(record.prediction)
            other += read == "other"
            hits.append(read == label)
            samples.append(
                {"id": record.id, "prediction": record.prediction, "read": read, "label": label}
                | {"category": record.reference["category"], "image": record.reference["image"]}
                | {"score": float(hits[-1])}
            )
            pairs.setdefault((str(record.reference["category"]), str(record.reference["image"])), []).append(place)
        categories: dict[str, list[list[int]]] = {}
        for (category, image), places in pairs.items():
            if len(places) != 2:
                raise wrong(
                    records[places[0]],
                    f"is one of {len(places)} questions on {image} in {category}: MME asks every picture twice",
                )
            categories.setdefault(category, []).append(places)
        groups: dict[str, dict[str, Metric]] = {}
        for category, all_places in sorted(categories.items()):
            rows = _pair_rows(hits, all_places)
            groups[category] = {
                "score": self.ratio(rows, lambda sums: 100 * (sums[:, 0] / 2 + sums[:, 1]) / sums[:, 2], "number"),
                "accuracy": self.rate([hits[i] for places in all_places for i in places]),
                "accuracy_plus": self.rate([bool(row[1]) for row in rows]),
            }
        metrics: dict[str, Metric] = {}
        known = {"perception": PERCEPTION, "cognition": COGNITION}
        for name, members in known.items():
            found = [category for category in members if category in categories]
            if found:
                metrics[name] = self._total(hits, [categories[category] for category in found])
        rest = [category for category in categories if category not in (*PERCEPTION, *COGNITION)]
        notes = [f"{other} answers say neither yes nor no at their start and count as wrong"] if other else []
        for name, members in known.items():
            missing = [category for category in members if category not in categories]
            if missing:
                notes.append(f"{name} lacks {len(missing)} of its {len(members)} categories: {', '.join(missing)}")
        if rest:
            notes.append(f"not among MME's categories: {', '.join(sorted(rest))}")
        total = self._total(hits, list(categories.values()))
        every = [row for places in categories.values() for row in _pair_rows(hits, places)]
        plain = {
            "accuracy": self.rate(hits),
            "accuracy_plus": self.rate([bool(row[1]) for row in every]),
        }
        return Scores({"score": total, **metrics, **plain}, samples, groups, notes)

    def _total(self, hits: Sequence[bool], categories: Sequence[Sequence[Sequence[int]]]) -> Metric:
        """The sum of the categories' scores; pictures are drawn again within their category."""
        values, spread = [], np.zeros(self.resampling.resamples)
        for number, places in enumerate(categories):
            rows = np.array(_pair_rows(hits, places), dtype=float)
            values.append(100 * (rows[:, 0].sum() / 2 + rows[:, 1].sum()) / len(rows))
            draw = np.random.default_rng([self.resampling.seed, number])
            kinds, counts = np.unique(rows, axis=0, return_counts=True)
            sums = draw.multinomial(len(rows), counts / len(rows), size=self.resampling.resamples) @ kinds
            spread += 100 * (sums[:, 0] / 2 + sums[:, 1]) / len(rows)
        low, high = (float(end) for end in np.quantile(spread, [0.025, 0.975]))
        n = sum(len(places) for places in categories)
        return Metric(float(sum(values)), low, high, n, "number", self.resampling.name)


def yes_figures(scorer: Scorer, table: np.ndarray) -> dict[str, Metric]:
    """F1, accuracy, precision, recall and yes-ratio.

    Args:
        table: (n, 4), 0 or 1: true yes, false yes, true no, false no.
    """
    true_yes, false_yes, true_no, false_no = table.sum(axis=0).astype(int)

    def f1(sums: np.ndarray) -> np.ndarray:
        return divide(2 * sums[:, 0], 2 * sums[:, 0] + sums[:, 1] + sums[:, 3])

    figures: dict[str, Metric] = {"f1": scorer.ratio(table, f1)}
    figures["accuracy"] = _share(scorer, true_yes + true_no, len(table))
    figures["precision"] = _share(scorer, true_yes, true_yes + false_yes)
    figures["recall"] = _share(scorer, true_yes, true_yes + false_no)
    figures["yes_ratio"] = _share(scorer, true_yes + false_yes, len(table))
    return figures


def _share(scorer: Scorer, part: int, whole: int) -> Metric:
    """A rate; 0 without an interval where it is a share of nothing, at which the official script divides by zero."""
    if whole == 0:
        return Metric(0.0, None, None, 0)
    return scorer.rate([True] * int(part) + [False] * int(whole - part))


def _pair_rows(hits: Sequence[bool], places: Sequence[Sequence[int]]) -> list[list[Any]]:
    """Per picture: right answers, both right, 1."""
    return [[hits[a] + hits[b], hits[a] and hits[b], 1] for a, b in places]
