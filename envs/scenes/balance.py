"""Which questions are asked, so that their words alone tell little about the answers.

A model that never looks at the picture can still learn that most things are small, or that red cubes are often there.
Two steps keep that from paying: picture by picture, of the candidates of a kind those are taken whose answer has been
rarest so far; and in the end what is still too common among the questions of a key is left out, the latest first. Yes
and no come out equally often in each key. An answer of several is at most `MOST_OVER` times as frequent as their mean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from envs.scenes.questions import OPEN, YES_NO, Question

MOST_OVER = 1.4
Asked = tuple[int, Question]
"""The number of the picture or the film, and what is asked about it."""


class Balance:
    """Chooses the questions of one split, picture after picture.

    Args:
        each: how many questions of a kind a picture is asked at most.
    """

    def __init__(self, each: int) -> None:
        self.each = each
        self.asked: list[Asked] = []
        self._answers: Counter[tuple[str, str, str]] = Counter()
        self._groups: Counter[tuple[str, str, str]] = Counter()

    def add(self, number: int, candidates: Sequence[Question]) -> None:
        """Ask some of the candidates about a picture."""
        by_kind: dict[str, list[Question]] = defaultdict(list)
        for question in candidates:
            by_kind[question.kind].append(question)
        for waiting in by_kind.values():
            texts: set[str] = set()
            given: set[tuple[str, str]] = set()
            for _ in range(self.each):
                waiting = [q for q in waiting if q.text not in texts and (q.key, q.answer) not in given]
                if not waiting:
                    break
                best = min(waiting, key=self._surplus)  # the first of equals: candidates come in random order
                texts.add(best.text)
                given.add((best.key, best.answer))
                self._answers[best.kind, best.key, best.answer] += 1
                self._groups[best.kind, group(best), best.answer] += 1
                self.asked.append((number, best))

    def balanced(self) -> list[Asked]:
        """The questions that are asked in the end, in the order of their pictures."""
        kept = trimmed(self.asked)
        return sorted(kept, key=lambda asked: asked[0])

    def _surplus(self, question: Question) -> tuple[float, float, int]:
        """How much more often than the others of its key this answer was given, of its group, of all."""
        tables = ((self._answers, question.key), (self._groups, group(question)))
        over = []
        for table, key in tables:
            counts = [table[question.kind, key, answer] for answer in question.possible]
            over.append(table[question.kind, key, question.answer] - sum(counts) / max(len(counts), 1))
        return over[0], over[1], sum(self._groups[question.kind, group(question), a] for a in question.possible)


def group(question: Question) -> str:
    """Within which answers are trimmed: existence as a whole, for its keys are single phrases; otherwise the key."""
    return question.kind if question.kind == "exist" else question.key


def trimmed(asked: Iterable[Asked]) -> list[Asked]:
    """Leave out the latest questions with answers that are too common within their group."""
    groups: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for one in asked:
        groups[one[1].kind, group(one[1])].append(one)
    kept: list[Asked] = []
    for members in groups.values():
        counts = Counter(question.answer for _, question in members)
        possible = members[0][1].possible
        if possible == OPEN:
            kept += members
            continue
        most = cap([counts[answer] for answer in possible], 1.0 if possible == YES_NO else MOST_OVER)
        given: Counter[str] = Counter()
        for number, question in members:
            given[question.answer] += 1
            if given[question.answer] <= most:
                kept.append((number, question))
    return kept


def cap(counts: Sequence[int], over: float) -> int:
    """The largest number that is at most `over` times the mean of the counts once these are limited to it."""
    for most in range(max(counts), 0, -1):
        if most <= over * sum(min(count, most) for count in counts) / len(counts):
            return most
    return 0
