"""EVA and NFNet, which transformers lacks, equal what it has of them; the rest is checked by hand or by a property."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Blip2VisionConfig, Blip2VisionModel
from transformers.models.bit.modeling_bit import WeightStandardizedConv2d

from embodied.building import build
from embodied.lvlm.encoders.cogvlm import CogVLMVision
from embodied.lvlm.encoders.eva import EVA, rotations, turned
from embodied.lvlm.encoders.nfnet import NFNet, StandardConv, activated

SMALL = {"image_size": 32, "patch": 8, "width": 32, "depth": 2, "heads": 4, "hidden": 64}
TINY = {"depths": [1, 2, 1, 1], "widths": [32, 32, 64, 64], "group": 16, "final": 24, "image_size": 64}


def random_weights(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def from_blip(state):
    """BLIP-2's names and its joint queries, keys and values, as EVA's."""
    renamed = {
        "patches.weight": state["embeddings.patch_embedding.weight"],
        "patches.bias": state["embeddings.patch_embedding.bias"],
        "class_token": state["embeddings.class_embedding"],
        "position": state["embeddings.position_embedding"],
        "norm.weight": state["post_layernorm.weight"],
        "norm.bias": state["post_layernorm.bias"],
    }
    for i in range(2):
        theirs, ours = f"encoder.layers.{i}.", f"layers.{i}."
        for name, part in zip("qkv", state[theirs + "self_attn.qkv.weight"].chunk(3), strict=True):
            renamed[f"{ours}{name}.weight"] = part
        for name, part in zip("qkv", state[theirs + "self_attn.qkv.bias"].chunk(3), strict=True):
            renamed[f"{ours}{name}.bias"] = part
        del renamed[f"{ours}k.bias"]
        pairs = {"norm_attention": "layer_norm1", "norm_feed": "layer_norm2", "out": "self_attn.projection"}
        for name, other in (pairs | {"feed.0": "mlp.fc1", "feed.2": "mlp.fc2"}).items():
            for kind in ("weight", "bias"):
                renamed[f"{ours}{name}.{kind}"] = state[f"{theirs}{other}.{kind}"]
    return renamed


@pytest.mark.parametrize("size", [32, 48])
def test_with_norms_before_it_is_blip2s_eva_clip_also_at_another_resolution(size):
    reference = random_weights(
        Blip2VisionModel(
            Blip2VisionConfig(
                image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=64,
            )
        )
    )  # fmt: skip
    for layer in reference.encoder.layers:
        layer.self_attn.qkv.bias.data[32:64] = 0  # keys have no bias in any released EVA
    encoder = EVA(**SMALL | {"image_size": size}, norm="pre", final_norm=True, keep_class_token=True).eval()
    encoder.load_state_dict(from_blip(reference.state_dict()))
    pixels = torch.randn(2, 3, size, size)
    expected = reference(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(encoder.encode(pixels), expected, atol=1e-5, rtol=0)


def test_with_norms_behind_a_layer_adds_normed_branches():
    encoder = random_weights(EVA(**SMALL | {"depth": 1}, norm="post", keep_class_token=True))
    (layer,) = encoder.layers
    attention = nn.MultiheadAttention(32, 4, batch_first=True)  # torch's own
    attention.in_proj_weight.data = torch.cat([layer.q.weight, layer.k.weight, layer.v.weight])
    attention.in_proj_bias.data = torch.cat([layer.q.bias, torch.zeros(32), layer.v.bias])
    attention.out_proj.load_state_dict(layer.out.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    x = torch.cat([encoder.class_token.expand(2, -1, -1), encoder.patches(pixels).flatten(2).mT], 1) + encoder.position
    x = x + layer.norm_attention(attention(x, x, x, need_weights=False)[0])
    x = x + layer.norm_feed(layer.feed[2](torch.nn.functional.gelu(layer.feed[0](x))))
    torch.testing.assert_close(encoder.encode(pixels), x, atol=1e-5, rtol=0)


def cogvlm(folder, **drop):
    """A folder as CogVLM's: its names and shapes, in two files; and what it computes, with torch's own attention."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4}
    sizes |= {"intermediate_size": 64, "layer_norm_eps": 1e-6, "num_positions": 17, "in_channels": 3}
    (folder / "config.json").write_text(json.dumps({"model_type": "cogvlm", "vision_config": sizes | drop}))
    embedding = "model.vision.patch_embedding."
    state = {
        f"{embedding}cls_embedding": torch.randn(1, 32),
        f"{embedding}position_embedding.weight": torch.randn(17, 32),
    }
    state |= {f"{embedding}proj.{name}": value for name, value in nn.Conv2d(3, 32, 8, 8).state_dict().items()}
    for i in range(2):
        shapes = {
            "attention.query_key_value": (32, 96),
            "attention.dense": (32, 32),
            "mlp.fc1": (32, 64),
            "mlp.fc2": (64, 32),
        }
        parts = {name: nn.Linear(*shape) for name, shape in shapes.items()}
        parts |= {name: nn.LayerNorm(32) for name in ("input_layernorm", "post_attention_layernorm")}
        layer = f"model.vision.transformer.layers.{i}."
        state |= {
            f"{layer}{n}.{k}": torch.randn_like(v) * 0.2 for n, m in parts.items() for k, v in m.state_dict().items()
        }
    names = sorted(state)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in files.items():
        save_file({name: state[name].contiguous() for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def compute(pixels):
        patches = nn.functional.conv2d(pixels, state[f"{embedding}proj.weight"], state[f"{embedding}proj.bias"], 8)
        x = torch.cat([state[f"{embedding}cls_embedding"].expand(len(pixels), 1, 32), patches.flatten(2).mT], 1)
        x = x + state[f"{embedding}position_embedding.weight"]
        for i in range(2):
            part = {n.split(f"layers.{i}.")[1]: v for n, v in state.items() if f"layers.{i}." in n}
            attention = nn.MultiheadAttention(32, 4, batch_first=True)
            attention.in_proj_weight.data = part["attention.query_key_value.weight"]
            attention.in_proj_bias.data = part["attention.query_key_value.bias"]
            attention.out_proj.weight.data = part["attention.dense.weight"]
            attention.out_proj.bias.data = part["attention.dense.bias"]
            norms = [(part[f"{n}.weight"], part[f"{n}.bias"]) for n in ("input_layernorm", "post_attention_layernorm")]
            x = x + nn.functional.layer_norm(attention(x, x, x)[0], (32,), *norms[0], eps=1e-6)
            inner = nn.functional.gelu(nn.functional.linear(x, part["mlp.fc1.weight"], part["mlp.fc1.bias"]))
            inner = nn.functional.linear(inner, part["mlp.fc2.weight"], part["mlp.fc2.bias"])
            x = x + nn.functional.layer_norm(inner, (32,), *norms[1], eps=1e-6)
        return x[:, 1:]

    return compute


def test_the_eyes_of_a_cogvlm_are_read_from_its_folder(tmp_path):
    compute, pixels = cogvlm(tmp_path), torch.randn(2, 3, 32, 32)
    encoder = CogVLMVision(str(tmp_path)).eval()
    torch.testing.assert_close(encoder.encode(pixels), compute(pixels), atol=1e-5, rtol=0)
    node = encoder.resolved({"_target_": "x", "checkpoint": str(tmp_path), "fit": "pad"})
    again = build(json.loads(json.dumps(node))).eval()
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.encode(pixels), encoder.encode(pixels)) and again.fit == "pad"


def test_a_folder_that_is_no_cogvlms_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="has no vision_config of a CogVLM"):
        CogVLMVision(str(tmp_path))
    cogvlm(tmp_path, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"lacks weights of the encoder: .*layers\.2") as caught:
        CogVLMVision(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_rotary_attention_knows_how_far_apart_patches_are_and_not_where():
    cosine, sine = rotations(5, 8, 1.0, torch.device("cpu"))
    q, k = torch.randn(2, 1, 1, 1, 8).expand(-1, 1, 1, 26, 8)
    scores = (turned(q, cosine, sine) @ turned(k, cosine, sine).mT)[0, 0, 1:, 1:].view(5, 5, 5, 5)
    torch.testing.assert_close(scores[0, 0, 1, 2], scores[3, 2, 4, 4])
    torch.testing.assert_close(scores[2, 3, 0, 1], scores[4, 2, 2, 0])
    assert not torch.allclose(scores[0, 0, 1, 2], scores[0, 0, 2, 1], atol=1e-3)
    assert torch.equal(turned(q, cosine, sine)[:, :, :1], q[:, :, :1])  # the class token has no place


def test_rotary_positions_of_a_finer_grid_lie_between_those_trained_on():
    coarse, fine = (rotations(n, 8, scale, torch.device("cpu"))[0].view(n, n, 8) for n, scale in ((4, 1.0), (8, 2.0)))
    torch.testing.assert_close(fine[::2, ::2], coarse)


@pytest.mark.parametrize("options", [{"norm": "post"}, {"norm": "pre", "rotary": True, "feed_forward": "swiglu"}])
def test_eva_gives_what_it_promises_and_learns(options):
    encoder = EVA(**SMALL, **options, attention_norm=True)
    features = encoder(torch.rand(2, 40, 40, 3))
    assert features.shape == (2, encoder.tokens(40, 40), encoder.dim) and encoder.grid(40, 40) == (4, 4)
    features.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    with torch.device("meta"):
        assert EVA(**SMALL, **options).position.is_meta


def test_weights_are_standardised_as_bits_are_and_scaled_to_keep_variance():
    ours, theirs = StandardConv(16, 8, 3, groups=2), WeightStandardizedConv2d(16, 8, 3, padding=1, groups=2, eps=1e-12)
    theirs.weight.data = ours.weight.data
    x = torch.randn(2, 16, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x) / (8 * 9) ** 0.5, atol=1e-5, rtol=0)  # 8 channels x 3 x 3
    deep = torch.randn(64, 256, 8, 8)
    assert abs(StandardConv(256, 256, 1)(activated(deep) - activated(deep).mean()).var().item() - 1) < 0.1


@pytest.mark.parametrize("length", [7, 8])
def test_strided_padding_is_tensorflows(length):
    conv = StandardConv(3, 4, 3, stride=2)
    after = (length // 2 - (length + 1) // 2 + 1, 1)  # even lengths are padded at the end alone
    x = nn.functional.pad(torch.randn(1, 3, length, length), (0, 0, 0, 0))
    by_hand = nn.functional.pad(x, (1 - after[0], 1, 1 - after[0], 1) if length % 2 == 0 else (1, 1, 1, 1))
    expected = nn.functional.conv2d(by_hand, conv.standardised(), conv.bias, 2)
    assert torch.equal(conv(x), expected) and conv(x).shape[-1] == (length + 1) // 2


def test_a_block_begins_as_its_shortcut():
    network = NFNet(**TINY)
    block, x = network.blocks[2], torch.randn(1, 32, 8, 8)
    assert torch.equal(block(x), x) and block.shortcut is None
    block.skip_gain.data.fill_(1)
    assert not torch.equal(block(x), x)


def test_branches_see_unit_variance_although_the_trunk_grows():
    torch.manual_seed(0)
    network = NFNet(depths=[10], widths=[128], stem=16, group=32, final=0, image_size=64)
    trunk, branches = [], []
    for block in network.blocks:
        block.skip_gain.data.fill_(1)
        block.register_forward_pre_hook(lambda _, given: trunk.append(given[0].var().item()))
        block.convs[0].register_forward_pre_hook(lambda _, given: branches.append(given[0].var().item()))
    network.encode(torch.randn(8, 3, 64, 64))
    assert len(branches) == 10 and all(0.85 < variance < 1.15 for variance in branches[1:]), branches
    assert trunk[-1] > 1.15 * trunk[1]


@pytest.mark.parametrize("size", [64, 96])
def test_nfnet_gives_what_it_promises_and_learns(size):
    network = NFNet(**TINY | {"image_size": size})
    features = network(torch.rand(2, 40, 40, 3))
    assert features.shape == (2, network.tokens(40, 40), 24) and network.grid(40, 40) == (size // 32, size // 32)
    features.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    native = NFNet(**TINY | {"final": 0}, fit="native")
    assert native.encode(torch.randn(1, 3, 70, 100)).shape == (1, native.tokens(70, 100), 64)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: EVA(**SMALL | {"patch": 7}), "patch 7 divides image_size 32"),
        (lambda: EVA(**SMALL | {"heads": 5}), "5 heads width 32"),
        (lambda: EVA(**SMALL | {"heads": 16}, rotary=True), "multiple of 4 channels, got 2"),
        (lambda: EVA(**SMALL, norm="both"), "norm is pre or post"),
        (lambda: EVA(**SMALL, fit="native"), "fit cannot be native"),
        (lambda: EVA(**SMALL, fit="stretch"), "fit is one of"),
        (lambda: NFNet(**TINY | {"depths": [1, 2]}), "one depth of at least 1 per width"),
        (lambda: NFNet(**TINY | {"group": 24}), "groups of 24 channels do not divide"),
        (lambda: NFNet(**TINY | {"image_size": 16}), "leaves no map"),
    ],
)
def test_a_mistake_is_one_line(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()
