"""A training step of our LVLM and of transformers' LLaVA: same weights, same batch, same numbers, in turn.

    python benchmarks/lvlm_step.py [--size tiny|small] [--threads 1] [--rows 4] [--rounds 30] [--alike]

The weights are random and transformers' own (`LlavaForConditionalGeneration`); ours are made of them as a user's would
be, by `interop`. A step is: forward, cross-entropy of the answers, backward, AdamW. Each of the conversations has one
picture, 30 to 90 words and an answer of 10 to 60; `--alike` gives all one length, so that nothing is padded. `tiny` is
the shape of the parity tests (4 tokens a picture, 32 wide), where the time is Python's; `small` has LLaVA-1.5's 576
tokens a picture at a width, depth and vocabulary that a CPU trains.

First both must agree on the loss and on every gradient to 1e-6, and on the losses of three steps to 1e-5; then they
are timed in turn. Then each trains in a process of its own, for its largest memory.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from embodied.lvlm.interop.checkpoints import family_of, from_reference
from embodied.lvlm.model import LVLM, Batch
from embodied.lvlm.vision import Picture

Step = Callable[[], float]
SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "vision": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"image_size": 28, "patch_size": 14},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "vocab_size": 128},
    },
    "small": {
        "vision": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2}
        | {"image_size": 336, "patch_size": 14},
        "text": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 3}
        | {"num_key_value_heads": 3, "vocab_size": 2048},
    },
}
IGNORED = -100


def reference(size: str) -> LlavaForConditionalGeneration:
    """LLaVA-1.5's shape with random weights."""
    torch.manual_seed(0)
    vision, text = SIZES[size]["vision"], SIZES[size]["text"]
    config = LlavaConfig(
        vision_config=vision | {"model_type": "clip_vision_model"},
        text_config=text | {"model_type": "llama", "max_position_embeddings": 4096},
        image_token_index=text["vocab_size"] - 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    return LlavaForConditionalGeneration(config).train()


def conversations(config: LlavaConfig, rows: int, alike: bool) -> dict[str, Tensor]:
    """A batch as transformers takes it: padded behind, one picture first in each row."""
    torch.manual_seed(1)
    side = config.vision_config.image_size
    tokens = (side // config.vision_config.patch_size) ** 2
    words, answers = torch.randint(30, 91, (rows,)).tolist(), torch.randint(10, 61, (rows,)).tolist()
    if alike:
        words, answers = words[:1] * rows, answers[:1] * rows
    length = tokens + max(w + a for w, a in zip(words, answers, strict=True))
    ids = torch.zeros(rows, length, dtype=torch.long)
    present, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for row, (asked, said) in enumerate(zip(words, answers, strict=True)):
        end = tokens + asked + said
        ids[row, :end] = torch.randint(1, config.image_token_index, (end,))
        ids[row, 1 : 1 + tokens] = config.image_token_index
        present[row, :end] = 1
        labels[row, end - said : end] = ids[row, end - said : end]
    return {
        "input_ids": ids,
        "attention_mask": present,
        "labels": labels,
        "pixel_values": torch.randn(rows, 3, side, side),
    }


def ours_of(batch: dict[str, Tensor], model: LVLM, image: int) -> Batch:
    """The same batch as our LVLM takes it."""
    assert model.vision is not None
    layout = model.vision.resolution.plan(*batch["pixel_values"].shape[2:])
    pictures = [Picture(layout, ((pixels,),)) for pixels in batch["pixel_values"]]
    ids = batch["input_ids"]
    return Batch(ids, batch["attention_mask"].bool(), ids == image, pictures, batch["labels"])


def our_loss(model: LVLM, batch: Batch) -> Callable[[], Tensor]:
    return lambda: model.loss(batch)["loss"]


def their_loss(model: Any, batch: dict[str, Tensor]) -> Callable[[], Tensor]:
    return lambda: model(**batch).loss


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compare(theirs: Any, their: Callable[[], Tensor], ours: LVLM, our: Callable[[], Tensor]) -> tuple[float, float]:
    """The largest differences of the loss and of the gradients.

    Raises:
        SystemExit: one is more than 1e-6: there is nothing to time.
    """
    values = []
    for loss in (their, our):
        value = loss()
        value.backward()
        values.append(value.item())
    expected, found = gradients(theirs), family_of(theirs.config).to_reference(gradients(ours), theirs.config)
    if expected.keys() != found.keys():
        raise SystemExit(f"gradients of other weights: {sorted(expected.keys() ^ found.keys())[:3]}")
    worst = max(float((found[name] - expected[name]).abs().max()) for name in expected)
    differs = abs(values[0] - values[1])
    if max(differs, worst) > 1e-6 or not any(float(g.abs().max()) > 1e-4 for g in expected.values()):
        raise SystemExit(f"not the same computation: losses differ by {differs:.1e}, gradients by {worst:.1e}")
    return differs, worst


def peak() -> float:
    """Largest resident memory of this process so far, MB; `getrusage` would count what the process came from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def alone(options: argparse.Namespace) -> None:
    """Train one side for three steps and print its memory, before them and at most."""
    theirs: Any = reference(options.size)
    config, batch = theirs.config, conversations(theirs.config, options.rows, options.alike)
    if options.only == "ours":
        model = from_reference(theirs).train()
        del theirs
        step = stepper(model, our_loss(model, ours_of(batch, model, config.image_token_index)))
    else:
        step = stepper(theirs, their_loss(theirs, batch))
    before = peak()
    for _ in range(3):
        step()
    print(json.dumps({"before": before, "peak": peak()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--alike", action="store_true")
    parser.add_argument("--only", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        alone(options)
        return
    theirs: Any = reference(options.size)
    batch = conversations(theirs.config, options.rows, options.alike)
    ours = from_reference(copy.deepcopy(theirs)).train()
    their, our = their_loss(theirs, batch), our_loss(ours, ours_of(batch, ours, theirs.config.image_token_index))
    differs, worst = compare(theirs, their, ours, our)
    size, present = sum(p.numel() for p in theirs.parameters()) / 1e6, batch["attention_mask"]
    print(f"{options.size}: {size:.2f} M parameters, {options.rows} rows of {present.shape[1]} places,", end=" ")
    print(f"{int(present.sum())} tokens, {int((batch['labels'] != IGNORED).sum())} learned")
    print(f"the losses differ by {differs:.1e}, the gradients by at most {worst:.1e}")
    sides = {"ours": stepper(ours, our), "theirs": stepper(theirs, their)}
    for _ in range(3):
        a, b = (step() for step in sides.values())
        if abs(a - b) > 1e-5:
            raise SystemExit(f"trained, the two sides differ: their losses are {a} and {b}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    seconds: dict[str, list[float]] = {name: [] for name in sides}  # of the processor, whatever else it does meanwhile
    for i in range(options.rounds):
        for name in list(sides)[:: 1 if i % 2 else -1]:
            begun, spent = time.perf_counter(), time.process_time()
            sides[name]()
            times[name].append(1e3 * (time.perf_counter() - begun))
            seconds[name].append(time.process_time() - spent)
    memory = {name: measured_alone(name) for name in sides}
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        before, most = memory[name]["before"], memory[name]["peak"]
        print(f"{name:7} {middle:8.1f} ms a step ({low:.1f} to {high:.1f}), {most:.0f} MB at most,", end=" ")
        print(f"{most - before:.0f} MB of them for training")
    ratios = [a / b for a, b in zip(times["ours"], times["theirs"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"ours / theirs: {middle:.3f} ({low:.3f} to {high:.3f})", end="; ")
    share = statistics.median(a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True))
    print(f"of the processor's time {share:.3f}; {options.threads} thread(s), {options.rounds} rounds,", end=" ")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def measured_alone(side: str) -> dict[str, float]:
    """`alone`, in a process of its own."""
    done = subprocess.run([sys.executable, *sys.argv, "--only", side], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed alone: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
