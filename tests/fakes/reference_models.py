"""The tiny references: one for each composed family, and which models of the survey it stands for."""

from __future__ import annotations

import transformers as hf
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from fakes.reference_parts import (
    a_film,
    an_instructed_film,
    beside,
    blip,
    blip2,
    both_sizes,
    clip,
    fuyu,
    fuyu_call,
    fuyu_views,
    hybrid,
    idefics,
    idefics2,
    idefics3,
    legacy,
    legacy_call,
    llava,
    low_and_high,
    one_map,
    ovis2,
    ovis_call,
    qwen2vl,
    qwen_call,
    qwen_film,
    said,
    siglip,
    told_and_said,
    unpatched,
)
from fakes.references import (
    CLIP,
    IMAGE,
    LLAMA,
    MIXTRAL,
    OPT,
    PERSIMMON,
    PHI,
    PINPOINTS,
    QFORMER,
    QWEN2,
    SIGLIP,
    SQUARE,
    STABLELM,
    T5,
    VIDEO,
    VISION,
    Case,
    filled_up,
    instructed,
    masked,
    with_mask,
    with_sizes,
)

CASES = [
    Case("llava", ["LLaVA-1.5", "ShareGPT4V"], llava(CLIP, LLAMA), clip),
    Case(
        "llava-pad",
        ["LLaVA-1.5 (padded)"],
        llava(CLIP, LLAMA),
        lambda: hf.LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE, do_pad=True),
    ),
    Case(
        "llava-linear",
        ["LLaVA", "Shikra", "VILA"],
        llava(CLIP, LLAMA, projector_hidden_act="linear"),
        clip,
        mend=one_map,
    ),
    Case("llava-phi", ["Bunny", "TinyLLaVA", "Imp"], llava(SIGLIP, PHI), siglip),
    Case("llava-qwen2", ["Bunny (Qwen)", "TinyLLaVA (Qwen)"], llava(SIGLIP, QWEN2), siglip),
    Case("llava-stablelm", ["Bunny (StableLM)", "TinyLLaVA (StableLM)"], llava(SIGLIP, STABLELM), siglip),
    Case("llava-mixtral", ["CuMo (dense connector)"], llava(CLIP, MIXTRAL), clip),
    Case(
        "llava-next",
        ["LLaVA-NeXT"],
        lambda: hf.LlavaNextConfig(
            vision_config=CLIP, text_config=LLAMA, image_grid_pinpoints=PINPOINTS, image_token_index=IMAGE
        ),
        lambda: hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": 28}, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS
        ),
        with_sizes,
        filled_up,
    ),
    Case(
        "llava-next-video",
        ["LLaVA-NeXT-Video (PLLaVA's family)"],
        lambda: hf.LlavaNextVideoConfig(
            vision_config=CLIP | {"image_size": 56},
            text_config=LLAMA,
            image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
            image_token_index=IMAGE,
            video_token_index=VIDEO,
        ),
        lambda: hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": 56},
            crop_size={"height": 56, "width": 56},
            image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        ),
        with_sizes,
        filled_up,
        film=a_film,
        frames=lambda: hf.CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}),
    ),
    Case(
        "video-llava",
        ["Video-LLaVA"],
        lambda: hf.VideoLlavaConfig(
            vision_config=CLIP, text_config=LLAMA, image_token_index=IMAGE, video_token_index=VIDEO
        ),
        lambda: hf.VideoLlavaImageProcessor(size={"shortest_edge": 28}, crop_size=SQUARE),
        legacy_call,
        legacy,
        film=a_film,
        frames=clip,
    ),
    Case(
        "llava-onevision",
        ["LLaVA-OV"],
        lambda: hf.LlavaOnevisionConfig(
            vision_config=SIGLIP,
            text_config=QWEN2,
            image_grid_pinpoints=PINPOINTS,
            vision_aspect_ratio="anyres_max_2",
            image_token_index=IMAGE,
            video_token_index=VIDEO,
        ),
        lambda: hf.LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=PINPOINTS),
        with_sizes,
        filled_up,
        several=False,
        film=a_film,
        frames=lambda: hf.SiglipImageProcessorPil(size=SQUARE, image_mean=OPENAI_CLIP_MEAN, image_std=OPENAI_CLIP_STD),
    ),
    Case(
        "vipllava",
        ["ViP-LLaVA"],
        lambda: hf.VipLlavaConfig(
            vision_config=CLIP, text_config=LLAMA, vision_feature_layers=[-1, -2, 1], image_token_index=IMAGE
        ),
        clip,
    ),
    Case(
        "idefics2",
        ["IDEFICS2"],
        idefics2,
        lambda: hf.Idefics2ImageProcessorPil(size={"shortest_edge": 30, "longest_edge": 70}),
        with_mask,
        masked,
        flat=False,
    ),
    *(
        Case(
            name,
            [row],
            idefics3(kind),
            lambda made=made: made(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}),
            with_mask,
            flat=False,
        )
        for name, row, kind, made in (
            ("idefics3", "IDEFICS3", hf.Idefics3Config, hf.Idefics3ImageProcessorPil),
            ("smolvlm", "SmolVLM", hf.SmolVLMConfig, hf.SmolVLMImageProcessorPil),
        )
    ),
    Case(
        "internvl",
        ["InternVL 1.5"],
        lambda: hf.InternVLConfig(
            vision_config=VISION | {"image_size": [56, 56], "patch_size": [14, 14]},
            text_config=LLAMA,
            image_token_id=IMAGE,
            image_seq_length=4,
        ),
        lambda: hf.GotOcr2ImageProcessorPil(
            size={"height": 56, "width": 56},
            crop_to_patches=True,
            max_patches=6,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ),
    ),
    Case(
        "deepseek-vl",
        ["DeepSeek-VL (1.3B)"],
        lambda: hf.DeepseekVLConfig(vision_config=SIGLIP, text_config=LLAMA, image_token_id=IMAGE),
        lambda: hf.DeepseekVLImageProcessorPil(size=SQUARE),
    ),
    Case(
        "qwen2-vl",
        ["Qwen2-VL"],
        qwen2vl,
        lambda: hf.Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 6}),
        qwen_call,
        unpatched,
        film=qwen_film,
    ),
    Case("blip2-opt", ["BLIP-2 (OPT)"], blip2(OPT), blip),
    Case("blip2-llama", ["MiniGPT-4"], blip2(LLAMA), blip),
    Case(
        "instructblip-llama",
        ["InstructBLIP (Vicuna)"],
        blip2(LLAMA, hf.InstructBlipConfig),
        blip,
        instructed,
        told=True,
    ),
    Case(
        "instructblip-video",
        ["InstructBLIP (films)"],
        lambda: hf.InstructBlipVideoConfig(
            vision_config=VISION,
            qformer_config=QFORMER,
            text_config=LLAMA,
            num_query_tokens=4,
            video_token_index=VIDEO,
        ),
        blip,
        None,
        told=True,
        film=an_instructed_film,
    ),
    Case("blip2-t5", ["BLIP-2 (Flan-T5)"], blip2(T5), blip, said, says=True),
    Case(
        "instructblip-t5",
        ["InstructBLIP (Flan-T5)"],
        blip2(T5, hf.InstructBlipConfig),
        blip,
        told_and_said,
        told=True,
        says=True,
    ),
    Case(
        "deepseek-vl-hybrid",
        ["DeepSeek-VL (7B)"],
        hybrid,
        lambda: hf.DeepseekVLHybridImageProcessorPil(
            size={"height": 32, "width": 32}, high_res_size={"height": 128, "width": 128}
        ),
        both_sizes,
        low_and_high,
    ),
    Case("idefics", ["IDEFICS"], idefics, lambda: hf.IdeficsImageProcessorPil(size=SQUARE), beside),
    Case(
        "fuyu",
        ["Fuyu-8B"],
        lambda: hf.FuyuConfig(text_config=PERSIMMON, patch_size=14, image_token_id=IMAGE),
        fuyu,
        fuyu_call,
        fuyu_views,
    ),
    *(
        Case(
            name,
            [row],
            ovis2,
            lambda tiled=tiled: hf.Ovis2ImageProcessorPil(
                size={"height": 56, "width": 56}, crop_to_patches=tiled, max_patches=6
            ),
            ovis_call,
        )
        for name, row, tiled in (("ovis2", "Ovis2", False), ("ovis2-tiles", "Ovis2 (tiles)", True))
    ),
]
