"""How long each head takes to predict one chunk on this machine, beside the reading of the observation.

    python benchmarks/heads.py [--threads 2] [--horizons 8 16] [--repeats 30]
    python benchmarks/heads.py --agents runs/heads/mlp runs/heads/diffusion

Untrained agents of the default sizes (width 192, one 96 x 96 camera, 4 action dimensions), or trained ones as they are;
batch 1, all in one process and in turn, so that what else the machine does hits them alike. Printed: median and
quartiles in milliseconds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from embodied.agent import Agent, create_agent
from embodied.cli.configs import compose
from embodied.evaluation.policies import locate_policy
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

VARIANTS = {
    "mlp": ["head=mlp"],
    "diffusion, mlp, 10 ddim steps": ["head=diffusion"],
    "diffusion, mlp, 100 ddpm steps": ["head=diffusion", "head.sampler=ddpm", "head.sample_steps=100"],
    "diffusion, unet, 10 ddim steps": ["head=diffusion", "denoiser=unet"],
    "diffusion, transformer, 10 ddim steps": ["head=diffusion", "denoiser=transformer"],
    "consistency, mlp, 2 steps": ["head=consistency"],
    "flow, expert, 10 steps": ["head=flow"],
    "flow, mlp, 10 steps": ["head=flow", "denoiser=mlp"],
    "token": ["head=token"],
    "token, parallel": ["head=token", "head.decoding=parallel"],
    "gaussian": ["head=gaussian"],
    "mixture": ["head=mixture"],
    "transformer": ["head=transformer"],
    "fast": ["head=fast"],
    "text": ["head=text"],
    "rt1": ["head=rt1"],
    "rt2": ["head=rt2"],
}


def an_agent(overrides: list[str], horizon: int) -> Agent:
    """An untrained agent for an arm with a gripper."""
    axes, units = ("x", "y", "z", "grip"), ("m", "m", "m", "1")
    action = ActionSpec(axes, units, (-1.0,) * 4, (1.0,) * 4, gripper=3)
    body = Embodiment("arm", action, StateSpec(axes, units), (Camera("front", 96, 96, "none"),), rate=20)
    overrides = [*overrides, f"chunk.horizon={horizon}", "data.root=none", "out=none"]
    config: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    numbers = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    columns = {"action": numbers, "observation.state": numbers}
    return create_agent(config, body, ["press the button"], columns, np.array([100])).eval()


def an_observation(agent: Agent) -> dict:
    """One processed observation."""
    body = agent.embodiment
    raw = {
        f"observation.images.{camera.name}": torch.randint(
            0, 256, (1, agent.history, camera.height, camera.width, 3), dtype=torch.uint8
        )
        for camera in body.cameras
    }
    if body.state is not None:
        raw["observation.state"] = torch.zeros(1, agent.history, body.state.dim)
    raw["observation_is_pad"] = torch.zeros(1, agent.history, dtype=torch.bool)
    return agent.processing(raw | {"task": ["press the button"]})


def load(folder: str) -> Agent:
    """A trained agent, of a run or a checkpoint."""
    checkpoint = locate_policy(folder, "--agents").folder
    if checkpoint is None:
        raise SystemExit(f"{folder} is no trained agent")
    return Agent.from_pretrained(checkpoint).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--horizons", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--agents", nargs="+", default=[], help="runs or checkpoints to time instead")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.agents:
        loaded = {folder: load(folder) for folder in arguments.agents}
        agents = {(folder, agent.horizon): agent for folder, agent in loaded.items()}
    else:
        agents = {(name, h): an_agent(words, h) for h in arguments.horizons for name, words in VARIANTS.items()}
    times: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in agents}
    with torch.inference_mode():
        for _ in range(arguments.repeats + 2):
            for key, agent in agents.items():
                observation = an_observation(agent)
                start = time.perf_counter()
                readout = agent.model(observation)
                read = time.perf_counter()
                agent.head.sample(readout, [torch.Generator().manual_seed(0)])
                times[key].append((read - start, time.perf_counter() - read))
    print(f"torch {torch.__version__}, {arguments.threads} threads, milliseconds per chunk: median (quartiles)")
    print(f"{'head':38s} {'horizon':>7s}   {'parameters':>10s}   {'reading':>22s}   {'head':>22s}")
    for (name, horizon), pairs in times.items():
        low, middle, high = np.quantile(np.array(pairs[2:]) * 1e3, [0.25, 0.5, 0.75], axis=0)
        shown = [f"{middle[i]:8.2f} ({low[i]:.2f}-{high[i]:.2f})" for i in (0, 1)]
        count = sum(p.numel() for p in agents[name, horizon].head.parameters())
        print(f"{name:38s} {horizon:7d}   {count:10,d}   {shown[0]:>22s}   {shown[1]:>22s}")


if __name__ == "__main__":
    main()
