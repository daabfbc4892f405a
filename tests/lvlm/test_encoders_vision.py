"""Vision transformers equal transformers' own, from the picture on: preprocessing, layers, positions, folders."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional as F
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration

from embodied.lvlm.encoders.base import Preprocess
from embodied.lvlm.encoders.vision import FAMILIES, VisionTransformer

SIZE = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
CONFIGS = {
    name: {"model_type": name} | SIZE | ({} if "dinov2" in name else {"intermediate_size": 64}) for name in FAMILIES
}
SPECIAL = {n: int(f.class_token) + 4 * ("registers" in n) for n, f in FAMILIES.items()}
PROCESSORS = {
    "clip_vision_model": ("CLIPImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": 32}),
    "siglip_vision_model": ("SiglipImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    "dinov2": ("BitImageProcessorPil", {"size": {"shortest_edge": 37}, "crop_size": 32}),
    "vit": ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    "internvl_vision": ("GotOcr2ImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    "blip_2_vision_model": ("BlipImageProcessorPil", {"size": {"height": 32, "width": 32}}),
}
"""DINOv2 is preprocessed by Bit's processor, InternVL by GotOcr2's; statistics as their checkpoints give them."""
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
GIVEN = {"dinov2": IMAGENET, "internvl_vision": IMAGENET}


def a_picture(width=50, height=41, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def random_weights(module, seed=0):
    """Initial weights are often zero or tiny, where a mistake would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def an_encoder(family, **options):
    return random_weights(VisionTransformer(CONFIGS[family], **options))


def reference(family, encoder):
    """transformers' own class with the encoder's weights."""
    settings = {key: value for key, value in CONFIGS[family].items() if key != "model_type"}
    cls = getattr(transformers, FAMILIES[family].model)
    model = cls(cls.config_class(**settings, **({"mask_ratio": 0.0} if family == "vit_mae" else {}))).eval()
    model.load_state_dict(encoder.model.state_dict())
    return model


def order(family, pixels):
    """What else MAE wants: noise that leaves its patches in order."""
    count = (pixels.shape[-2] // 8) * (pixels.shape[-1] // 8)
    return {"noise": torch.linspace(0, 1, count).expand(len(pixels), -1)} if family == "vit_mae" else {}


@pytest.mark.parametrize("family", PROCESSORS)
@pytest.mark.parametrize("shape", [(50, 41), (33, 70), (32, 32)])
def test_a_picture_becomes_the_pixels_of_the_official_processor(family, shape):
    (preprocess,), picture = an_encoder(family).preprocess, a_picture(*shape)
    name, options = PROCESSORS[family]
    official = getattr(transformers, name)(**options, **GIVEN.get(family, {}))
    expected = official(picture, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(preprocess(picture), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", CONFIGS)
def test_features_equal_transformers_to_the_bit(family):
    encoder, pixels = an_encoder(family), torch.randn(2, 3, 32, 32)
    expected = reference(family, encoder)(pixel_values=pixels, **order(family, pixels)).last_hidden_state
    features = encoder.encode(pixels)
    assert torch.equal(features, expected[:, SPECIAL[family] :])
    assert features.shape == (2, encoder.tokens(32, 32), encoder.dim) and encoder.grid(32, 32) == (4, 4)


@pytest.mark.parametrize("family", CONFIGS)
def test_any_layers_are_read_and_joined_by_channel(family):
    encoder, pixels = an_encoder(family, layer=[-2, 1], keep_class_token=True), torch.randn(1, 3, 32, 32)
    model = reference(family, encoder)
    states = model(pixel_values=pixels, output_hidden_states=True, **order(family, pixels)).hidden_states
    kept = [0] if SPECIAL[family] else []
    wanted = torch.cat([states[-2], states[1]], -1)[:, [*kept, *range(SPECIAL[family], states[0].shape[1])]]
    assert torch.equal(encoder.encode(pixels), wanted)
    assert encoder.dim == 64 and encoder.tokens(32, 32) == 16 + len(kept)
    assert encoder.grid(32, 32) == ((1, 17) if kept else (4, 4))


@pytest.mark.parametrize("family", CONFIGS)
def test_the_final_norm_is_applied_or_not_as_asked(family):
    pixels, raw, normed = torch.randn(1, 3, 32, 32), an_encoder(family, norm=False), an_encoder(family, norm=True)
    seen = []
    norm = getattr(raw.model, FAMILIES[family].norm)
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = raw.encode(pixels)
    if family != "clip_vision_model":  # whose own forward norms the class token alone
        assert torch.equal(found, seen[0][:, SPECIAL[family] :])
    torch.testing.assert_close(normed.encode(pixels), norm(found), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", [name for name in CONFIGS if not name.startswith("aimv2")])  # which cannot
def test_positions_are_interpolated_to_another_resolution(family):
    encoder, pixels = an_encoder(family, image_size=48, fit="squash"), torch.randn(1, 3, 48, 48)
    flag = {"interpolate_pos_encoding": True} if FAMILIES[family].flag else {}
    expected = reference(family, encoder)(pixel_values=pixels, **flag, **order(family, pixels)).last_hidden_state
    assert torch.equal(encoder.encode(pixels), expected[:, SPECIAL[family] :])
    assert encoder.grid(48, 48) == (6, 6) and encoder.preprocess[0].size == (48, 48)
    position = next(p for n, p in encoder.model.named_parameters() if "position_embedding" in n)
    grid = position.detach().reshape(-1, 32)[-16:].T.reshape(1, 32, 4, 4)
    plain = F.interpolate(grid, (6, 6), mode="bicubic", antialias="registers" in family)
    wide = random_weights(VisionTransformer(CONFIGS[family] | {"image_size": 48}))
    state = {n: v for n, v in encoder.model.state_dict().items() if v.shape == wide.model.state_dict()[n].shape}
    wide.model.load_state_dict(state, strict=False)
    with torch.no_grad():
        target = next(p for n, p in wide.model.named_parameters() if "position_embedding" in n)
        first = position.detach().reshape(-1, 32)[:-16]
        target.copy_(torch.cat([first, plain.reshape(32, -1).T]).view_as(target))
    torch.testing.assert_close(wide.encode(pixels), encoder.encode(pixels), atol=1e-5, rtol=0)


def test_native_takes_any_size():
    encoder = an_encoder("siglip_vision_model", fit="native")
    pixels = encoder.preprocess[0](a_picture(56, 24)).unsqueeze(0)
    assert encoder.encode(pixels).shape == (1, 21, 32) and encoder.grid(24, 56) == (3, 7)
    assert encoder.tokens(24, 56) == 21
    assert encoder.encode(torch.zeros(1, 3, 30, 50)).shape == (1, encoder.tokens(30, 50), 32) == (1, 18, 32)
    with pytest.raises(ValueError, match="smaller than the patch"):
        encoder.encode(torch.zeros(1, 3, 24, 5))


def test_mae_sees_every_patch_in_its_place():
    encoder, pixels = an_encoder("vit_mae"), torch.randn(1, 3, 32, 32)
    assert torch.equal(encoder.encode(pixels), encoder.encode(pixels))  # MAE itself shuffles anew each time
    changed = pixels.clone()
    changed[..., 24:, 24:] += 1
    embeddings = an_encoder("vit_mae", layer=0)
    moved = (embeddings.encode(changed) != embeddings.encode(pixels)).any(-1)[0]
    assert moved.nonzero().flatten().tolist() == [15]


@pytest.mark.parametrize("family", CONFIGS)
def test_saved_in_several_files_it_loads_and_resolves_to_what_rebuilds_it(family, tmp_path):
    encoder, pixels = an_encoder(family), torch.randn(1, 3, 32, 32)
    encoder.model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = VisionTransformer(checkpoint=str(tmp_path))
    assert torch.equal(loaded.encode(pixels), encoder.encode(pixels))
    node = loaded.resolved({"checkpoint": str(tmp_path), "layer": -1})
    again = VisionTransformer(**json.loads(json.dumps(node)))
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(again.eval().encode(pixels), encoder.encode(pixels))


@pytest.fixture
def llava():
    text = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "vocab_size": 40}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = LlavaConfig(
        vision_config=CONFIGS["clip_vision_model"], text_config=AutoConfig.for_model(**text), image_token_index=3
    )
    return random_weights(LlavaForConditionalGeneration(config))


def test_the_tower_of_a_larger_model_is_read_without_the_rest(llava, tmp_path):
    llava.save_pretrained(tmp_path, max_shard_size="30KB")
    for file in tmp_path.glob("*.safetensors"):  # the language model's files are not even opened
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            if not any("vision" in name for name in opened.keys()):  # noqa: SIM118
                file.write_bytes(b"not read")
    encoder, pixels = VisionTransformer(checkpoint=str(tmp_path), layer=-2), torch.randn(1, 3, 32, 32)
    states = llava.model.vision_tower(pixel_values=pixels, output_hidden_states=True).hidden_states
    assert torch.equal(encoder.encode(pixels), states[-2][:, 1:])


def test_a_family_that_pads_or_squashes_is_one_word_away():
    picture = a_picture(50, 20)
    assert an_encoder("clip_vision_model", fit="pad").preprocess[0](picture).shape == (3, 32, 32)
    wide = an_encoder("clip_vision_model", image_size=[24, 48], fit="squash")
    assert wide.preprocess[0](picture).shape == (3, 24, 48)
    assert wide.encode(wide.preprocess[0](picture).unsqueeze(0)).shape == (1, 18, 32)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"config": CONFIGS["vit"] | {"patchsize": 4}}, "no setting 'patchsize'; did you mean 'patch_size'"),
        ({"config": CONFIGS["clip_vision_model"] | {"num_attention_heads": 5}}, "cannot build this clip_vision_model"),
        ({"config": CONFIGS["vit"] | {"hidden_size": "wide"}}, "cannot build this vit"),
        ({"config": CONFIGS["vit"], "layer": 4}, "layer 4 is not between -4 and 3"),
        ({"config": CONFIGS["vit"], "layer": []}, "layer"),
        ({"config": CONFIGS["vit"], "image_size": 6}, "smaller than the patch"),
        ({"config": CONFIGS["vit"], "fit": "stretch"}, "fit is one of"),
    ],
)
def test_a_mistake_is_one_line(wrong, says):
    with pytest.raises(ValueError, match=says) as caught:
        VisionTransformer(**wrong)
    assert "\n" not in str(caught.value)


def damaged(folder, how):
    an_encoder("clip_vision_model").model.save_pretrained(folder)
    file = folder / "model.safetensors"
    if how == "no weights":
        file.unlink()
    elif how == "cut short":
        file.write_bytes(file.read_bytes()[:100])
    elif how == "some weights":
        from safetensors.torch import load_file, save_file

        save_file({n: v for n, v in load_file(file).items() if "layers.1" not in n}, file, {"format": "pt"})
    elif how == "another family":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    elif how == "no such family":
        (folder / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    else:
        (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    "how, says",
    [
        ("no weights", "cannot load"),
        ("cut short", "cannot load"),
        ("some weights", "lacks weights of the encoder: .* and 15 more"),
        ("another family", "holds a bert, which has no"),
        ("no such family", "knows no model type 'nonsense'"),
        ("broken config", "not a JSON object"),
    ],
)
def test_a_damaged_folder_is_one_line(how, says, tmp_path):
    damaged(tmp_path, how)
    with pytest.raises(ValueError, match=says) as caught:
        VisionTransformer(checkpoint=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"size": (8, 8), "fit": "stretch"}, "fit is one of"),
        ({"size": (8, 8), "resample": "cubic"}, "resample is one of"),
        ({"size": None, "fit": "crop"}, "only native has no size"),
        ({"size": (8, 8), "fit": "squash", "short": 9}, "short=9 is for fit=crop"),
        ({"size": (8, 8), "fit": "crop", "short": 7}, "at least the size"),
    ],
)
def test_a_preprocessing_that_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), **arguments)
