"""Folders of models: those of transformers are read as they are, ours come back to the bit, and faults are named."""

import json
import shutil

import pytest
import torch
from fakes.parity import a_batch, a_picture
from fakes.reference_models import CASES

from embodied.building import ForbiddenTarget
from embodied.lvlm.interop.checkpoints import from_reference, load_reference
from embodied.lvlm.model import LVLM
from embodied.lvlm.tokenizers.text import TextTokenizer

NAMED = {case.name: case for case in CASES}


def same_weights(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def written(folder, name="llava", shard="60KB"):
    case = NAMED[name]
    reference = case.reference()
    reference.save_pretrained(folder, max_shard_size=shard)
    case.processor().save_pretrained(folder)
    return reference


@pytest.mark.parametrize("name", ["llava", "llava-next", "idefics", "qwen2-vl", "internvl", "blip2-t5", "fuyu"])
def test_a_folder_of_transformers_in_shards_is_loaded_whole(name, tmp_path):
    reference = written(tmp_path, name)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = LVLM.from_pretrained(tmp_path)
    case = NAMED[name]
    assert same_weights(model, from_reference(reference))
    picture = a_picture(75, 33)
    expected = from_reference(reference, case.processor().to_dict()).vision.prepare(picture)
    found = model.vision.prepare(picture)  # as the folder's preprocessor_config.json says
    assert found.layout == expected.layout
    assert all(
        torch.equal(a, b)
        for ours, theirs in zip(found.views, expected.views, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_settings_of_pictures_are_found_where_newer_folders_keep_them(tmp_path):
    written(tmp_path, "qwen2-vl")
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert LVLM.from_pretrained(tmp_path).vision.resolution.max_pixels == 28 * 28 * 6
    (tmp_path / "processor_config.json").write_text('{"image_processor": 3}')
    with pytest.raises(ValueError, match=r"processor_config.json holds no settings, but a int"):
        LVLM.from_pretrained(tmp_path)


def test_its_config_comes_along(tmp_path):
    written(tmp_path)
    _, config = load_reference(tmp_path)
    assert config.model_type == "llava" and config.image_token_index == 100


@pytest.mark.parametrize(
    "name", ["llava-next", "internvl", "qwen2-vl", "instructblip-t5", "idefics", "deepseek-vl-hybrid"]
)
def test_our_own_folder_comes_back_to_the_bit(name, tmp_path):
    case = NAMED[name]
    model = from_reference(case.reference(), case.processor().to_dict())
    tokenizer = TextTokenizer.train(["a red block", "a blue block"], 64)
    model.save_pretrained(tmp_path, tokenizer)
    assert json.loads((tmp_path / "config.json").read_text())["format"] == "embodied-lvlm/1"
    assert (tmp_path / "tokenizer").is_dir()
    again = LVLM.from_pretrained(tmp_path)
    assert same_weights(model, again)
    batch = a_batch(model, [a_picture(31, 40)], case)
    with torch.no_grad():
        assert torch.equal(model(batch), again(batch))


def break_type(folder):
    change(folder, lambda config: config.update(model_type="bert"))


def break_unknown(folder):
    change(folder, lambda config: config.update(model_type="lava"))


def break_index(folder):
    next(folder.glob("*-00002-*.safetensors")).unlink()


def break_file(folder):
    file = next(folder.glob("*-00002-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


def break_shape(folder):
    change(folder, lambda config: config["text_config"].update(intermediate_size=48))


def break_depth(folder):
    change(folder, lambda config: config["text_config"].update(num_hidden_layers=3))


def break_extra(folder):
    change(folder, lambda config: config["text_config"].update(num_hidden_layers=1))


def break_pickle(folder):
    (folder / "pytorch_model.bin").write_bytes(b"x")


def break_json(folder):
    (folder / "config.json").write_text('{"model_type": ')


def change(folder, how):
    config = json.loads((folder / "config.json").read_text())
    how(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "how, message",
    [
        (break_type, "models of type 'bert' are not composed here"),
        (break_unknown, "models of type 'lava' are not composed here; did you mean 'llava'"),
        (break_index, "could not be loaded|names model-00002"),
        (break_file, "could not be loaded"),
        (break_shape, r"is \(.*the config wants \("),
        (break_depth, "lacks '.*layers.2"),
        (break_extra, "has no place for '.*layers.1"),
        (break_pickle, "is a pickle"),
        (break_json, "config.json"),
        (shutil.rmtree, "there is no folder"),
    ],
)
def test_a_faulty_folder_of_transformers_is_one_clear_line(how, message, tmp_path):
    folder = tmp_path / "model"
    written(folder)
    how(folder)
    with pytest.raises(ValueError, match=message) as caught:
        LVLM.from_pretrained(folder)
    assert "\n" not in str(caught.value) and "model" in str(caught.value)


def forbid(config):
    config["model"]["encoder"]["_target_"] = "subprocess.Popen"


@pytest.mark.parametrize(
    "how, message",
    [
        (
            lambda folder: change(folder, lambda config: config.update(format="embodied-agent/1")),
            "expected 'embodied-lvlm/1'",
        ),
        (lambda folder: change(folder, lambda config: config.pop("model")), "it has no 'model'"),
        (lambda folder: change(folder, lambda config: config["model"].update(conector={})), "did you mean 'connector'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"1234567890"), "is damaged"),
        (
            lambda folder: change(folder, lambda c: c["model"]["backbone"]["config"].update(intermediate_size=48)),
            r"is \(64, 32\), the config wants \(48, 32\)",
        ),
        (lambda folder: (folder / "x.pkl").write_bytes(b""), "is a pickle"),
    ],
)
def test_a_faulty_folder_of_ours_is_one_clear_line(how, message, tmp_path):
    from_reference(NAMED["llava"].reference()).save_pretrained(tmp_path)
    how(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        LVLM.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_cannot_name_foreign_code(tmp_path):
    from_reference(NAMED["llava"].reference()).save_pretrained(tmp_path)
    change(tmp_path, forbid)
    with pytest.raises(ForbiddenTarget, match=r"subprocess.Popen"):
        LVLM.from_pretrained(tmp_path)


def test_a_model_of_hand_made_parts_says_why_it_cannot_be_saved(tmp_path):
    model = from_reference(NAMED["llava"].reference())
    with pytest.raises(ValueError, match="from_config"):
        LVLM(model.backbone, model.vision).save_pretrained(tmp_path / "new")
