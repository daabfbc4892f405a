"""How tiny references are made and called: configs, image processors, and what each family wants beside the words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from fakes.references import (
    IDS,
    IMAGE,
    INSTRUCTION,
    LLAMA,
    MISTRAL,
    QFORMER,
    QWEN2,
    SAID,
    SIGLIP,
    SIZES,
    SQUARE,
    TEXT,
    VIDEO,
    VISION,
    Counts,
    Views,
    instructed,
    stacked,
)


def llava(vision: dict[str, Any], text: dict[str, Any], **options: Any) -> Callable[[], hf.PretrainedConfig]:
    siglip = vision is SIGLIP
    settings = {
        "vision_feature_layer": -1 if siglip else -2,
        "vision_feature_select_strategy": "full" if siglip else "default",
        "image_token_index": IMAGE,
    }
    return lambda: hf.LlavaConfig(vision_config=vision, text_config=text, **(settings | options))


def one_map(model: Any) -> None:
    """The second map of a projector that has but one is the identity."""
    second = model.model.multi_modal_projector.linear_2
    with torch.no_grad():
        second.weight.copy_(torch.eye(32))
        second.bias.zero_()


def clip() -> Any:
    return hf.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE)


def siglip() -> Any:
    return hf.SiglipImageProcessorPil(size=SQUARE)


def blip() -> Any:
    return hf.BlipImageProcessorPil(size=SQUARE)


def blip2(text: dict[str, Any], kind: Any = hf.Blip2Config) -> Callable[[], hf.PretrainedConfig]:
    return lambda: kind(
        vision_config=VISION,
        qformer_config=QFORMER,
        text_config=text,
        num_query_tokens=4,
        image_token_index=IMAGE,
    )


def idefics3(kind: Any) -> Callable[[], hf.PretrainedConfig]:
    vision = VISION | {"image_size": 56}
    return lambda: kind(vision_config=vision, text_config=LLAMA, scale_factor=2, image_token_id=IMAGE)


def idefics2() -> hf.PretrainedConfig:
    perceiver = {
        "resampler_n_latents": 4,
        "resampler_depth": 2,
        "resampler_n_heads": 2,
        "resampler_head_dim": 16,
        "num_key_value_heads": 1,
        "hidden_size": 32,
    }
    return hf.Idefics2Config(
        vision_config=VISION | {"image_size": 70}, perceiver_config=perceiver, text_config=MISTRAL, image_token_id=IMAGE
    )


def qwen2vl() -> hf.PretrainedConfig:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    return hf.Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        text_config=TEXT | {"rope_parameters": rope},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=102,
        vision_end_token_id=103,
    )


def unpatched(processed: Any, counts: Counts) -> Views:
    """Qwen2-VL's patches put together again; of the two frames that a picture becomes, the first."""
    views, start = [], 0
    for time, down, across in processed["image_grid_thw"].tolist():
        patches = processed["pixel_values"][start : start + time * down * across]
        start += time * down * across
        blocks = patches.view(down // 2, across // 2, 2, 2, 3, 2, 14, 14)[:, :, :, :, :, 0]
        views.append(blocks.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, down * 14, across * 14))
    return views


def qwen_call(processed: Any, ids: Tensor) -> dict[str, Any]:
    names = ("pixel_values", "image_grid_thw")
    return {name: processed[name] for name in names} | {"mm_token_type_ids": (ids == IMAGE).int()}


def qwen_film(pixels: Tensor, ids: Tensor) -> dict[str, Any]:
    """Pairs of frames as patches in the official order: pair, 2 x 2 group, patch of the group, channel."""
    pixels = torch.cat([pixels, pixels[-1:]]) if len(pixels) % 2 else pixels
    down, across = pixels.shape[-2] // 14, pixels.shape[-1] // 14
    patches = [
        pixels[time : time + 2, :, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14].transpose(0, 1).flatten()
        for time in range(0, len(pixels), 2)
        for top in range(0, down, 2)
        for left in range(0, across, 2)
        for row in (top, top + 1)
        for column in (left, left + 1)
    ]
    return {
        "pixel_values_videos": torch.stack(patches),
        "video_grid_thw": torch.tensor([[len(pixels) // 2, down, across]]),
        "mm_token_type_ids": (ids == VIDEO).int() * 2,
    }


def said(processed: Any, ids: Tensor) -> dict[str, Any]:
    return {"pixel_values": processed["pixel_values"], "labels": SAID}


def told_and_said(processed: Any, ids: Tensor) -> dict[str, Any]:
    return instructed(processed, ids) | {"labels": SAID}


def hybrid() -> hf.PretrainedConfig:
    high = {
        "model_type": "sam_vision_model",
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 128,
        "patch_size": 16,
        "mlp_dim": 64,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
    }
    low = SIGLIP | {"image_size": 32, "patch_size": 8}
    return hf.DeepseekVLHybridConfig(
        vision_config=low, high_res_vision_config=high, text_config=LLAMA, image_token_id=IMAGE
    )


def both_sizes(processed: Any, ids: Tensor) -> dict[str, Any]:
    return {name: processed[name] for name in ("pixel_values", "high_res_pixel_values")}


def a_film(pixels: Tensor, ids: Tensor) -> dict[str, Any]:
    return {"pixel_values_videos": pixels.unsqueeze(0)}


def legacy(processed: Any, counts: Counts) -> Views:
    return list(processed["pixel_values_images"])


def legacy_call(processed: Any, ids: Tensor) -> dict[str, Any]:
    return {"pixel_values": processed["pixel_values_images"]}


def an_instructed_film(pixels: Tensor, ids: Tensor) -> dict[str, Any]:
    return {"pixel_values": pixels.unsqueeze(0), "qformer_input_ids": INSTRUCTION}


def low_and_high(processed: Any, counts: Counts) -> Views:
    """The two pixel tensors of each picture."""
    pairs = zip(processed["pixel_values"], processed["high_res_pixel_values"], strict=True)
    return [pixels for pair in pairs for pixels in pair]


def idefics() -> hf.PretrainedConfig:
    vision = {key: value for key, value in VISION.items() if key != "hidden_size"} | {"embed_dim": 24}
    perceiver = {
        "use_resampler": True,
        "resampler_n_latents": 3,
        "resampler_depth": 2,
        "resampler_n_heads": 2,
        "resampler_head_dim": 16,
        "qk_layer_norms_perceiver": True,
    }
    return hf.IdeficsConfig(
        vision_config=vision,
        perceiver_config=perceiver,
        use_resampler=True,
        qk_layer_norms=True,
        alpha_type="vector",
        cross_layer_interval=2,
        additional_vocab_size=2,
        **(SIZES | IDS | {"num_hidden_layers": 4, "vocab_size": 126}),
    )


def beside(processed: Any, ids: Tensor) -> dict[str, Any]:
    """Each word looks at the picture that was marked last, or before the first mark at none."""
    pixels = torch.stack(stacked(processed, []))
    latest = (ids == IMAGE).cumsum(1)
    seen = latest.unsqueeze(-1) == torch.arange(1, len(pixels) + 1)
    return {"pixel_values": pixels.unsqueeze(0), "image_attention_mask": seen.long()}


def fuyu() -> Any:
    return hf.FuyuImageProcessorPil(size={"height": 56, "width": 84}, patch_size={"height": 14, "width": 14})


def fuyu_views(processed: Any, counts: Counts) -> Views:
    """Pictures without what fills up more than the last patch."""
    views = []
    for i, (picture,) in enumerate(processed["images"]):
        shown = (processed["image_unpadded_heights"][i][0], processed["image_unpadded_widths"][i][0])
        height, width = (-(-int(length) // 14) * 14 for length in shown)
        views.append(torch.as_tensor(picture)[:, :height, :width].float())
    return views


def fuyu_call(processed: Any, ids: Tensor) -> dict[str, Any]:
    """Patches, and words with an end behind each row of them."""
    processor, row, patches, at = fuyu(), ids[0].clone(), [], 0
    for i, (picture,) in enumerate(processed["images"]):
        lengths = (processed[f"image_unpadded_{side}"][i][0] for side in ("heights", "widths"))
        made = processor.preprocess_with_tokenizer_info(
            torch.as_tensor(picture)[None, None],
            torch.ones(1, 1, 1),
            *(torch.tensor([[int(length)]]) for length in lengths),
            IMAGE,
            IMAGE + 8,
            True,
        )
        words = made["image_input_ids"][0][0]
        at += int((row[at:] == IMAGE).int().argmax())
        row[at : at + len(words)] = words
        at += len(words)
        patches.append(torch.as_tensor(made["image_patches"][0][0]).float())
    return {"input_ids": row.unsqueeze(0), "pixel_values": torch.cat(patches).unsqueeze(0)}


def ovis2() -> hf.PretrainedConfig:
    return hf.Ovis2Config(
        vision_config=VISION | {"image_size": 56, "vocab_size": 24, "hidden_stride": 2},
        text_config=QWEN2,
        image_token_id=IMAGE,
        visual_indicator_token_ids=list(range(101, 106)),
        vocab_size=128,
        hidden_size=32,
    )


def ovis_call(processed: Any, ids: Tensor) -> dict[str, Any]:
    """Words with marks between a picture's parts, as `Ovis2Processor.replace_image_token` writes them."""
    row, at = ids[0].clone(), 0
    for rows, columns in processed["grids"].tolist():
        atoms = [IMAGE] * 4
        words = [101, *atoms, 102]
        if rows * columns > 1:
            for tile in range(rows * columns):
                between = [] if tile == 0 else [103] if tile % columns else [104]
                words += between + atoms
        words = torch.tensor([*words, 105])
        at += int((row[at:] == IMAGE).int().argmax())
        row[at : at + len(words)] = words
        at += len(words)
    return {"input_ids": row.unsqueeze(0), "pixel_values": processed["pixel_values"]}
