"""Encoders and connectors: shapes, and the vision transformers equal transformers' own pipeline."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel

from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector
from embodied.lvlm.connectors.resampler import PerceiverResampler
from embodied.lvlm.encoders.convolution import ConvolutionalStem
from embodied.lvlm.encoders.vision import STATISTICS, VisionTransformer

SIZE = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {name: SIZE | ({"mlp_ratio": 2} if name == "dinov2" else {"intermediate_size": 64}) for name in STATISTICS}


def some_images(rows=2, size=32):
    return torch.randint(0, 256, (rows, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_from_a_checkpoint_folder_it_equals_transformers(family, tmp_path):
    torch.manual_seed(0)
    reference = AutoModel.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()
    reference.save_pretrained(tmp_path)
    encoder = VisionTransformer(checkpoint=str(tmp_path), keep_class_token=True).eval()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in STATISTICS[family])
    pixels = (some_images().permute(0, 3, 1, 2) / 255 - mean) / std
    expected = reference(pixel_values=pixels).last_hidden_state
    assert torch.allclose(encoder(some_images()), expected, atol=1e-5)


def test_statistics_are_those_of_the_official_image_processors():
    from transformers.image_utils import (
        IMAGENET_DEFAULT_MEAN,
        IMAGENET_DEFAULT_STD,
        IMAGENET_STANDARD_MEAN,
        IMAGENET_STANDARD_STD,
        OPENAI_CLIP_MEAN,
        OPENAI_CLIP_STD,
    )

    assert STATISTICS["clip_vision_model"] == (tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))
    assert STATISTICS["dinov2"] == (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD))
    for family in ("vit", "siglip_vision_model"):
        assert STATISTICS[family] == (tuple(IMAGENET_STANDARD_MEAN), tuple(IMAGENET_STANDARD_STD))


def test_the_vision_tower_of_a_two_tower_checkpoint_is_taken(tmp_path):
    torch.manual_seed(0)
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "vocab_size": 50,
    }
    clip = CLIPModel(CLIPConfig(vision_config=FAMILIES["clip_vision_model"], text_config=text)).eval()
    clip.save_pretrained(tmp_path)
    encoder = VisionTransformer(checkpoint=str(tmp_path), layer=-2).eval()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in STATISTICS["clip_vision_model"])
    pixels = (some_images().permute(0, 3, 1, 2) / 255 - mean) / std
    expected = clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    assert torch.allclose(encoder(some_images()), expected, atol=1e-5)


def test_a_resolved_node_rebuilds_the_same_shape_without_the_checkpoint(tmp_path):
    AutoModel.from_config(
        AutoConfig.for_model("siglip_vision_model", **FAMILIES["siglip_vision_model"])
    ).save_pretrained(tmp_path)
    encoder = VisionTransformer(checkpoint=str(tmp_path))
    node = encoder.resolved({"_target_": "x", "checkpoint": str(tmp_path), "layer": -1})
    assert "checkpoint" not in node
    copy = VisionTransformer(config=node["config"], layer=node["layer"])
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(copy.eval()(some_images()), encoder.eval()(some_images()))


@pytest.mark.parametrize("size, tokens", [(32, 4), (96, 36), (128, 64)])
def test_a_stem_of_four_stages_leaves_one_token_per_16_pixels_squared(size, tokens):
    stem = ConvolutionalStem((8, 16, 16, 24))
    assert stem(some_images(size=size)).shape == (2, tokens, 24) and stem.tokens(size, size) == tokens


def test_bytes_and_floats_are_the_same_picture():
    stem, images = ConvolutionalStem((8, 16)), some_images()
    assert torch.allclose(stem(images), stem(images.float() / 255), atol=1e-6)


@pytest.mark.parametrize(
    "connector, tokens",
    [(LinearConnector(24, 32), 9), (MLPConnector(24, 32), 9), (PerceiverResampler(24, 32, queries=5), 5)],
)
def test_connectors_give_the_tokens_they_promise(connector, tokens):
    assert connector(torch.randn(2, 9, 24)).shape == (2, tokens, 32) and connector.tokens(9) == tokens


def test_a_resampler_does_not_care_about_the_order_of_features():
    resampler, features = PerceiverResampler(24, 32), torch.randn(2, 9, 24)
    assert torch.allclose(resampler(features), resampler(features.flip(1)), atol=1e-5)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({}, "either a config or a checkpoint"),
        ({"config": {"model_type": "bert"}}, "none of clip_vision_model"),
        ({"checkpoint": "/nowhere"}, "no Hugging Face folder"),
    ],
)
def test_a_mistake_is_named(wrong, says):
    with pytest.raises(ValueError, match=says):
        VisionTransformer(**wrong)
