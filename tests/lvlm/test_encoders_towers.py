"""ConvNeXt, SAM, LayoutLMv3, Qwen2-VL, Idefics2 and raw patches equal transformers, from the picture on."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional as F
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    FuyuImageProcessorPil,
    LayoutLMv3Config,
    LayoutLMv3Model,
    SamVisionConfig,
    SamVisionModel,
)
from transformers.models.idefics2.modeling_idefics2 import Idefics2Config, Idefics2Model, Idefics2VisionTransformer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel, Qwen2VLModel

from embodied.lvlm.encoders.convnext import ConvNeXt
from embodied.lvlm.encoders.layoutlm import LayoutLM
from embodied.lvlm.encoders.native import NativeSigLIP
from embodied.lvlm.encoders.qwen import QwenVision
from embodied.lvlm.encoders.raw import RawPatches
from embodied.lvlm.encoders.sam import SegmentAnything

CONVNEXT = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "num_stages": 4}
SAM = {"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_dim": 64}
SAM |= {"image_size": 64, "patch_size": 8, "window_size": 3, "global_attn_indexes": [1], "num_pos_feats": 8}
LAYOUT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LAYOUT |= {"input_size": 32, "patch_size": 8, "text_embed": False, "max_position_embeddings": 32}
QWEN = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4}
SIGLIP = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SIGLIP |= {"image_size": 64, "patch_size": 8}
MAKE = {
    "convnext": lambda **options: ConvNeXt(options.pop("config", CONVNEXT), **({"image_size": 64} | options)),
    "sam": lambda **options: SegmentAnything(options.pop("config", SAM), **options),
    "layoutlm": lambda **options: LayoutLM(options.pop("config", LAYOUT), **options),
    "qwen": lambda **options: QwenVision(options.pop("config", QWEN), **options),
    "native": lambda **options: NativeSigLIP(options.pop("config", SIGLIP), **options),
}


def a_picture(width=50, height=41, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def random_weights(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module.eval()


def an_encoder(name, **options):
    return random_weights(MAKE[name](**options))


def reference(cls, config, encoder):
    model = cls(config).eval()
    model.load_state_dict(encoder.model.state_dict())
    return model


def test_convnext_equals_transformers_at_any_size():
    encoder = an_encoder("convnext", fit="native")
    model = reference(ConvNextModel, ConvNextConfig(**CONVNEXT), encoder)
    for height, width in [(64, 64), (96, 70)]:
        pixels = torch.randn(2, 3, height, width)
        expected = model(pixel_values=pixels).last_hidden_state
        assert torch.equal(encoder.encode(pixels), expected.flatten(2).transpose(1, 2))
        assert encoder.grid(height, width) == expected.shape[-2:]


def test_stages_of_a_convnext_are_brought_to_the_finest_grid_and_joined():
    encoder, pixels = an_encoder("convnext", stages=[0, 1, 2, 3]), torch.randn(1, 3, 64, 64)
    states = reference(ConvNextModel, ConvNextConfig(**CONVNEXT), encoder)(
        pixel_values=pixels, output_hidden_states=True
    ).hidden_states[1:]
    assert [s.shape[-1] for s in states] == [16, 8, 4, 2]
    parts = [states[0]] + [F.interpolate(s, (16, 16), mode="bilinear", align_corners=False) for s in states[1:]]
    assert torch.equal(encoder.encode(pixels), torch.cat(parts, 1).flatten(2).transpose(1, 2))
    assert encoder.dim == 80 and encoder.tokens(64, 64) == 256


def test_a_fifth_stage_quarters_the_tokens():
    config = {"hidden_sizes": [8, 16, 24, 32, 40], "depths": [1, 1, 1, 1, 1], "num_stages": 5}
    encoder = an_encoder("convnext", config=config, image_size=128)
    assert encoder.encode(torch.randn(1, 3, 128, 128)).shape == (1, 4, 40) and encoder.grid(1, 1) == (2, 2)


def test_sam_equals_transformers_from_the_picture_on():
    encoder = an_encoder("sam")
    official = transformers.SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    for shape in [(50, 41), (30, 77), (64, 64), (63, 2)]:
        pixels = official(a_picture(*shape), return_tensors="pt").pixel_values
        torch.testing.assert_close(encoder.preprocess[0](a_picture(*shape)), pixels[0], atol=1e-6, rtol=0)
    expected = reference(SamVisionModel, SamVisionConfig(**SAM), encoder)(pixel_values=pixels).last_hidden_state
    assert torch.equal(encoder.encode(pixels), expected.flatten(2).transpose(1, 2))
    assert encoder.grid(64, 64) == (8, 8) and encoder.dim == 16


def test_layoutlm_reads_pictures_alone():
    encoder = an_encoder("layoutlm", keep_class_token=True)
    official = transformers.LayoutLMv3ImageProcessorPil(size={"height": 32, "width": 32}, apply_ocr=False)
    pixels = official(a_picture(), return_tensors="pt").pixel_values
    torch.testing.assert_close(encoder.preprocess[0](a_picture()), pixels[0], atol=1e-6, rtol=0)
    expected = reference(LayoutLMv3Model, LayoutLMv3Config(**LAYOUT), encoder)(pixel_values=pixels).last_hidden_state
    assert torch.equal(encoder.encode(pixels), expected)
    assert torch.equal(an_encoder("layoutlm").encode(pixels), expected[:, 1:])


@pytest.mark.parametrize("shape", [(50, 41), (26, 90)])
def test_qwen_equals_transformers_given_the_official_processor(shape):
    encoder, picture = an_encoder("qwen"), a_picture(*shape)
    limits = {"min_pixels": 256, "max_pixels": 4096}
    official = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, **limits)
    batch = official(picture, return_tensors="pt")
    height, width = smart_resize(shape[1], shape[0], factor=encoder.factor, **limits)
    pixels = encoder.preprocess[0](picture.resize((width, height), Image.Resampling.BICUBIC)).unsqueeze(0)
    model = reference(
        Qwen2VisionTransformerPretrainedModel,
        Qwen2VisionTransformerPretrainedModel.config_class(**QWEN),
        encoder,
    )
    output = model(batch.pixel_values, grid_thw=batch.image_grid_thw)
    torch.testing.assert_close(encoder.encode(pixels)[0], output.pooler_output, atol=1e-5, rtol=0)
    rows, columns = encoder.grid(height, width)
    assert (1, 2 * rows, 2 * columns) == tuple(batch.image_grid_thw[0].tolist())
    unmerged = an_encoder("qwen", merge=False)
    found = unmerged.encode(pixels)[0].reshape(rows, 2, columns, 2, 32).transpose(1, 2).reshape(-1, 32)
    torch.testing.assert_close(found, output.last_hidden_state, atol=1e-5, rtol=0)


def test_qwen_reads_a_batch_as_its_rows_and_a_video_as_pairs_of_frames():
    encoder, pixels = an_encoder("qwen"), torch.randn(3, 3, 16, 24)
    together = encoder.encode(pixels)
    for row in range(3):
        torch.testing.assert_close(encoder.encode(pixels[row : row + 1])[0], together[row], atol=1e-5, rtol=0)
    still = pixels[:1].unsqueeze(1)
    assert torch.equal(encoder.encode_frames(still.expand(-1, 2, -1, -1, -1)), encoder.encode_frames(still))
    assert encoder.encode_frames(torch.randn(2, 5, 3, 16, 24)).shape == (2, 3 * 6, 48)


def test_native_siglip_gives_a_padded_picture_the_features_it_has_alone():
    encoder = an_encoder("native")
    small, large = torch.randn(1, 3, 32, 24), torch.randn(1, 3, 48, 64)
    model = reference(Idefics2VisionTransformer, Idefics2VisionTransformer.config_class(**SIGLIP), encoder)
    for picture in (small, large):
        assert torch.equal(encoder.encode(picture), model(pixel_values=picture).last_hidden_state)
    batch, mask = torch.zeros(2, 3, 48, 64), torch.zeros(2, 48, 64, dtype=torch.bool)
    for row, picture in enumerate((small, large)):
        height, width = picture.shape[-2:]
        batch[row, :, :height, :width], mask[row, :height, :width] = picture[0], True
    features, present = encoder.encode(batch, mask), encoder.present(mask)
    for row, picture in enumerate((small, large)):
        torch.testing.assert_close(features[row][present[row]], encoder.encode(picture)[0], atol=1e-5, rtol=0)
    assert encoder.grid(48, 64) == (6, 8) and present.sum(1).tolist() == [12, 48]


def test_native_siglip_equals_idefics2_given_the_official_processor():
    text = {"model_type": "mistral", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40, "head_dim": 8}
    perceiver = {"resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 4, "resampler_head_dim": 8}
    perceiver |= {"num_key_value_heads": 2, "hidden_size": 32}
    config = Idefics2Config(vision_config=SIGLIP, text_config=text, perceiver_config=perceiver)
    whole = random_weights(Idefics2Model(config))
    encoder = an_encoder("native")
    encoder.model.load_state_dict(whole.vision_model.state_dict())
    official = transformers.Idefics2ImageProcessorPil(
        size={"shortest_edge": 40, "longest_edge": 60}, do_image_splitting=False
    )
    batch = official([[a_picture(70, 41)], [a_picture(40, 55)]], return_tensors="pt")
    seen = []
    whole.vision_model.register_forward_hook(lambda _, inputs, output: seen.append(output.last_hidden_state))
    whole.get_image_features(batch.pixel_values, batch.pixel_attention_mask)
    mask = batch.pixel_attention_mask.flatten(0, 1).bool()
    features = encoder.encode(batch.pixel_values.flatten(0, 1), mask)
    present = encoder.present(mask)
    assert not present.all()
    torch.testing.assert_close(features[present], seen[0][present], atol=1e-6, rtol=0)


def test_raw_patches_are_those_of_fuyu():
    encoder, picture = RawPatches(patch=8), a_picture(60, 40)
    official = FuyuImageProcessorPil(size={"height": 40, "width": 64}, patch_size={"height": 8, "width": 8})
    image = official([[picture]]).images[0][0]
    expected = torch.as_tensor(official.patchify_image(np.asarray(image)))
    features = encoder.encode(encoder.preprocess[0](picture).unsqueeze(0))[0]
    torch.testing.assert_close(features, expected.float(), atol=1e-6, rtol=0)
    assert encoder.grid(40, 60) == (5, 8) and encoder.tokens(40, 60) == 40 and encoder.dim == 192


@pytest.mark.parametrize("name", MAKE)
def test_saved_it_loads_and_resolves_to_what_rebuilds_it(name, tmp_path):
    encoder, pixels = an_encoder(name), torch.randn(1, 3, 64, 64)
    encoder.model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = type(encoder)(checkpoint=str(tmp_path)).eval()
    loaded.size = getattr(encoder, "size", None)
    assert torch.equal(loaded.encode(pixels), encoder.encode(pixels))
    node = json.loads(json.dumps(loaded.resolved({"checkpoint": str(tmp_path)})))
    assert list(node) == ["config"]
    again = MAKE[name](**node)
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(again.eval().encode(pixels), encoder.encode(pixels))
    assert again.encode(pixels).shape == (1, again.tokens(64, 64), again.dim)
    with torch.device("meta"):
        assert next(MAKE[name]().model.parameters()).is_meta


def test_the_towers_of_qwen2_vl_and_sam_are_found_in_their_folders(tmp_path):
    text = {"hidden_size": 48, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "vocab_size": 40}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 2, 2]}
    whole = random_weights(Qwen2VLModel(Qwen2VLModel.config_class(vision_config=QWEN, text_config=text)))
    whole.save_pretrained(tmp_path / "qwen", max_shard_size="20KB")
    loaded = QwenVision(checkpoint=str(tmp_path / "qwen"))
    assert all(torch.equal(v, whole.visual.state_dict()[n]) for n, v in loaded.model.state_dict().items())
    sam = random_weights(transformers.SamModel(transformers.SamConfig(vision_config=SAM)))
    sam.save_pretrained(tmp_path / "sam")
    found = SegmentAnything(checkpoint=str(tmp_path / "sam")).model.vision_encoder.state_dict()
    assert all(torch.equal(v, sam.vision_encoder.state_dict()[n]) for n, v in found.items())


@pytest.mark.parametrize("name", MAKE)
def test_gradients_reach_every_parameter_that_features_depend_on(name):
    encoder = an_encoder(name).train()
    encoder.encode(torch.randn(1, 3, 64, 64)).square().mean().backward()
    unused = [n for n, p in encoder.named_parameters() if p.grad is None]
    assert all("model.layernorm" in n or "rel_pos" in n for n in unused), unused  # as transformers has it


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: MAKE["convnext"](stages=[4]), "stages \\[4\\] are not among its 4"),
        (lambda: MAKE["convnext"](fit="native").encode(torch.zeros(1, 3, 16, 64)), "smaller than 32 pixels"),
        (lambda: MAKE["sam"](statistics="coco"), "statistics is one of imagenet, openai"),
        (lambda: MAKE["sam"](fit="native"), "fit cannot be native"),
        (lambda: MAKE["layoutlm"](config=LAYOUT | {"visual_embed": False}), "reads no pictures"),
        (lambda: MAKE["qwen"]().encode(torch.zeros(1, 3, 16, 20)), "no multiple of 8"),
        (lambda: MAKE["native"]().encode(torch.zeros(1, 3, 16, 4)), "has no patch of 8"),
        (lambda: MAKE["native"](config=SIGLIP | {"patch": 8}), "no setting 'patch'; did you mean"),
        (lambda: RawPatches(0), "patch must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(wrong, says):
    with pytest.raises(ValueError, match=says) as caught:
        wrong()
    assert "\n" not in str(caught.value)
