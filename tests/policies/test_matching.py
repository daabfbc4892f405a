"""Views are scored for what an instruction names as the models themselves score them, and VLFM's explorer uses it."""

import importlib.util
import json
import os

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from embodied.building import build
from embodied.evaluation.composed import compose_policy
from embodied.interaction import stack
from policies.navigation.goals import NamedGoals
from policies.navigation.matching import ImageTextMatcher

WORDS = ["<pad>", "<eos>", "a", "ahead", "chair", "is", "like", "seems", "sofa", "there", "."]
GOALS = NamedGoals({"chair": ["chair"], "sofa": ["sofa", "couch"]}, {"chair": 3, "sofa": 10})
PROCESSOR = {"image_processor_type": "CLIPImageProcessor", "size": {"height": 16, "width": 16}, "do_center_crop": False}


def saved(model, folder):
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return str(folder)


def small(kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    eyes = sizes | {"image_size": 16, "patch_size": 8}
    if kind == "siglip":
        text = sizes | {"vocab_size": len(WORDS), "max_position_embeddings": 32, "projection_size": 16}
        return SiglipModel(SiglipConfig(text_config=text, vision_config=eyes))
    if kind == "clip":
        text = sizes | {"vocab_size": len(WORDS), "eos_token_id": 1, "max_position_embeddings": 32}
        return CLIPModel(CLIPConfig(text_config=text, vision_config=eyes, projection_dim=8))
    former = Blip2QFormerConfig(vocab_size=len(WORDS), encoder_hidden_size=16, use_qformer_text_input=True, **sizes)
    parts = {"vision_config": Blip2VisionConfig(**eyes).to_dict(), "qformer_config": former.to_dict()}
    return Blip2ForImageTextRetrieval(Blip2Config(**parts, num_query_tokens=4, image_text_hidden_size=8))


@pytest.fixture(params=["clip", "siglip", "blip2"])
def folder(request, tmp_path):
    return saved(small(request.param), tmp_path)


def views(count):
    return np.random.default_rng(0).integers(0, 255, (count, 16, 16, 3), dtype=np.uint8)


def test_scores_are_the_models_own_cosines(folder):
    matcher = ImageTextMatcher(folder, GOALS, prompts=["seems like there is a {target} ahead .", "{target}"])
    texts = ["find a chair", "go to the couch", "find a chair"]
    scores = matcher.score({"observation.images.front": views(3)}, texts)
    assert scores.shape == (3, 2) and np.abs(scores).max() <= 1
    for row, name in enumerate(("chair", "sofa", "chair")):
        for column, prompt in enumerate((f"seems like there is a {name} ahead .", name)):
            inputs = matcher.pictures(list(views(3)[row : row + 1]), return_tensors="pt")
            with torch.no_grad():
                found = matcher.model(**inputs, **matcher.tokenizer([prompt], return_tensors="pt", **matcher.padding))
            scale = matcher.model.logit_scale.exp() if hasattr(matcher.model, "logit_scale") else 1.0
            shift = getattr(matcher.model, "logit_bias", 0.0)
            assert scores[row, column] == pytest.approx(((found.logits_per_image - shift) / scale).item(), abs=1e-5)


def test_a_model_saved_without_what_compares_is_refused(tmp_path):
    model = small("clip")
    folder = saved(model, tmp_path)
    kept = {name: value for name, value in model.state_dict().items() if name != "text_projection.weight"}
    model.save_pretrained(folder, state_dict=kept)
    with pytest.raises(ValueError, match=r"saved without text_projection\.weight"):
        ImageTextMatcher(folder, GOALS)


def test_what_cannot_be_scored_is_one_line(folder, tmp_path):
    with pytest.raises(ValueError, match="folder=nowhere is not there"):
        ImageTextMatcher("nowhere", GOALS)
    with pytest.raises(ValueError, match=r"prompts each have a \{target\}"):
        ImageTextMatcher(folder, GOALS, prompts=["a chair"])
    matcher = ImageTextMatcher(folder, GOALS)
    with pytest.raises(ValueError, match=r"scores observation\.images\.front; the observation has a"):
        matcher.score({"a": 1}, ["find a chair"])
    with pytest.raises(ValueError, match="names no object"):
        matcher.score({"observation.images.front": views(1)}, ["go home"])


@pytest.mark.skipif(
    importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true", reason="numba is not installed"
)
def test_vlfm_is_the_explorer_with_values(folder):
    from envs.house.simulator import Body
    from envs.house.tasks.objectnav import ObjectNav

    with pytest.raises(ValueError, match=r"scorer\.folder is not given: add settings="):
        compose_policy("vlfm")
    env = ObjectNav(Body(height=32, width=32, outputs=("rgb", "depth", "semantic"), turn=30.0), split="val")
    policy = build(compose_policy("vlfm", {"scorer": {"folder": folder}}), embodiment=env.embodiment)
    policy.reset(1)
    seen = env.reset(seed=10001)[0]
    policy.start(0, 10001, seen["task"])
    for _ in range(3):
        seen = env.step(policy.act(stack([seen]), [0])[0])[0]
    known = policy.worth["confidence"][0] > 0
    assert known.any() and policy.worth["value"][0, known].abs().max() > 0
