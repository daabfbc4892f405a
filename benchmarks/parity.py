"""How far each composed family is from transformers' reference: pixels, logits, and weights after both ways.

    python benchmarks/parity.py [--only llava qwen2-vl] [--out parity.md]

Tiny random models of `tests/fakes/references.py`, float32 on the CPU, some ten seconds in all. Each row:
which models of the survey share the architecture, the reference, the largest absolute difference of the
logits from the picture on (three samples, one of them with two pictures where the family takes several; two
films where its reference reads films), that of the pixels against the official image processor, and whether the
weights come back from us bit for bit.
Fails where logits differ by 1e-5 or more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.parity import Difference, measure
from fakes.reference_models import CASES
from fakes.references import Case

from embodied.files import write_text

ENOUGH = 1e-5


def a_row(case: Case, difference: Difference) -> str:
    """One row of the table."""
    config = case.config()
    parts = [type(config).__name__.removesuffix("Config")]
    text = getattr(config, "text_config", None)
    parts += [text.model_type] if text is not None else []
    trip = "bit for bit" if difference.round_trip else "**differs**"
    figures = f"{difference.logits:.1e} | {difference.pixels:.1e} | {trip}"
    return f"| {', '.join(case.rows)} | {' + '.join(parts)} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="these cases alone")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    lines = ["| models | reference | logits | pixels | weights |", "|---|---|---|---|---|"]
    print(*lines, sep="\n")
    far = []
    for case in CASES:
        if arguments.only and case.name not in arguments.only:
            continue
        difference = measure(case)
        lines.append(a_row(case, difference))
        print(lines[-1], flush=True)
        if difference.logits >= ENOUGH or not difference.round_trip:
            far.append(case.name)
    if arguments.out is not None:
        write_text(arguments.out, "\n".join(lines) + "\n")
    if far:
        sys.exit(f"not equal to the reference: {', '.join(far)}")


if __name__ == "__main__":
    main()
