"""embodied-train init=<assistant>: its eyes and its language model in a robot, answers unchanged, resumed, mistakes."""

import shutil

import pytest
import torch
from fakes.demonstrations import write_demonstrations
from PIL import Image
from safetensors.torch import load_file

from embodied.agent import Agent
from embodied.assistant import Assistant
from embodied.cli import train as module
from embodied.cli.app import command
from embodied.evaluation.tasks.loading import load_responder
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.training.run_folder import newest

CHAT = {"_target_": "embodied.lvlm.chat.template.Template", "user": "{text}", "assistant": "A", "answer": " {text}</s>"}
NODE = {
    "encoder": {"_target_": "embodied.lvlm.encoders.convolution.ConvolutionalStem", "widths": [8, 16], "size": 16},
    "connector": {"_target_": "embodied.lvlm.connectors.projection.LinearConnector"},
    "resolution": {"_target_": "embodied.lvlm.resolution.single.SingleView"},
    "backbone": {
        "_target_": "embodied.lvlm.backbones.causal.CausalBackbone",
        "config": {
            "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "intermediate_size": 32,
        },
    },
}  # fmt: skip
SHORT = ["chunk.horizon=4", "trainer.batch_size=8", "trainer.max_steps=2", "trainer.save_every=1", "trainer.threads=1"]
SHORT += ["model.attention=causal", "trainer.precision=float32", "optimizer.lr=0.0", "processing=none"]


@pytest.fixture
def train(monkeypatch, tmp_path, capsys):
    """Runs `embodied-train` beside `talker/2-tune`, the last stage of a recipe's runs."""
    monkeypatch.chdir(tmp_path)
    data = write_demonstrations(tmp_path / "data")
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(["what is it? red blue move", "A"], 300).tokenizer
    assistant = Assistant(LVLM.from_config(NODE, len(tokenizer)), tokenizer, CHAT)
    assistant.save_pretrained(tmp_path / "talker/2-tune/checkpoints/000001")
    (tmp_path / "talker/2-tune/checkpoints/last").symlink_to("000001")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["embodied-train", *SHORT, f"data.root={data}", *words])
        status = 0
        try:
            command("train", module.train)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_a_robot_sees_and_reads_with_an_assistants_weights_and_answers_as_it_does(train, tmp_path):
    status, out, err = train("out=robot", "init=talker")
    assert status == 0, err
    assert "taken" in out and "model.encoders" in out and "new    " in out
    theirs = load_file(tmp_path / "talker/2-tune/checkpoints/000001/model.safetensors")
    mine = Agent.from_pretrained(newest("robot")).model.state_dict()
    for name, tensor in theirs.items():
        key = name.replace("vision.encoder", "encoders.0").replace("vision.connector", "connectors.0")
        assert torch.equal(mine[key], tensor), name

    Image.new("RGB", (16, 16), (200, 30, 30)).save(tmp_path / "red.png")
    asked = [{"type": "image", "image": str(tmp_path / "red.png")}, {"type": "text", "text": "what is it?"}]
    prompt = [[{"role": "user", "content": asked}]]
    answers = [load_responder(name).respond(prompt, max_new_tokens=8) for name in ("talker", "robot")]
    assert answers[0] == answers[1]


def test_every_camera_sees_with_its_encoder_where_each_has_its_own(train):
    assert train("out=robot", "init=talker", "model.share_encoder=false")[0] == 0
    mine = Agent.from_pretrained(newest("robot")).model.state_dict()
    assert torch.equal(mine["encoders.0.stages.0.weight"], mine["encoders.1.stages.0.weight"])


def test_it_goes_on_where_it_was_even_without_the_assistant(train, tmp_path):
    assert train("out=robot", "init=talker", "optimizer.lr=1e-3")[0] == 0
    whole = load_file(newest("robot") / "model.safetensors")
    shutil.rmtree("robot/checkpoints/000002")
    (tmp_path / "talker").rename(tmp_path / "gone")
    status, out, err = train("out=robot", "init=talker", "resume=true", "optimizer.lr=1e-3")
    assert status == 0 and "from step 1" in out, err
    again = load_file(newest("robot") / "model.safetensors")
    assert newest("robot").name == "000002" and all(torch.equal(again[name], whole[name]) for name in whole)
    assert Agent.from_pretrained(newest("robot")).config["chat"] == CHAT


@pytest.mark.parametrize("word", ["connector=keypoints", "model.encoder.widths=[8]", "chat=vicuna", "backbone=llama"])
def test_what_an_assistant_brings_is_not_configured_beside_it(train, word):
    status, _, err = train("out=robot", "init=talker", word)
    said = [line for line in err.splitlines() if line.startswith("embodied-train: ")]
    assert status == 2 and len(said) == 1 and f"{word} would do nothing" in said[0], err
