"""An LVLM with a reference's weights says what the reference says, picture included, and gives the weights back."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PhiConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from embodied.lvlm.interop.checkpoints import from_reference, load_reference, to_reference
from embodied.lvlm.model import Batch

IMAGE = 100
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128}


def reference(kind: str = "clip-llama") -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    vision, text = kind.split("-")
    siglip = vision == "siglip"
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**VISION) if siglip else CLIPVisionConfig(**VISION),
        text_config=PhiConfig(**TEXT) if text == "phi" else LlamaConfig(**TEXT),
        image_token_index=IMAGE,
        vision_feature_layer=-1 if siglip else -2,
        vision_feature_select_strategy="full" if siglip else "default",
    )
    return LlavaForConditionalGeneration(config).eval()


def picture(width: int = 40, height: int = 31) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["clip-llama", "siglip-phi"])
def test_logits_equal_the_reference_from_the_picture_on(kind):
    theirs = reference(kind)
    model = from_reference(theirs)
    assert model.vision is not None
    size = {"height": 28, "width": 28}
    if kind.startswith("clip"):
        processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size)
    else:
        processor = SiglipImageProcessorPil(size=size)
    pixels = processor(picture(), return_tensors="pt")["pixel_values"]
    seen = model.vision.prepare(picture())
    assert torch.allclose(seen.views[0][0], pixels[0], atol=1e-6)

    count = model.vision.count(seen.layout)
    ids = torch.tensor([[1, 5, *[IMAGE] * count, 7, 8, 9]])
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), ids == IMAGE, [seen])
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=pixels).logits
        assert (model(batch) - expected).abs().max() < 1e-5


def test_weights_come_back_bit_for_bit():
    theirs = reference()
    back = to_reference(from_reference(theirs), theirs.config)
    expected = theirs.state_dict()
    got = back.state_dict()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_a_sharded_folder_loads(tmp_path):
    theirs = reference()
    theirs.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model, config = load_reference(tmp_path)
    assert config.image_token_index == IMAGE
    direct = from_reference(theirs).state_dict()
    assert all(torch.equal(tensor, direct[name]) for name, tensor in model.state_dict().items())


def test_a_family_that_is_not_composed_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="models of type 'bert' are not composed here"):
        load_reference(tmp_path)


def test_padding_on_either_side_changes_nothing():
    model = from_reference(reference())
    assert model.vision is not None
    seen = model.vision.prepare(picture())
    row = [1, 5, *[IMAGE] * model.vision.count(seen.layout), 7, 8, 9]
    alone = torch.tensor([row])
    logits = []
    for ids in (alone, torch.tensor([[*row, 0, 0]]), torch.tensor([[0, 0, *row]])):
        present = torch.zeros_like(ids, dtype=torch.bool)
        at = 2 if ids[0, 0] == 0 else 0
        present[:, at : at + len(row)] = True
        with torch.no_grad():
            logits.append(model(Batch(ids, present, (ids == IMAGE) & present, [seen]))[present])
    assert (logits[1] - logits[0]).abs().max() < 1e-5
    assert (logits[2] - logits[0]).abs().max() < 1e-5


def test_places_and_pictures_must_agree():
    model = from_reference(reference())
    assert model.vision is not None
    ids = torch.tensor([[1, IMAGE, IMAGE, 7]])
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), ids == IMAGE, [model.vision.prepare(picture())])
    with pytest.raises(ValueError, match="2 places are kept for pictures whose tokens are 4"):
        model(batch)
