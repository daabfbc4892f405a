"""NavGPT by a language model with eyes from a folder: whatever an untrained one says, the episode goes on."""

import importlib.util
import os

import pytest
import torch

from embodied.assistant import Assistant
from embodied.building import build
from embodied.evaluation.composed import compose_policy
from embodied.interaction import stack
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer
from envs.house.tasks.graph_vln import HouseGraph

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true", reason="numba is not installed"
)
CHAT = {
    "_target_": "embodied.lvlm.chat.template.Template",
    "user": "Q: {text} ",
    "assistant": "A:",
    "answer": " {text}</s>",
    "image": "{tokens}",
}
BACKBONE = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "tie_word_embeddings": True,
}
MODEL = {
    "encoder": {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [8, 16], "size": 16},
    "connector": {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
    "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
    "backbone": {"_target_": "embodied.lvlm.backbones.causal.CausalBackbone", "config": BACKBONE},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["Thought: Action: go to stop Place left right"], 300).tokenizer
    where = tmp_path_factory.mktemp("model") / "tiny"
    Assistant(LVLM.from_config(MODEL, len(tokenizer)), tokenizer, CHAT).save_pretrained(where)
    return where


def test_a_tiny_random_model_from_a_folder_walks_by_its_views_and_is_counted(folder):
    env = HouseGraph(split="val", height=16, width=16, neighbours=True, views="around", max_steps=3)
    settings = {"answerer": {"folder": str(folder), "device": "cpu", "max_new_tokens": 4}}
    policy = build(compose_policy("navgpt", settings), embodiment=env.embodiment)
    actions = []
    for _ in range(2):  # the same both times
        policy.reset(1)
        policy.start(0, 5, env.name)
        seen, over = env.reset(seed=5)[0], False
        while not over:
            actions.append(policy.act(stack([seen]), [0])[0].tolist())
            seen, _, done, late, _ = env.step(actions[-1])
            over = done or late
    assert actions[: len(actions) // 2] == actions[len(actions) // 2 :]
    assert policy.asked == len(actions) == policy.invalid  # what an untrained model says is no action
    assert policy.cameras == env.embodiment.camera_names


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="holds no agent"):
        build(compose_policy("navgpt", {"answerer": {"folder": str(tmp_path)}})["answerer"])
