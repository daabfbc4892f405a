"""Every row of the zoo is built, learns, is saved and speaks, tiny; and has its published number of parameters."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import conf
from embodied.assistant import Assistant
from embodied.data.multimodal.sample import Sample
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.lvlm.zoo import Row
from embodied.training.stages import train_parts

FOLDER = Path(str(conf.__file__)).parent
ROWS = {
    path.stem: Row.from_dict(yaml.safe_load(path.read_text(encoding="utf-8"))["row"])
    for path in sorted((FOLDER / "model" / "zoo").glob("*.yaml"))
}
WORDS = ("what is it?", "a red cube", "USER: ASSISTANT: <s> </s> <|im_start|> user assistant [INST] [/INST]")
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0}


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("zoo") / "picture.png"
    Image.effect_noise((90, 70), 60).convert("RGB").save(file)
    return str(file)


def option(group: str, name: str) -> dict:
    return yaml.safe_load((FOLDER / group / f"{name}.yaml").read_text(encoding="utf-8"))


def tiny(row: Row) -> Assistant:
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train(WORDS, 400).tokenizer
    return Assistant(row.build(tiny=True), tokenizer, option("chat", row.chat))


def sample(picture: str) -> Sample:
    asked = [{"type": "image", "image": picture}, {"type": "text", "text": "what is it?"}]
    return Sample("zoo/0", [{"role": "user", "content": asked}, {"role": "assistant", "content": "a red cube"}])


@pytest.mark.parametrize("name", ROWS)
def test_a_row_sees_learns_is_saved_and_speaks(name, picture, tmp_path):
    assistant = tiny(ROWS[name])
    batch = assistant.batch([sample(picture)])
    stages = option("recipe", ROWS[name].recipe)["recipe"]["stages"] if ROWS[name].recipe else {}
    for stage in stages.values():
        apart = copy.deepcopy(assistant)
        train_parts(apart, stage["train"], 1e-3, LORA)
        trained = {name: p for name, p in apart.named_parameters() if p.requires_grad}
        apart.loss(batch)["loss"].backward()
        still = [name for name, p in apart.named_parameters() if not p.requires_grad and p.grad is not None]
        assert trained and not still
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())
    before = assistant.eval().loss(batch)["loss"]
    assert torch.isfinite(before)
    assistant.save_pretrained(tmp_path / name)
    again = Assistant.from_pretrained(tmp_path / name)
    assert torch.equal(again.loss(batch)["loss"], before)
    prompt = sample(picture).messages[:1]
    assert again.respond([prompt], max_new_tokens=4) == assistant.respond([prompt], max_new_tokens=4)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.parameters])
def test_a_row_has_its_published_number_of_parameters(name):
    row = ROWS[name]
    assert row.source
    assert row.count() == pytest.approx(row.parameters, rel=0.03)


def test_there_are_the_seventy_rows_of_the_table():
    assert len(ROWS) == len({row.name for row in ROWS.values()}) == 70
