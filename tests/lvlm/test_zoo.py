"""Every row of the zoo is built, learns, is saved and speaks, tiny; and is made of what the survey says it is."""

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from embodied.assistant import Assistant
from embodied.cli.zoo import WITHIN, difference, entry, names
from embodied.training.exercise import EVERYTHING, exercise, lesson, speak, tiny

ROWS = {key: entry(key) for key in names()}
SURVEY = Path(__file__).resolve().parents[3] / "shared" / "survey" / "seed_models.csv"
ENCODERS = {
    "nfnet": "nfnet", "convnext": "convnext", "dinov2": "dinov2", "mae": "vit_mae", "layoutlmv3": "layoutlm",
    "sam-b": "sam_vision", "sam": "sam_vision", "siglip": "siglip|idefics2_vision", "internvit": "internvl_vision",
    "vit-675m": "qwen2_vl_vision", "visual embedding": "visualembeddingtable",
    "eva": r"blip_2_vision_model|encoders\.eva\.", "clip": "clip_vision_model", "-": "rawpatches",
}  # fmt: skip
CONNECTORS = {
    "q-former + mlp": 'qformer.*"patches": true', "linear + q-former": "linear.*qformer", "q-former": "qformer",
    "poly-expert": "polyexpert", "spatial vision aggregator": "spatialaggregator", "conv + swiglu": "swiglu",
    "temporal module": "temporalmodule", "adaptive pooling": "pooledconnector", "ldp v2": "ldpv2", "ldp": r"\.ldp",
    "c-abstractor": "cabstractor", "abstractor": "abstractor", "vss": "selectivescan", "resampler + mlp": "texthawk",
    "cross-attention + mlp": "dualresolution.*mlpconnector", "cross-attention": "positionalresampler",
    "perceiver + mlp": "idefics2resampler", "temporal module + linear": "temporalmodule", "vss + mlp": "selectivescan",
    "perceiver": "resampler", "resampler": "resampler", "linear": "linearconnector", "-": "",
    "mlp": "mlpconnector|pooledconnector|mixtureconnector|swiglu|hybridconnector|qwen2_vl_vision",
}  # fmt: skip
ADAPTERS = {
    "cross-attention": "gatedcrossattention", "adaption prompt": "adaptionprompt", "mm-adapter": "mmadapter",
    "adapter": "bottleneckadapter", "visual expert": "visualexpert", "modality-adaptive": "modalityadaptive",
    "lora moe": "loraexperts", "partial lora": r'lora\.lora.*"tokens": "visual"', "ffn moe": "feedforwardexperts",
    "ffn + mlp moe": "mixtureconnector.*feedforwardexperts", "hyper attention": "hyperattention", "-": "",
}  # fmt: skip
BACKBONES = {
    "persimmon": "persimmon", "chinchilla": "opt", "flan-t5": "t5", "ul2": "t5", "opt": "opt", "mpt": "mpt",
    "stablelm": "stablelm", "phi-3": "phi3", "phi": "phi", "gemma": "gemma", "mistral": "mistral",
    "mixtral": "mixtral", "mamba": "mamba", "glm4": "glm", "qwen": "qwen2", "hermes": "llama", "llama": "llama",
    "vicuna": "llama", "yi": "llama", "internlm": "llama", "deepseek": "llama", "in-house": "llama",
}  # fmt: skip
OTHERWISE = {
    "IDEFICS3": "the release has pixel shuffle and one linear layer",
    "InternLM-XC": "its perceive sampler has the shape of a Q-Former",
    "LLaMA-adapter v2": "the picture's tokens are queried, as in its code",
    "Sphinx": "the long variants are released without the Q-Former",
}
"""Connectors that are not what the survey's table prints, with the reason."""


@pytest.mark.parametrize("key", ROWS)
def test_a_row_sees_learns_is_saved_and_speaks(key, tmp_path):
    each = ROWS[key]
    done = exercise(each.row, each.chat, each.stages, tmp_path)
    assert list(done.trained) == list(each.stages or EVERYTHING) and all(done.trained.values())


@pytest.mark.parametrize("key", [key for key, each in ROWS.items() if each.row.parameters])
def test_a_row_has_its_published_number_of_parameters(key):
    row = ROWS[key].row
    assert row.source
    assert abs(difference(row, row.count())) <= WITHIN


def test_a_row_that_is_loaded_otherwise_than_it_was_saved_is_found(tmp_path, monkeypatch, picture):
    assistant = tiny(ROWS["llava-1.5"].row, ROWS["llava-1.5"].chat)
    load = Assistant.from_pretrained.__func__

    def damaged(cls, folder):
        again = load(cls, folder)
        next(again.model.vision.connector.parameters()).data += 0.1
        return again

    monkeypatch.setattr(Assistant, "from_pretrained", classmethod(damaged))
    with pytest.raises(ValueError, match=r"before it is saved and .* after"):
        speak(assistant, assistant.batch([lesson(picture)]), picture, tmp_path / "saved")


FILMS = {
    "videochatgpt": lambda frames, places: 100 + places,
    "valley": lambda frames, places: frames + places - 1,  # whose class token is the frame's
    "pllava": lambda frames, places: frames * 2 * 2,
    "llava-ov": lambda frames, places: frames * places // 4 + 1,
    "qwen2-vl": lambda frames, places: frames // 2 * places,
    "cogvlm2-video": lambda frames, places: frames * (places // 4 + 2),  # between two marks
}
"""Tokens of a film, by its frames and the tokens that one encoded view has places for, as their papers read it."""


@pytest.mark.parametrize("key", FILMS)
def test_a_row_that_watches_films_reads_them_as_its_paper_does(key, picture):
    vision = tiny(ROWS[key].row, ROWS[key].chat).model.vision
    view = vision.prepare(Image.open(picture).resize((56, 56))).views[0][0]
    places = vision.encoder.encode(view.unsqueeze(0)).shape[1]
    frames = [Image.effect_noise((56, 56), 60).convert("RGB") for _ in range(4)]
    clip = vision.film(frames, range(4))
    (tokens,) = vision([clip])
    assert len(tokens) == FILMS[key](4, places)
    assert sum(run.count for run in vision.measured(clip).frames) == len(tokens)


def test_there_are_the_seventy_rows_of_the_table():
    assert len(ROWS) == len({each.row.name for each in ROWS.values()}) == 70


def test_a_row_is_made_of_what_the_survey_names():
    if not SURVEY.exists():
        pytest.skip(f"{SURVEY.name} is not here")
    with SURVEY.open(encoding="utf-8") as file:
        table = {line["name"]: line for line in csv.DictReader(file) if line["table"] == "1"}
    assert set(table) == {each.row.name for each in ROWS.values()}
    missing = []
    for each in ROWS.values():
        line, model = table[each.row.name], json.dumps(each.row.model).lower()
        kind = str(each.row.model["backbone"]["config"]["model_type"])
        if not names_one(line["encoder(s)"], ENCODERS, model):
            missing.append((each.key, line["encoder(s)"]))
        if not names_one(line["connection"], CONNECTORS, model) and each.row.name not in OTHERWISE:
            missing.append((each.key, line["connection"]))
        if not names_one(line["internal_module"], ADAPTERS, model):
            missing.append((each.key, line["internal_module"]))
        if not names_one(line["backbone(s)"], BACKBONES, kind):
            missing.append((each.key, line["backbone(s)"]))
    assert not missing


def names_one(cell, words, text):
    """Whether one of the alternatives that a cell names is in a text: whole as it is listed, or all that it adds up."""
    for choice in re.split(r" / |, ", cell.lower()):
        terms = [choice] if choice in words else choice.split(" + ")
        if all(re.search(meant(term, words), text, re.DOTALL) for term in terms):
            return True
    return False


def meant(term, words):
    """What a term stands for: that of the first listed word that is in it."""
    if term in words:
        return words[term]
    return next((pattern for word, pattern in words.items() if word != "-" and word in term), f"nothing like {term}")


@pytest.fixture
def picture(tmp_path):
    Image.effect_noise((90, 70), 60).convert("RGB").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"
