"""How well a model does that reads the questions and never looks at the pictures: what balancing is for.

It answers what was answered most often to the very same words in `train`, if these came often enough to count, and
otherwise to questions of the same key.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from envs.scenes.balance import Asked

OFTEN = 5


def language_only(train: Sequence[Asked], test: Sequence[Asked]) -> dict[str, dict[str, float | int]]:
    """Its accuracy on `test` by kind of question.

    Returns:
        kind -> `accuracy`, `chance` (of a guess among the possible answers; 0 where these are open), `n`.
    """
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    by_key: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for _, question in train:
        by_text[question.text][question.answer] += 1
        by_key[question.kind, question.key][question.answer] += 1
        by_key[question.kind, ""][question.answer] += 1
    hits: dict[str, list[bool]] = defaultdict(list)
    chances: dict[str, list[float]] = defaultdict(list)
    for _, question in test:
        counts = by_text[question.text]
        if counts.total() < OFTEN:
            counts = by_key[question.kind, question.key] or by_key[question.kind, ""]
        guess = min(counts, key=lambda answer: (-counts[answer], answer)) if counts else ""
        hits[question.kind].append(guess == question.answer)
        chances[question.kind].append(1 / len(question.possible) if question.possible else 0.0)
    return {
        kind: {
            "accuracy": round(sum(found) / len(found), 4),
            "chance": round(sum(chances[kind]) / len(found), 4),
            "n": len(found),
        }
        for kind, found in sorted(hits.items())
    }
