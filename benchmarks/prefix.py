"""Eight questions on one picture: the picture read once (`Assistant.ask`) against read again for each.

    python benchmarks/prefix.py [--threads 1] [--questions 8] [--tokens 2] [--rounds 5]

The model is LLaVA-1.5's shape with random weights: a CLIP transformer whose last but one layer is read, 336 pixels and
patches of 14, hence 576 tokens a picture; a two-layer projection; a Llama; Vicuna's template. Three ways answer the
same questions with the same number of greedy tokens, two as for a yes and the end of the text:

- `once`: `Assistant.ask`. What the prompts share is read in one row, the questions behind it in a batch.
- `batch`: `Assistant.respond` with all eight conversations at a time, each with the picture.
- `one by one`: `Assistant.respond` with one after the other, as a plain evaluation loop does.

First all three must say the same tokens, and not the same to every question; then they are timed in turn. Then each
answers in a process of its own, for its largest memory. What can be gained is bounded by the number of questions and by
the share of the prompt that is the questions' own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from embodied.assistant import Assistant
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer

SIDE, PATCH = 336, 14
CHAT = Path(__file__).parents[1] / "conf" / "chat" / "vicuna.yaml"
MODEL = {
    "encoder": {
        "_target_": "embodied.lvlm.encoders.vision.VisionTransformer",
        "config": {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH}
        | {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 3},
        "layer": -2,
        "norm": False,
        "fit": "pad",
    },
    "connector": {"_target_": "embodied.lvlm.connectors.projection.MLPConnector", "layers": 2, "activation": "gelu"},
    "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
    "backbone": {
        "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
        "config": {"model_type": "llama", "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4}
        | {"num_attention_heads": 8, "max_position_embeddings": 2048, "initializer_range": 0.06},
    },
}
QUESTIONS = (
    "What is on the table?",
    "How many blocks are there?",
    "Is the red cube left of the ball?",
    "What colour is the drawer?",
    "Which block is the tallest?",
    "Is there a green bowl?",
    "What lies behind the ball?",
    "Are there more cubes than balls?",
)


class Recorded(Assistant):
    """An assistant whose tokens are kept, beside the words that they are."""

    said: list[list[int]]

    def words(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        self.said.append(list(ids))
        return super().words(ids, stop)


def make() -> Recorded:
    """The assistant, the same each time."""
    torch.manual_seed(0)
    chat = OmegaConf.to_container(OmegaConf.load(CHAT))
    assert isinstance(chat, dict)
    texts = [str(text) for text in chat.values()]
    tokenizer = TextTokenizer.train([*QUESTIONS, *texts], 2048).tokenizer
    model = LVLM.from_config(MODEL, len(tokenizer))
    return Recorded(model, tokenizer, {str(key): value for key, value in chat.items()}).eval()


def conversations(picture: str, questions: Sequence[str]) -> list[list[dict[str, Any]]]:
    return [
        [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
        for question in questions
    ]


def ways(assistant: Recorded, picture: str, questions: Sequence[str], tokens: int) -> dict[str, Callable[[], object]]:
    asked = conversations(picture, questions)
    return {
        "once": lambda: assistant.ask(picture, questions, tokens),
        "batch": lambda: assistant.respond(asked, max_new_tokens=tokens),
        "one by one": lambda: [assistant.respond([each], max_new_tokens=tokens) for each in asked],
    }


def answers(assistant: Recorded, way: Callable[[], object]) -> list[list[int]]:
    assistant.said = []
    way()
    return assistant.said


def peak() -> float:
    """Largest resident memory of this process so far, MB; `getrusage` would count what the process came from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in {"threads": 1, "questions": 8, "tokens": 2, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    questions = [QUESTIONS[i % len(QUESTIONS)] for i in range(options.questions)]
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "picture.png")
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(picture)
        assistant = make()
        choices = ways(assistant, picture, questions, options.tokens)
        if options.only:
            before = peak()
            answers(assistant, choices[options.only])
            print(json.dumps({"before": before, "peak": peak()}))
            return
        said = {name: answers(assistant, way) for name, way in choices.items()}
        if not said["once"] == said["batch"] == said["one by one"]:
            raise SystemExit("the ways do not say the same tokens: no times")
        if len({tuple(ids) for ids in said["once"]}) < 2:
            raise SystemExit("the same is said to every question: that all ways say it proves nothing")
        lengths = [len(assistant.prepare(each, prompt=True).encoded) for each in conversations(picture, questions)]
        times: dict[str, list[float]] = {name: [] for name in choices}
        seconds: dict[str, list[float]] = {name: [] for name in choices}  # of the processor alone
        for _ in range(options.rounds):
            for name, way in choices.items():
                begun, spent = time.perf_counter(), time.process_time()
                answers(assistant, way)
                times[name].append(time.perf_counter() - begun)
                seconds[name].append(time.process_time() - spent)
    print(
        f"{sum(p.numel() for p in assistant.parameters()) / 1e6:.1f} M parameters; {len(questions)} questions in",
        end=" ",
    )
    print(f"prompts of {min(lengths)} to {max(lengths)} tokens, {(SIDE // PATCH) ** 2} of them the picture;", end=" ")
    print(f"{options.tokens} tokens said to each, the same in all ways")
    for name, values in times.items():
        memory = measured_alone(name)
        print(f"{name:11} {statistics.median(values):7.2f} s ({min(values):.2f} to {max(values):.2f}),", end=" ")
        print(f"{memory['peak']:.0f} MB at most, {memory['peak'] - memory['before']:.0f} MB of them for answering")
    for name in ("batch", "one by one"):
        ratios = [a / b for a, b in zip(times[name], times["once"], strict=True)]
        share = statistics.median(a / b for a, b in zip(seconds[name], seconds["once"], strict=True))
        print(f"{name} / once: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f});", end=" ")
        print(f"of the processor's time {share:.2f}")
    print(
        f"{options.threads} thread(s), {options.rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def measured_alone(way: str) -> dict[str, float]:
    """One way in a process of its own."""
    done = subprocess.run([sys.executable, *sys.argv, "--only", way], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed alone: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
