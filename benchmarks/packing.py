"""How many tokens per second a training step reads, packed against padded, on lengths as they are in practice.

    python benchmarks/packing.py [--threads 1] [--samples 48] [--batch 16] [--repeats 7] [--capacity 512]

A Llama-shaped model from scratch reads the same conversations in four ways: a batch at a time, padded to its longest;
the same sorted by length within the epoch (what a loader that groups by length does at best); packed with a block mask;
packed with attention per conversation. Lengths are log-normal with a median of 160 tokens, as instruction data without
tiles has them (LLaVA-Instruct and ShareGPT are alike in this), and clipped to the capacity. First the loss and the
gradients of a whole epoch are compared; then the ways are timed in turn, in one process, so that what else the machine
does hits them alike. Printed: real tokens per second, median and quartiles, the median ratio to padding, and that ratio
in CPU seconds, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch

from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.chat.packing import best_fit
from embodied.lvlm.chat.pieces import IGNORED, Encoded
from embodied.lvlm.chat.rows import Rows, lay
from embodied.lvlm.chat.segments import segmented, use_segments
from embodied.lvlm.model import LVLM

CONFIG = {
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 384,
    "max_position_embeddings": 4096,
}


def the_samples(count: int, longest: int, seed: int = 0) -> list[Encoded]:
    """Conversations whose second half is an answer."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.exp(rng.normal(np.log(160), 0.9, count)), 16, longest).astype(int)
    samples = []
    for n in lengths.tolist():
        ids = rng.integers(0, 1000, n).tolist()
        samples.append(Encoded(ids, [IGNORED] * (n // 2) + ids[n // 2 :], [False] * n))
    return samples


def epoch(model: LVLM, batches: list[Rows], segments: bool) -> float:
    """Forward and backward of an epoch, the loss a mean over all learned tokens; gradients add up."""
    model.zero_grad()
    total = sum(int((rows.labels != IGNORED).sum()) for rows in batches)
    summed = 0.0
    for rows in batches:
        with segmented(rows.spans) if segments else nullcontext():
            loss = model.loss(rows.batch())["loss"] * (int((rows.labels != IGNORED).sum()) / total)
            loss.backward()
        summed += loss.item()
    return summed


def gradients(model: LVLM) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


def grouped(samples: list[Encoded], size: int) -> list[list[Encoded]]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in {"threads": 1, "samples": 48, "batch": 16, "repeats": 7, "capacity": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    samples = the_samples(options.samples, options.capacity)
    groups = [[samples[i] for i in group] for group in best_fit([len(s) for s in samples], options.capacity)]
    in_turn = sorted(samples, key=len)
    per_batch = max(1, options.batch * len(groups) // len(samples))
    padded = [lay([[s] for s in batch]) for batch in grouped(samples, options.batch)]
    packed = [lay(groups[i : i + per_batch]) for i in range(0, len(groups), per_batch)]
    ways: dict[str, tuple[list[Rows], bool]] = {
        "padded": (padded, False),
        "padded, sorted by length": ([lay([[s] for s in batch]) for batch in grouped(in_turn, options.batch)], False),
        "packed, block mask": (packed, False),
        "packed, by conversation": (packed, True),
    }
    model = LVLM(CausalBackbone(dict(CONFIG)))
    use_segments(model.backbone.model)
    tokens = sum(map(len, samples))
    print(f"{len(samples)} conversations, {tokens} tokens, median {np.median([len(s) for s in samples]):.0f}")

    reference = epoch(model, *ways["padded"])
    expected = gradients(model)
    print(f"{'way':26} {'filled':>7} {'loss differs':>13} {'gradients differ':>17}")
    for name, (batches, segments) in ways.items():
        loss = epoch(model, batches, segments)
        fill = tokens / sum(rows.ids.numel() for rows in batches)
        worst = (gradients(model) - expected).abs().max().item()
        print(f"{name:26} {fill:7.0%} {abs(loss - reference):13.1e} {worst:17.1e}")
        assert worst < 1e-6, f"{name} does not compute what padding computes"

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, (batches, segments) in ways.items():
            times[name].append(timed(lambda b=batches, s=segments: epoch(model, b, s)))
    print(f"{'way':26} {'tokens/s':>9} {'quartiles':>17} {'ratio':>6} {'CPU ratio':>9}")
    base = np.array(times["padded"])
    for name, taken in times.items():
        speed = tokens / np.array(taken)[:, 0]
        low, middle, high = np.percentile(speed, [25, 50, 75])
        ratio, in_cpu = np.median(base / np.array(taken), axis=0)
        print(f"{name:26} {middle:9.0f} {low:8.0f} {high:8.0f} {ratio:6.2f} {in_cpu:9.2f}")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of this process."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


if __name__ == "__main__":
    main()
