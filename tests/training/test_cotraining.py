"""One model that acts and answers: trained on both at once, it learns both, and is saved and loaded as one."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from embodied.agent import Agent, create_agent
from embodied.cli.configs import compose
from embodied.data import Mixture, MixtureStream
from embodied.data.multimodal.readers.chat import Chat
from embodied.evaluation.tasks.loading import load_responder
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec
from embodied.training.conversations import ConversationSource

BODY = Embodiment(
    "arm",
    ActionSpec(("x", "y"), ("m", "m"), (-1.0,) * 2, (1.0,) * 2),
    StateSpec(("x", "y"), ("m", "m")),
    (Camera("front", 16, 16, "none"),),
    rate=20,
)
SMALL = [
    "chat=short",
    "data.root=none",
    "out=none",
    "model.encoder.widths=[16,32]",
    "model.encoder.size=16",
    "model.backbone.config.hidden_size=64",
    "model.backbone.config.num_hidden_layers=2",
    "model.backbone.config.intermediate_size=128",
    "model.attention=causal",
    "chunk.horizon=2",
    "execution.steps=2",
    "processing=none",
]
COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}


class Demonstrations:
    """Reach to the left of red pictures and to the right of blue ones."""

    def __len__(self):
        return 8

    def batch(self, indices):
        colours = [list(COLOURS.values())[int(i) % 2] for i in indices]
        pictures = torch.tensor(np.array([np.full((1, 16, 16, 3), colour, np.uint8) for colour in colours]))
        sides = torch.tensor([-0.5 if int(i) % 2 == 0 else 0.5 for i in indices]).view(-1, 1, 1).expand(-1, 2, 2)
        rows = len(indices)
        return {
            "observation.images.front": pictures,
            "observation.state": torch.zeros(rows, 1, 2),
            "observation_is_pad": torch.zeros(rows, 1, dtype=torch.bool),
            "action": sides.contiguous(),
            "action_is_pad": torch.zeros(rows, 2, dtype=torch.bool),
            "task": ["reach"] * rows,
        }


@pytest.fixture(scope="module")
def conversations(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("talk")
    lines = []
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / f"{name}.png")
        asked = [{"type": "image", "image": f"{name}.png"}, {"type": "text", "text": "which colour?"}]
        said = [{"type": "text", "text": name}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"id": name, "messages": messages, "source": "talk", "meta": {}}))
    (folder / "talk.jsonl").write_text("\n".join(lines) + "\n")
    return Chat(folder / "talk.jsonl")


@pytest.fixture(scope="module")
def trained(conversations) -> Agent:
    torch.manual_seed(0)
    config = OmegaConf.to_container(compose("train", SMALL), resolve=True)
    numbers = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    columns = {"action": numbers, "observation.state": numbers}
    agent = create_agent(config, BODY, ["reach", "which colour?", *COLOURS], columns, np.array([40]))
    sources = {"actions": Demonstrations(), "talk": ConversationSource(agent.assistant, conversations)}
    stream = MixtureStream(Mixture(sources), {"actions": 1.0, "talk": 1.0}, 16, 0)
    optimizer = torch.optim.AdamW(agent.parameters(), 2e-3)
    agent.train()
    for step in range(80):
        losses = agent.loss(stream.gather(stream.indices(step)))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert {"loss/actions", "loss/talk"} <= set(losses)
    return agent.eval()


def test_it_acts_by_what_it_sees(trained):
    batch = {key: value for key, value in Demonstrations().batch([0, 1]).items() if not key.startswith("action")}
    chunks = trained.predict(batch)
    assert (chunks[0] < -0.3).all() and (chunks[1] > 0.3).all()


def test_it_answers_by_what_it_sees(trained, conversations):
    prompts = [conversations[i].messages[:1] for i in range(2)]
    assert trained.assistant.respond(prompts, max_new_tokens=4) == ["red", "blue"]


def test_both_are_one_model_with_parameters_counted_once(trained):
    own = {id(p) for p in trained.parameters()}
    assert all(id(p) in own for p in trained.assistant.parameters())
    assert not any(name.startswith("_assistant") for name in trained.state_dict())


def test_saved_and_loaded_it_does_both(trained, conversations, tmp_path):
    trained.save_pretrained(tmp_path / "both")
    again = Agent.from_pretrained(tmp_path / "both")
    batch = {key: value for key, value in Demonstrations().batch([0, 1]).items() if not key.startswith("action")}
    assert torch.equal(again.predict(batch), trained.predict(batch))
    prompts = [conversations[i].messages[:1] for i in range(2)]
    assert load_responder(str(tmp_path / "both")).respond(prompts, max_new_tokens=4) == ["red", "blue"]


def test_an_agent_without_a_template_does_not_talk():
    config = OmegaConf.to_container(compose("train", [text for text in SMALL if "chat" not in text]), resolve=True)
    numbers = np.zeros((4, 2), np.float32)
    columns = {"action": numbers, "observation.state": numbers}
    agent = create_agent(config, BODY, ["reach"], columns, np.array([4]))
    with pytest.raises(ValueError, match="acts and does not talk"):
        _ = agent.assistant
