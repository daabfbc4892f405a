"""A training step of Diffusion Policy's U-Net in our head and in LeRobot's policy: same weights, same numbers, in turn.

    PYTHONPATH=. .venv-lerobot/bin/python benchmarks/peers/lerobot_step.py

A step is: noise a batch of chunks, predict, mean squared error, backward, clip, AdamW as each side's training makes it.
First both get the same weights and must agree on the loss and on every gradient to 1e-5; then they are timed in turn.
`--sizes` sets the channels; (512, 1024, 2048) is LeRobot's default and wants memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

# the torchvision of PyPI declares these for GPUs only, and cannot be imported beside a CPU build of torch without them
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig  # noqa: E402
from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from embodied.contracts import Readout  # noqa: E402
from embodied.training.optimizer import AdamW  # noqa: E402
from policies.heads.denoisers.unet import UNetDenoiser  # noqa: E402
from policies.heads.diffusion import DiffusionHead  # noqa: E402

HORIZON, ACTIONS, WIDTH = 16, 7, 192


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    head = DiffusionHead(WIDTH, HORIZON, ACTIONS, denoiser=UNetDenoiser(arguments.sizes, film_scale=True))
    config = DiffusionConfig(
        horizon=HORIZON,
        down_dims=tuple(arguments.sizes),
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (2,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTIONS,))},
    )
    theirs = DiffusionConditionalUnet1d(config, global_cond_dim=WIDTH)
    ours = head.denoiser
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.shape == other.shape
            other.copy_(mine)
    actions, condition = torch.rand(arguments.batch, HORIZON, ACTIONS) * 2 - 1, torch.randn(arguments.batch, 1, WIDTH)
    mask = torch.ones(arguments.batch, HORIZON, dtype=torch.bool)
    readout = Readout(condition.unsqueeze(1), torch.ones(arguments.batch, 1, dtype=torch.bool))

    def our_loss() -> Tensor:
        return head.loss(readout, actions, mask)["loss"]

    def their_loss() -> Tensor:
        levels = torch.randint(100, (arguments.batch,))
        noise = torch.randn_like(actions)
        predicted = theirs(head.scheduler.add_noise(actions, noise, levels), levels, global_cond=condition[:, 0])
        return nn.functional.mse_loss(predicted, noise, reduction="none").mean()

    difference = compare((our_loss, ours), (their_loss, theirs))
    size = sum(p.numel() for p in theirs.parameters()) / 1e6
    print(f"loss and gradients differ by at most {difference:.1e} (relative); {size:.2f} M parameters each")
    recipe = AdamW(1e-4, (0.95, 0.999), weight_decay=1e-6)
    mine = stepper(our_loss, ours, recipe.make(recipe.groups(dict(ours.named_parameters()))))
    other = stepper(their_loss, theirs, torch.optim.AdamW(theirs.parameters(), 1e-4, (0.95, 0.999), 1e-8, 1e-6))
    for step in (mine, other) * 3:
        step()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(arguments.rounds):
        for name, step in (("ours", mine), ("theirs", other)):
            begun = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - begun))
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name}: {middle:.1f} ms a step ({low:.1f} to {high:.1f})")
    ratios = sorted(a / b for a, b in zip(times["ours"], times["theirs"], strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"ours / theirs: {middle:.3f} ({low:.3f} to {high:.3f}), {arguments.threads} thread(s)")


def compare(*sides: tuple[Callable[[], Tensor], nn.Module]) -> float:
    """The largest relative difference between the two sides' losses and gradients.

    Raises:
        SystemExit: it is more than 1e-5: there is nothing to time.
    """
    found = []
    for loss, module in sides:
        torch.manual_seed(1)  # the same noise and noise levels
        module.zero_grad()
        value = loss()
        value.backward()
        found.append([value.detach(), *(p.grad for p in module.parameters() if p.grad is not None)])
    worst = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-8)) for a, b in zip(*found, strict=True))
    if worst > 1e-5:
        raise SystemExit(f"the two sides do not compute the same: they differ by {worst:.1e}")
    return worst


def stepper(loss: Callable[[], Tensor], module: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
