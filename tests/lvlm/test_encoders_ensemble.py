"""Several encoders at once: each sees its own pixels, fusions do what their papers say, and one member is no fusion."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional as F
from transformers import DeepseekVLHybridConfig, DeepseekVLHybridModel

from embodied.building import build
from embodied.lvlm.connectors.hybrid import HybridConnector
from embodied.lvlm.connectors.projection import LinearConnector
from embodied.lvlm.encoders.convnext import ConvNeXt
from embodied.lvlm.encoders.deepseek import DeepSeekHybrid
from embodied.lvlm.encoders.ensemble import ChannelConcat, TokenConcat
from embodied.lvlm.encoders.experts import PolyExpert
from embodied.lvlm.encoders.mining import DualResolution
from embodied.lvlm.encoders.multiscale import MultiScale
from embodied.lvlm.encoders.sam import SegmentAnything
from embodied.lvlm.encoders.vision import VisionTransformer

VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIGLIP = VIT | {"model_type": "siglip_vision_model", "intermediate_size": 64}
CLIP = VIT | {"model_type": "clip_vision_model", "intermediate_size": 64}
DINO = VIT | {"model_type": "dinov2", "image_size": 48, "hidden_size": 24}
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
SAM = {"hidden_size": 32, "output_channels": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_dim": 64}
SAM |= {"image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "num_pos_feats": 4}


def a_picture(width=50, height=41, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def random_weights(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def siglip():
    return VisionTransformer(SIGLIP)


def dino():
    return VisionTransformer(DINO)


def high(**options):
    return ConvNeXt(CONVNEXT, **({"stages": [0, 1], "image_size": 64} | options))


MAKE = {
    "channel": lambda: ChannelConcat([dino(), siglip()]),
    "tokens": lambda: TokenConcat([dino(), siglip()], width=16),
    "experts": lambda: PolyExpert([dino(), siglip()], width=16, patches=[3, 4]),
    "mining": lambda: DualResolution(siglip(), high()),
    "deepseek": lambda: DeepSeekHybrid(siglip(), SegmentAnything(SAM)),
}


def seen(ensemble, picture):
    return tuple(one(picture).unsqueeze(0) for one in ensemble.preprocess)


@pytest.mark.parametrize("name", MAKE)
def test_one_tensor_per_member_and_as_many_features_as_promised(name):
    ensemble = random_weights(MAKE[name]())
    pixels = seen(ensemble, a_picture())
    assert len(pixels) == 2 and pixels[0].shape != pixels[1].shape
    features = ensemble.encode(pixels)
    assert features.shape == (1, ensemble.tokens(41, 50), ensemble.dim)
    rows, columns = ensemble.grid(41, 50)
    assert rows * columns == features.shape[1]
    images = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)  # robots' cameras, one size for all
    assert ensemble(images).shape == (2, *features.shape[1:])
    with pytest.raises(ValueError, match="reads 2 pixel tensors per picture, got 1"):
        ensemble.encode(pixels[0])
    with torch.device("meta"):
        assert next(MAKE[name]().parameters()).is_meta
    ensemble.train().encode(pixels).square().sum().backward()
    fusion = [p for n, p in ensemble.named_parameters() if not n.startswith("members.")]
    assert all(p.grad is not None for p in fusion)


@pytest.mark.parametrize("name", MAKE)
def test_cameras_are_normalised_for_each_member(name):
    ensemble = random_weights(MAKE[name]())
    images = torch.rand(1, 48, 48, 3)
    pixels = images.permute(0, 3, 1, 2)
    statistics = [(one.mean, one.std) for one in ensemble.preprocess]
    apart = tuple((pixels - torch.tensor(m).view(3, 1, 1)) / torch.tensor(s).view(3, 1, 1) for m, s in statistics)
    torch.testing.assert_close(ensemble(images), ensemble.encode(apart), atol=1e-5, rtol=0)


def test_channels_are_those_of_the_members_on_one_grid():
    ensemble = random_weights(ChannelConcat([dino(), siglip()], onto=1))
    pixels = seen(ensemble, a_picture())
    first, second = (m.encode(p) for m, p in zip(ensemble.members, pixels, strict=True))
    onto = F.interpolate(first.transpose(1, 2).reshape(1, 24, 6, 6), (4, 4), mode="bilinear", align_corners=False)
    expected = torch.cat([onto.flatten(2).transpose(1, 2), second], -1)
    assert torch.equal(ensemble.encode(pixels), expected) and ensemble.grid(1, 1) == (4, 4)
    equal = random_weights(ChannelConcat([VisionTransformer(DINO | {"image_size": 32}), siglip()]))  # Cobra
    pixels = seen(equal, a_picture())
    parts = [m.encode(p) for m, p in zip(equal.members, pixels, strict=True)]
    assert torch.equal(equal.encode(pixels), torch.cat(parts, -1))


def test_tokens_follow_one_another():
    ensemble = random_weights(TokenConcat([siglip(), VisionTransformer(CLIP)]))
    pixels = seen(ensemble, a_picture())
    parts = [m.encode(p) for m, p in zip(ensemble.members, pixels, strict=True)]
    assert torch.equal(ensemble.encode(pixels), torch.cat(parts, 1)) and ensemble.grid(1, 1) == (1, 32)


@pytest.mark.parametrize("fusion", [ChannelConcat, TokenConcat])
def test_one_member_is_no_fusion(fusion):
    ensemble = random_weights(fusion([siglip()]))
    (pixels,) = seen(ensemble, a_picture())
    assert torch.equal(ensemble.encode((pixels,)), ensemble.members[0].encode(pixels))
    assert torch.equal(ensemble.encode(pixels), ensemble.members[0].encode(pixels))
    images = torch.rand(1, 32, 32, 3)
    assert torch.equal(ensemble(images), ensemble.members[0](images)) and ensemble.grid(32, 32) == (4, 4)


def test_an_ensemble_may_be_a_member():
    inner = ChannelConcat([siglip(), dino()])
    nested = random_weights(ChannelConcat([high(), inner], onto=1))
    pixels = seen(nested, a_picture())
    assert len(pixels) == 3
    expected = inner.encode(pixels[1:])
    assert torch.equal(nested.encode(pixels)[..., -inner.dim :], expected)


def test_a_picture_for_several_scales_is_cut_as_for_one():
    one, scales = dino().preprocess[0], MultiScale(dino(), [1, 2]).preprocess[0]
    assert (scales.size, scales.short) == ((96, 96), 2 * one.short)


def test_one_expert_with_the_shared_layer_is_an_mlp():
    expert, shared = random_weights(PolyExpert([siglip()], 16, patches=4)), LinearConnector(16, 16)
    (pixels,) = seen(expert, a_picture())
    features = expert.members[0].encode(pixels)
    mlp = torch.nn.Sequential(expert.project[0], torch.nn.GELU(), shared.net)
    joined = torch.stack([features[:, 4 * i : 4 * i + 4].flatten(1) for i in range(4)], 1)
    assert torch.equal(shared(expert.encode(pixels)), mlp(joined)) and expert.grid(1, 1) == (1, 4)


def test_a_token_mines_its_own_region_and_no_other():
    ensemble = random_weights(DualResolution(siglip(), high()))
    low, fine = torch.randn(1, 16, 32), torch.randn(1, 256, 24)
    found = ensemble.fuse([low, fine], [(4, 4), (16, 16)])
    for token in (0, 6, 15):  # by hand: rows and columns of the finer grid below this token
        row, column = divmod(token, 4)
        region = fine.view(16, 16, 24)[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(16, 24)
        scores = ensemble.key(region) @ ensemble.query(low[0, token]) / 32**0.5
        expected = low[0, token] + scores.softmax(0) @ ensemble.value(region)
        torch.testing.assert_close(found[0, token], expected, atol=1e-5, rtol=0)
    changed = fine.clone()
    changed.view(16, 16, 24)[5, 9] = torch.randn(24)
    moved = (ensemble.fuse([low, changed], [(4, 4), (16, 16)]) != found).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [6]


def test_mining_that_finds_nothing_leaves_the_low_resolution_alone():
    ensemble = random_weights(DualResolution(siglip(), high()))
    torch.nn.init.zeros_(ensemble.value[1].weight)
    torch.nn.init.zeros_(ensemble.value[1].bias)
    pixels = seen(ensemble, a_picture())
    assert torch.equal(ensemble.encode(pixels), ensemble.members[0].encode(pixels[0]))


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory):
    text = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "vocab_size": 40}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = DeepseekVLHybridConfig(
        text_config=text, vision_config=SIGLIP, high_res_vision_config=SAM | {"model_type": "sam_vision_model"}
    )
    model, folder = random_weights(DeepseekVLHybridModel(config)), tmp_path_factory.mktemp("deepseek")
    model.save_pretrained(folder, max_shard_size="40KB")
    return model, str(folder)


@pytest.mark.parametrize("shape", [(50, 41), (20, 90), (64, 64)])
def test_deepseeks_hybrid_equals_transformers_from_the_picture_on(deepseek, shape):
    model, folder = deepseek
    hybrid = DeepSeekHybrid(VisionTransformer(checkpoint=folder), SegmentAnything(checkpoint=folder), folder).eval()
    official = transformers.DeepseekVLHybridImageProcessorPil(
        size={"height": 32, "width": 32}, high_res_size={"height": 64, "width": 64}
    )
    batch = official(a_picture(*shape), return_tensors="pt")
    pixels = seen(hybrid, a_picture(*shape))
    for ours, theirs in zip(pixels, (batch.pixel_values, batch.high_res_pixel_values), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    connector = HybridConnector(hybrid.dim, 32, hybrid.detailed)
    connector.load_state_dict(model.aligner.state_dict())
    expected = model.get_image_features(batch.pixel_values, batch.high_res_pixel_values).pooler_output
    torch.testing.assert_close(connector(hybrid.encode(pixels)), expected, atol=1e-5, rtol=0)


NODES = {
    "channel": {"_target_": "ensemble.ChannelConcat", "members": [SIGLIP, CLIP], "onto": 1},
    "tokens": {"_target_": "ensemble.TokenConcat", "members": [SIGLIP, CLIP], "width": 8},
    "experts": {"_target_": "experts.PolyExpert", "members": [SIGLIP, CLIP], "width": 8, "patches": 4},
    "mining": {"_target_": "mining.DualResolution", "low": SIGLIP, "high": CLIP},
}


@pytest.mark.parametrize("name", NODES)
def test_members_from_folders_resolve_to_what_rebuilds_the_ensemble(name, tmp_path):
    def member(config, folder=None):
        node = {"_target_": "embodied.lvlm.encoders.vision.VisionTransformer"}
        if folder is None:
            return node | {"config": config}
        VisionTransformer(config).model.save_pretrained(folder)
        return node | {"checkpoint": str(folder)}

    node = NODES[name] | {"_target_": "embodied.lvlm.encoders." + NODES[name]["_target_"]}
    if "members" in node:
        node["members"] = [member(config, tmp_path / str(i)) for i, config in enumerate(node["members"])]
    else:
        node |= {key: member(node[key], tmp_path / key) for key in ("low", "high")}
    ensemble = build(node).eval()
    resolved = json.loads(json.dumps(ensemble.resolved(node)))
    assert "checkpoint" not in json.dumps(resolved)
    again = build(resolved).eval()
    again.load_state_dict(ensemble.state_dict())
    pixels = seen(ensemble, a_picture())
    assert torch.equal(again.encode(pixels), ensemble.encode(pixels))


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: ChannelConcat([]), "at least one member"),
        (lambda: ChannelConcat([siglip()], onto=1), "onto=1 is none of the members 0 to 0"),
        (lambda: TokenConcat([dino(), siglip()]), "widths \\[24, 32\\] need a common width"),
        (lambda: PolyExpert([siglip()], 8, [1, 2]), "not one positive number for each member"),
        (lambda: PolyExpert([siglip()], 8, 3).encode(torch.zeros(1, 3, 32, 32)), "do not divide 16 features"),
        (
            lambda: DualResolution(siglip(), high(image_size=40)).encode((torch.zeros(1, 3, 32, 32),) * 2),
            "is no multiple of 4 x 4",
        ),
        (lambda: DeepSeekHybrid(siglip(), high()), "high a SegmentAnything"),
        (lambda: DeepSeekHybrid(siglip(), SegmentAnything(SAM | {"global_attn_indexes": []})), "it has none"),
    ],
)
def test_a_mistake_is_one_line(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()


def test_a_class_token_makes_no_grid():
    ensemble = ChannelConcat([siglip(), VisionTransformer(CLIP, keep_class_token=True)])
    with pytest.raises(ValueError, match="makes no grid"):
        ensemble(torch.rand(1, 32, 32, 3))


def test_a_folder_without_the_hybrids_modules_is_refused(tmp_path):
    siglip().model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no weights of a high_res_vision_neck"):
        DeepSeekHybrid(siglip(), SegmentAnything(SAM), checkpoint=str(tmp_path))
