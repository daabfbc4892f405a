"""Training on many questions about few pictures: each in a row of its own, packed, and with the picture read once.

    python benchmarks/shared_prefix.py [--threads 1] [--pictures 6] [--questions 10] [--repeats 7]

The model of `model=small` learns from noise pictures of 128 px with questions of 6 to 16 words. First loss and
gradients of the three ways are compared; then they are timed in turn, in one process. Printed: questions per second,
median and quartiles, and the median ratio to a row each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from embodied.assistant import Assistant
from embodied.cli.configs import compose
from embodied.data.multimodal.sample import Sample
from embodied.lvlm.chat.packing import BestFit, Packing, SharedPrefix
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.lvlm.zoo import Row
from embodied.training.conversations import ConversationStream

WORDS = ["is", "there", "a", "small", "large", "red", "green", "blue", "cube", "ball", "left", "right", "how", "many"]


class Questions:
    """`each` questions about every picture, one picture after the other."""

    def __init__(self, folder: Path, pictures: int, each: int) -> None:
        self.each, self.files = each, [str(folder / f"{number}.png") for number in range(pictures)]
        rng = np.random.default_rng(0)
        for file in self.files:
            Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(file)
        self.texts = [" ".join(rng.choice(WORDS, rng.integers(6, 17))) for _ in range(pictures * each)]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Sample:
        picture = {"type": "image", "image": self.files[index // self.each]}
        asked = [picture, {"type": "text", "text": self.texts[index]}]
        said = [{"type": "text", "text": WORDS[index % len(WORDS)]}]
        return Sample(f"q{index}", [{"role": "user", "content": asked}, {"role": "assistant", "content": said}])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in {"threads": 1, "pictures": 6, "questions": 10, "repeats": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = compose("tune", ["model=small", "chat=short", "data.sources={}", "out=unused"])
    tokenizer = TextTokenizer.train([" ".join(WORDS)], 512).tokenizer
    model = LVLM.from_config(Row.from_dict(dict(config.row)).node(False), len(tokenizer))
    assistant = Assistant(model, tokenizer, dict(config.chat))
    count = options.pictures * options.questions
    ways: dict[str, Packing | None] = {
        "a row each": None,
        "packed, by conversation": BestFit(320),
        "the picture read once": SharedPrefix(320),
    }
    with tempfile.TemporaryDirectory() as folder:
        reader = Questions(Path(folder), options.pictures, options.questions)
        batches = {}
        for name, packing in ways.items():
            stream = ConversationStream(
                assistant, {"q": reader}, {}, count, 0, packing=packing, together={"q": options.questions}
            )
            batches[name] = stream.gather(stream.indices(0))

    def step(name: str) -> tuple[float, torch.Tensor]:
        assistant.zero_grad()
        loss = assistant.loss(batches[name])["loss"]
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in assistant.parameters() if p.grad is not None])

    expected, gradient = step("a row each")
    gradient = gradient.clone()
    print(f"{options.pictures} pictures, {options.questions} questions each, {options.threads} threads")
    print(f"{'way':26} {'loss differs':>13} {'gradients, relative':>20}")
    for name in ways:
        loss, other = step(name)
        worst = ((other - gradient).abs().max() / gradient.abs().max()).item()
        print(f"{name:26} {abs(loss - expected):13.1e} {worst:20.1e}")
        assert worst < 1e-5, f"{name} does not compute what a row each computes"
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name in ways:
            begun = time.perf_counter()
            step(name)
            times[name].append(time.perf_counter() - begun)
    print(f"{'way':26} {'questions/s':>11} {'quartiles':>17} {'ratio':>6}")
    base = np.array(times["a row each"])
    for name, taken in times.items():
        low, middle, high = np.percentile(count / np.array(taken), [25, 50, 75])
        print(f"{name:26} {middle:11.0f} {low:8.0f} {high:8.0f} {np.median(base / np.array(taken)):6.2f}")


if __name__ == "__main__":
    main()
