"""Score answers in a file by the official rules of their benchmark, with intervals and every sample.

    embodied-score profile=pope predictions=p.jsonl references=coco_pope_adversarial.json
    embodied-score profile=docvqa predictions=p.json references=val_v1.0.json out=scores/docvqa

Answers and references meet by their ids. `skip=true` leaves out samples that are missing, empty, unknown or there
twice, and counts them; otherwise the first of them ends the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.cli.app import command


def work(config: DictConfig) -> dict[str, Any]:
    """Score; the headline as `score` with `low`, `high` and `n`, and every figure by its name."""
    from embodied.building import build
    from embodied.evaluation.scorers.base import Resampling, Scorer
    from embodied.evaluation.scorers.judges import Judge
    from embodied.evaluation.scorers.reading import References, Skipped, read_pairs
    from embodied.evaluation.scorers.result import REPORT, stated, write_scores

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    resampling = Resampling(plain["resamples"], plain["seed"])
    scorer: Scorer = build(plain["profile"]["scorer"], (Scorer, Judge))
    scorer.resampling = resampling
    format: References = build(plain["profile"]["references"], (References,))
    skipped = Skipped(bool(plain["skip"]))
    records = read_pairs(str(plain["predictions"]), str(plain["references"]), format, skipped, plain["pair"])
    scores = scorer.score(usable(scorer, records, skipped))
    name = plain["profile"]["name"]
    out = Path(plain["out"]) if plain["out"] else None
    if out:
        write_scores(out, scores, name=name, config=plain, skipped=skipped.reasons)
    for key, metric in scores.metrics.items():
        print(f"{name} {key}: {stated(metric)}, n = {metric.n}")
    for remark in scores.notes:
        print(f"Note: {remark}.")
    if skipped.reasons:
        print(f"{len(skipped.reasons)} samples were skipped; the first: {skipped.reasons[0]}")
    if out:
        print(out / REPORT)
    return results(scores)


def usable(scorer: Any, records: Sequence[Any], skipped: Any) -> list[Any]:
    """The records whose references are what the rule needs; the others are skipped where that is allowed."""
    kept = []
    for record in records:
        try:
            scorer.check([record])
        except ValueError as error:
            skipped.add(str(error))
        else:
            kept.append(record)
    if not kept:
        raise ValueError(f"nothing is left to score: all {len(skipped.reasons)} samples were skipped")
    return kept


def results(scores: Any) -> dict[str, Any]:
    """What a sweep tabulates."""
    _, head = scores.headline
    figures = {name: metric.value for name, metric in scores.metrics.items()}
    return {"score": head.value, "low": head.low, "high": head.high, "n": head.n, **figures}


main = command("score", work)

if __name__ == "__main__":
    main()
