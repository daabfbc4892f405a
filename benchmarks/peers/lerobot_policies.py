"""LeRobot's ACT and DiffusionPolicy on our demonstrations and in our environments, for the same wall-clock as ours.

    python benchmarks/peers/lerobot_policies.py train act --root data/mt10 --minutes 60 --out runs/lerobot-act
    python benchmarks/peers/lerobot_policies.py evaluate runs/lerobot-act env=metaworld/mt10 episodes=50 seed=10000
    embodied-compare runs/mt10/eval/metaworld_mt10_10000 runs/lerobot-act/eval/metaworld_mt10_10000

with the interpreter that README.md beside this file makes. Their policies are used as they are: their modules, losses,
normalisation formulas, optimizer presets and action queues. Three things favour them. Batches come from our decoded
cache, which is faster than their loader. The learning rate is raised from the presets, which are made for longer
training. And as neither reads an instruction, both are told the task as one-hot numbers, their `environment_state`.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

# the torchvision of PyPI declares these for GPUs only, and cannot be imported beside a CPU build of torch without them
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402
from lerobot.policies.act.modeling_act import ACTConfig, ACTPolicy  # noqa: E402
from lerobot.policies.diffusion.modeling_diffusion import DiffusionConfig, DiffusionPolicy  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from embodied.data import BatchStream, Cache, LeRobotDataset, Windows  # noqa: E402
from embodied.files import atomic_file, read_json, write_json  # noqa: E402
from embodied.interaction import Observation, Policy  # noqa: E402
from embodied.progress import Progress  # noqa: E402
from embodied.spec import ACTION, ENVIRONMENT_STATE, IMAGES, STATE, TASK, Embodiment  # noqa: E402

WARMUP = 200
SIZES: dict[str, dict[str, Any]] = {
    "act": {
        "chunk_size": 8, "n_action_steps": 4, "dim_model": 128, "n_heads": 4, "dim_feedforward": 512,
        "n_encoder_layers": 2, "n_decoder_layers": 1, "n_vae_encoder_layers": 2, "pretrained_backbone_weights": None,
    },
    "diffusion": {
        "horizon": 16, "n_action_steps": 8, "n_obs_steps": 2, "down_dims": (64, 128, 256),
        "noise_scheduler_type": "DDIM", "num_inference_steps": 10,
    },
}  # fmt: skip
RATES = {"act": 1e-4, "diffusion": 3e-4}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("kind", choices=SIZES)
    training.add_argument("--root", type=Path, required=True)
    training.add_argument("--cameras", nargs="+")
    training.add_argument("--size", type=int, help="pixels to scale the images to")
    training.add_argument("--minutes", type=float, default=60.0)
    training.add_argument("--batch", type=int, default=32)
    training.add_argument("--threads", type=int, default=2)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--out", type=Path, required=True)
    evaluation = commands.add_parser("evaluate")
    evaluation.add_argument("folder", type=Path)
    evaluation.add_argument("overrides", nargs="+", help="as embodied-eval's")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train(arguments)
    else:
        evaluate(arguments.folder, arguments.overrides)


def create(kind: str, body: Embodiment, tasks: int, size: Mapping[str, Any]) -> ACTPolicy | DiffusionPolicy:
    """Their policy for a body, untrained."""
    assert body.state is not None
    seen = {
        f"observation.images.{camera.name}": PolicyFeature(FeatureType.VISUAL, (3, camera.height, camera.width))
        for camera in body.cameras
    }
    seen |= {
        STATE: PolicyFeature(FeatureType.STATE, (body.state.dim,)),
        ENVIRONMENT_STATE: PolicyFeature(FeatureType.ENV, (tasks,)),
    }
    done = {ACTION: PolicyFeature(FeatureType.ACTION, (body.action.dim,))}
    config, policy = {"act": (ACTConfig, ACTPolicy), "diffusion": (DiffusionConfig, DiffusionPolicy)}[kind]
    return policy(config(input_features=seen, output_features=done, device="cpu", **size))


class Scaling:
    """Their normalisation: pictures by mean and deviation, states and actions as each policy's preset has it."""

    def __init__(self, kind: str, statistics: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        self.kind = kind
        self.statistics = {key: {n: torch.tensor(v) for n, v in s.items()} for key, s in statistics.items()}

    def picture(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (..., H, W, 3) to float (..., 3, H, W)."""
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        return ((pixels.float() / 255 - mean) / std).movedim(-1, -3).contiguous()

    def scale(self, key: str, values: torch.Tensor) -> torch.Tensor:
        s = self.statistics[key]
        if self.kind == "act":
            return (values - s["mean"]) / (s["std"] + 1e-8)
        return (values - s["min"]) / (s["max"] - s["min"]).clamp(min=1e-8) * 2 - 1

    def unscale(self, key: str, values: torch.Tensor) -> torch.Tensor:
        s = self.statistics[key]
        if self.kind == "act":
            return values * (s["std"] + 1e-8) + s["mean"]
        return (values + 1) / 2 * (s["max"] - s["min"]) + s["min"]


def train(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    kind, size = arguments.kind, SIZES[arguments.kind]
    history = size.get("n_obs_steps", 1)
    horizon = (size.get("chunk_size") or size["horizon"]) - history + 1
    pixels = (arguments.size, arguments.size) if arguments.size else None
    cache = Cache(LeRobotDataset(arguments.root), arguments.cameras, size=pixels)
    windows = Windows(cache, history=history, horizon=horizon)
    body = windows.embodiment
    statistics = {
        key: {"mean": v.mean(0).tolist(), "std": v.std(0).tolist(), "min": v.min(0).tolist(), "max": v.max(0).tolist()}
        for key, v in windows.columns.items()
    }
    scaling = Scaling(kind, statistics)
    policy = create(kind, body, len(windows.tasks), size)
    preset = policy.config.get_optimizer_preset()
    rate = RATES[kind]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=preset.weight_decay)
    stream = BatchStream(windows, arguments.batch, arguments.seed)
    one_hot = torch.eye(len(windows.tasks))
    policy.train()
    begun, steps, losses = time.monotonic(), 0, []
    budget = arguments.minutes * 60
    line = Progress(int(budget), "seconds", stream=sys.stderr)
    while (spent := time.monotonic() - begun) < budget:
        indices = stream.indices(steps)
        raw = from_oldest(stream.gather(indices), windows, indices, history)
        batch = prepare(raw, scaling, body, one_hot[[windows.tasks.index(task) for task in raw[TASK]]], history, kind)
        for group in optimizer.param_groups:  # warm up, then a cosine that ends with the budget
            group["lr"] = rate * min((steps + 1) / WARMUP, 0.5 + 0.5 * np.cos(np.pi * min(spent / budget, 1)))
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        losses.append(loss.item())
        steps += 1
        if steps % 20 == 0:
            line.advance(int(spent) - line.done, f"step {steps}, loss {np.mean(losses[-100:]):.4f}")
    seconds = time.monotonic() - begun
    arguments.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(arguments.out / "model.safetensors") as file:
        save_file({k: v.contiguous() for k, v in policy.state_dict().items()}, str(file))
    figures = {
        "parameters": sum(p.numel() for p in policy.parameters()),
        "steps": steps,
        "batch": arguments.batch,
        "samples_per_s": steps * arguments.batch / seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": arguments.threads,
    }
    about = {"kind": kind, "size": size, "body": body.to_dict(), "tasks": windows.tasks, "statistics": statistics}
    write_json(arguments.out / "policy.json", about | {"figures": figures, "rate": rate})
    print(json.dumps(figures))


def prepare(
    raw: Mapping[str, Any], scaling: Scaling, body: Embodiment, told: torch.Tensor, history: int, kind: str
) -> dict[str, torch.Tensor]:
    """A raw batch of ours as theirs: no time axis for ACT, which sees one frame."""
    batch = {IMAGES + name: scaling.picture(raw[IMAGES + name]) for name in body.camera_names}
    batch[STATE] = scaling.scale(STATE, raw[STATE])
    batch[ENVIRONMENT_STATE] = told.unsqueeze(1).expand(-1, history, -1)
    if kind == "act":
        batch = {key: value[:, -1] for key, value in batch.items()}
    if ACTION in raw:
        batch[ACTION], batch["action_is_pad"] = scaling.scale(ACTION, raw[ACTION]), raw["action_is_pad"]
    return batch


def from_oldest(raw: dict[str, Any], windows: Windows, indices: np.ndarray, history: int) -> dict[str, Any]:
    """The chunk from the oldest frame seen on, as DiffusionPolicy learns it; ours begins with the newest."""
    ends = windows.episode_ends
    first = np.concatenate([[0], ends])[np.searchsorted(ends, indices, side="right")]
    before = indices[:, None] + np.arange(1 - history, 0)
    past = torch.from_numpy(windows.columns[ACTION][np.maximum(before, first[:, None])])
    padded = torch.from_numpy(before < first[:, None])
    return raw | {
        ACTION: torch.cat([past, raw[ACTION]], dim=1),
        "action_is_pad": torch.cat([padded, raw["action_is_pad"]], dim=1),
    }


class LeRobotPolicy(Policy):
    """Their trained policy, one copy of its queues per slot."""

    def __init__(self, folder: Path) -> None:
        about = read_json(folder / "policy.json")
        self.kind, self.tasks = about["kind"], about["tasks"]
        self.embodiment = Embodiment.from_dict(about["body"])
        self.scaling = Scaling(self.kind, about["statistics"])
        size = {k: tuple(v) if isinstance(v, list) else v for k, v in about["size"].items()}
        self.policy = create(self.kind, self.embodiment, len(self.tasks), size)
        self.policy.load_state_dict(load_file(str(folder / "model.safetensors")))
        self.policy.eval()
        self.seconds: list[float] = []
        self._queues: list[Any] = []

    def reset(self, slots: int) -> None:
        self._queues = [None] * slots

    def start(self, slot: int, seed: int, task: str) -> None:
        self.policy.reset()
        self._queues[slot] = self._state()
        torch.manual_seed(seed)

    def act(self, observations: Observation, slots: Sequence[int]) -> np.ndarray:
        actions = []
        for row, slot in enumerate(slots):
            self._restore(self._queues[slot])
            raw = {
                key: torch.from_numpy(np.ascontiguousarray(value[row]))[None, None]
                for key, value in observations.items()
                if key == STATE or key.startswith(IMAGES)
            }
            told = torch.eye(len(self.tasks))[[self.tasks.index(observations[TASK][row])]]
            batch = {k: v[:, -1] for k, v in prepare(raw, self.scaling, self.embodiment, told, 1, "diffusion").items()}
            begun = time.perf_counter()
            action = self.policy.select_action(batch)
            self.seconds.append(time.perf_counter() - begun)
            actions.append(self.scaling.unscale(ACTION, action)[0].numpy())
            self._queues[slot] = self._state()
        return np.stack(actions).astype(np.float32)

    def _state(self) -> Any:
        return self.policy._action_queue if self.kind == "act" else self.policy._queues

    def _restore(self, state: Any) -> None:
        if self.kind == "act":
            self.policy._action_queue = state
        else:
            self.policy._queues = state


def evaluate(folder: Path, overrides: Sequence[str]) -> None:
    """As embodied-eval does, with its result files, so that embodied-compare reads them."""
    from omegaconf import OmegaConf

    from embodied.cli import eval as command
    from embodied.cli.configs import compose
    from embodied.evaluation.report import write_report
    from embodied.evaluation.results import write_eval_info
    from embodied.evaluation.rollout import Environments, rollout

    torch.set_num_threads(1)
    config: Any = OmegaConf.to_container(compose("eval", [f"policy={folder}", *overrides]), resolve=True)
    env, out = config["env"], Path(config["out"])
    policy = LeRobotPolicy(folder)
    seeds = range(config["seed"], config["seed"] + config["episodes"])
    with Environments(env, config["num_envs"]) as environments:
        episodes = [(task, seed) for task in environments.tasks for seed in seeds]
        line = Progress(len(episodes), "episodes", stream=sys.stderr)
        records: list[Any] = []

        def note(record: Any) -> None:
            records.append(record)
            line.advance(1, command._rate(records))

        begun = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)
        rollout(policy, environments, episodes, group=env["name"].split("/")[0], out=out, on_episode=note)
        seconds = time.monotonic() - begun
        info = write_eval_info(
            out, records, policy=str(folder), env={"name": env["name"], "make": env["make"]},
            embodiment=environments.embodiment, config=config, eval_s=seconds, num_envs=config["num_envs"],
        )  # fmt: skip
    print(write_report(out))
    chunks = sorted(policy.seconds)[-len(policy.seconds) // max(policy.policy.config.n_action_steps, 1) :]
    for text in command._conclusions(info, records, 3600 * len(records) / seconds):
        print(text)
    print(f"{1e3 * float(np.median(chunks)):.1f} ms per chunk (median, 1 thread)")


if __name__ == "__main__":
    main()
