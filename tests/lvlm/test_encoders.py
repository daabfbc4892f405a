"""Encoders and connectors: shapes, and the vision transformers equal transformers' own pipeline."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, CLIPConfig, CLIPModel

from embodied.lvlm.connectors.keypoints import Keypoints
from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector
from embodied.lvlm.connectors.resampler import PerceiverResampler
from embodied.lvlm.encoders.convolution import ConvolutionalStem
from embodied.lvlm.encoders.vision import FAMILIES as ALL
from embodied.lvlm.encoders.vision import VisionTransformer

SIZE = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, dict[str, int]] = {
    name: SIZE | ({"mlp_ratio": 2} if name == "dinov2" else {"intermediate_size": 64})
    for name in ("clip_vision_model", "siglip_vision_model", "dinov2", "vit")
}
STATISTICS = {name: family.statistics for name, family in ALL.items()}


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
    [
        (LinearConnector(24, 32), 9),
        (MLPConnector(24, 32), 9),
        (PerceiverResampler(24, 32, queries=5), 5),
        (Keypoints(24, 32, keypoints=12, tokens=4), 4),
        (Keypoints(24, 32, keypoints=6, tokens=3, look=0), 3),
    ],
)
def test_connectors_give_the_tokens_they_promise(connector, tokens):
    assert connector(torch.randn(2, 9, 24)).shape == (2, tokens, 32) and connector.tokens(9) == tokens


def test_keypoints_are_the_mean_position_of_a_softmax_over_the_grid():
    connector, features = Keypoints(24, 32, keypoints=8, tokens=2, columns=5), torch.randn(2, 15, 24)
    weights = torch.nn.functional.softmax(connector.maps(features), dim=1).detach().numpy()
    x, y = (np.arange(5) + 0.5) / 5 * 2 - 1, (np.arange(3) + 0.5) / 3 * 2 - 1
    expected = np.zeros((2, 8, 2))
    for row in range(3):
        for column in range(5):
            expected += weights[:, row * 5 + column, :, None] * np.array([x[column], y[row]])
    found = connector.positions(connector.maps(features).softmax(1)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_keypoints_follow_what_moves():
    torch.manual_seed(1)  # with other weights, no point may look at the thing
    connector = Keypoints(8, 16, keypoints=4, tokens=2)
    scene = torch.zeros(1, 6, 6, 8)
    scene[0, 2, 1] = 1000 * torch.randn(8)
    moved = scene.roll((1, 2), dims=(1, 2))
    before, after = (connector.positions(connector.maps(s.flatten(1, 2)).softmax(1)) for s in (scene, moved))
    seen = connector.maps(scene.flatten(1, 2))[0].argmax(0) == 13  # the points that look at the thing
    assert seen.any()
    torch.testing.assert_close(
        (after - before)[0, seen], torch.tensor([[2 / 3, 1 / 3]]).expand(int(seen.sum()), 2), atol=2e-2, rtol=0
    )


@pytest.mark.parametrize(
    "arguments, features, says",
    [
        ({"keypoints": 10, "tokens": 4}, 9, "4 tokens do not share 10 keypoints evenly"),
        ({"look": -1}, 9, "sizes are positive"),
        ({}, 8, "8 features are no grid"),
        ({"columns": 4}, 9, "9 features are no grid of 4 columns"),
    ],
)
def test_keypoints_say_what_does_not_fit(arguments, features, says):
    with pytest.raises(ValueError, match=says):
        Keypoints(24, 32, **arguments)(torch.randn(1, features, 24))


def test_residual_blocks_add_to_the_grid_they_stand_behind():
    plain, deep = ConvolutionalStem((8, 16), patch=4), ConvolutionalStem((8, 16), patch=4, blocks=2)
    for block in list(deep.stages)[-4:-2]:
        torch.nn.init.zeros_(block.net[-1].weight)
        torch.nn.init.zeros_(block.net[-1].bias)
    names = zip(deep.stages[:-4].state_dict(), plain.stages[:-2].state_dict().values(), strict=True)
    deep.stages[:-4].load_state_dict(dict(names))
    deep.position.load_state_dict(plain.position.state_dict())
    assert torch.equal(plain(some_images()), deep(some_images()))
    torch.nn.init.ones_(deep.stages[-3].net[-1].weight)
    assert not torch.equal(plain(some_images()), deep(some_images()))
    with pytest.raises(ValueError, match="must not be negative"):
        ConvolutionalStem((8, 16), blocks=-1)


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
