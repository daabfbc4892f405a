"""An experiment's parts are swapped by one word: every combination builds an agent that learns and acts."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from embodied.agent import create_agent
from embodied.cli.configs import compose
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

SWAPS = [
    *(f"head={name}" for name in ("mlp", "token", "rt1", "rt2", "text", "fast", "gaussian", "diffusion")),
    *(f"head={name}" for name in ("rnn", "gpt", "transformer", "mixture", "octo", "flow", "consistency")),
    *(f"encoder={name}" for name in ("convolution", "clip", "siglip", "dinov2", "vit")),
    *(f"connector={name}" for name in ("keypoints", "linear", "mlp", "resampler")),
    *(f"connector={name}" for name in ("pixel_shuffle", "join", "pool", "pooled", "hybrid", "ldp", "ldpv2", "swiglu")),
    *(f"connector={name}" for name in ("qformer", "bliva", "window_qformer", "idefics", "idefics2", "kosmos")),
    *(f"connector={name}" for name in ("positional", "abstractor", "c_abstractor", "d_abstractor", "aggregator")),
    *(f"connector={name}" for name in ("visual_table", "scan", "temporal", "qllama", "texthawk")),
    *(f"backbone={name}" for name in ("llama", "qwen2")),
    *(f"execution={name}" for name in ("receding_horizon", "temporal_ensemble", "adaptive_ensemble")),
    *(f"execution={name}" for name in ("newest", "average")),
    *(f"processing={name}" for name in ("default", "none")),
    *(f"model.attention={name}" for name in ("bidirectional", "causal", "stepwise", "framewise")),
    "model.share_encoder=false",
    "model.state=null",
    "chunk.history=2",
    "model.readout_tokens=3",
]


EXPERIMENTS = [
    ["experiment=quickstart", "head=diffusion", "denoiser=unet", "head.sampler=dpm"],
    ["experiment=quickstart", "head=diffusion", "denoiser=transformer"],
    ["experiment=quickstart", "head=flow", "head.denoiser.state_token=true", "model.state=null", "backbone=qwen2"],
    ["experiment=quickstart", "head=flow", "denoiser=mlp"],
    ["experiment=octo"],
    ["experiment=octo", "head=mixture"],
    ["experiment=roboflamingo"],
    ["experiment=roboflamingo", "head=gpt"],
    ["experiment=roboflamingo", "head=transformer", "head.attend=steps"],
]


@pytest.mark.parametrize("swap", SWAPS)
def test_one_word_swaps_a_part_of_quickstart(swap):
    builds_learns_and_acts("experiment=quickstart", swap)


@pytest.mark.parametrize("words", EXPERIMENTS, ids=" ".join)
def test_a_published_design_is_one_word(words):
    builds_learns_and_acts(*words)


def builds_learns_and_acts(*words):
    config = compose("train", ["data.root=none", "out=none", *words])
    action = ActionSpec(("x", "y"), ("m", "m"), (-1.0, -1.0), (1.0, 1.0))
    cameras = (Camera("front", 32, 32, "fake"), Camera("hand", 32, 32, "fake"))
    body = Embodiment("toy", action, StateSpec(("x",), ("m",)), cameras, rate=10)
    rng = np.random.default_rng(0)
    columns = {
        name: rng.uniform(-1, 1, (9, dim)).astype(np.float32) for name, dim in (("action", 2), ("observation.state", 1))
    }
    plain = OmegaConf.to_container(config, resolve=True)
    agent = create_agent(plain, body, ["go"], columns, np.array([9]))
    history, horizon = config.chunk.history, config.chunk.horizon
    steps = (2, history) if config.chunk.every_step else (2,)
    batch = {f"observation.images.{c.name}": torch.zeros(2, history, 32, 32, 3, dtype=torch.uint8) for c in cameras} | {
        "observation.state": torch.zeros(2, history, 1),
        "observation_is_pad": torch.zeros(2, history, dtype=torch.bool),
        "action": torch.from_numpy(rng.uniform(-1, 1, (*steps, horizon, 2)).astype(np.float32)),
        "action_is_pad": torch.zeros(*steps, horizon, dtype=torch.bool),
        "task": ["go", "go"],
    }
    agent.loss(batch)["loss"].backward()
    without = [n for n, p in agent.named_parameters() if p.grad is None and "lm_head" not in n and "norm" not in n]
    assert len(without) < sum(1 for _ in agent.parameters()) / 4, without
    agent.eval()
    assert agent.predict({k: v for k, v in batch.items() if not k.startswith("action")}).shape == (2, horizon, 2)
    agent.reset(1)
    agent.start(0, seed=0, task="go")
    frame = {f"observation.images.{c.name}": np.zeros((1, 32, 32, 3), np.uint8) for c in cameras}
    assert agent.act(frame | {"observation.state": np.zeros((1, 1), np.float32), "task": ["go"]}, [0]).shape == (1, 2)
