"""An LVLM with a reference's weights says what the reference says, picture included, and gives the weights back."""

from dataclasses import replace

import pytest
import torch
from fakes.parity import a_batch, a_picture, measure
from fakes.reference_models import CASES
from fakes.references import IMAGE

from embodied.lvlm.interop.checkpoints import from_reference, to_reference
from embodied.lvlm.model import Batch

NAMED = {case.name: case for case in CASES}


@pytest.mark.parametrize("name", NAMED)
def test_it_equals_the_reference_from_the_picture_on(name):
    difference = measure(NAMED[name])
    assert difference.pixels < 1e-6
    assert difference.logits < 1e-5
    assert difference.round_trip


@pytest.mark.parametrize("name", NAMED)
def test_another_picture_or_another_weight_would_show(name):
    """What the comparison rests on: neither is lost on the way to the logits."""
    case = NAMED[name]
    model = from_reference(case.reference(), case.processor().to_dict())
    with torch.no_grad():
        first = model(a_batch(model, [a_picture(31, 40)], case))
        other = model(a_batch(model, [a_picture(40, 31).rotate(90, expand=True)], case))
        assert first.shape == other.shape and (first - other).abs().max() > 1e-3
        part = model.vision if not list(model.vision.connector.parameters()) else model.vision.connector
        weight = next(part.parameters())
        weight.add_(torch.randn_like(weight) * 0.3)
        assert (model(a_batch(model, [a_picture(31, 40)], case)) - first).abs().max() > 1e-5


@pytest.mark.parametrize("name", [name for name, case in NAMED.items() if case.film])
def test_another_order_of_frames_would_show(name):
    case = NAMED[name]
    model = from_reference(case.reference(), case.processor().to_dict())
    frames = [a_picture(60, 60).rotate(90 * i) for i in range(3)]
    with torch.no_grad():
        first = model(a_batch(model, [frames], case))
        assert (model(a_batch(model, [frames[::-1]], case)) - first).abs().max() > 1e-3


def test_trained_weights_reach_the_reference():
    case = NAMED["qwen2-vl"]
    theirs = case.reference()
    model = from_reference(theirs, case.processor().to_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    batch = a_batch(model, [a_picture(31, 40)], case)
    processed = case.processor()([a_picture(31, 40)], return_tensors="pt")
    back = to_reference(model, theirs.config)
    with torch.no_grad():
        expected = back(input_ids=batch.ids, **case.call(processed, batch.ids)).logits
        assert (model(batch) - expected).abs().max() < 1e-5


def test_tied_weights_stay_tied():
    model = from_reference(NAMED["internvl"].reference())
    assert model.backbone.model.lm_head.weight is model.backbone.model.model.embed_tokens.weight
    free = from_reference(NAMED["llava"].reference())
    assert free.backbone.model.lm_head.weight is not free.backbone.model.model.embed_tokens.weight


@pytest.mark.parametrize("name", ["llava", "qwen2-vl"])
def test_padding_on_either_side_changes_nothing(name):
    case = NAMED[name]
    model = from_reference(case.reference(), case.processor().to_dict())
    alone = a_batch(model, [a_picture(31, 40), a_picture(60, 30)], case)
    length = alone.ids.shape[1]
    with torch.no_grad():
        expected = model(alone)[0]
        for before in (0, 3):
            present = torch.zeros(1, length + 3, dtype=torch.bool)
            present[:, before : before + length] = True
            ids = torch.zeros(1, length + 3, dtype=torch.long)
            ids[present] = alone.ids[0]
            found = model(Batch(ids, present, (ids == IMAGE) & present, alone.pictures))
            assert (found[present] - expected).abs().max() < 1e-5


def test_an_encoder_decoder_learns_what_it_is_to_say():
    case = NAMED["blip2-t5"]
    reference = case.reference()
    model = from_reference(reference, case.processor().to_dict())
    batch = a_batch(model, [a_picture(31, 40)], case)
    processed = case.processor()([a_picture(31, 40)], return_tensors="pt")
    expected = reference(input_ids=batch.ids, **case.call(processed, batch.ids)).loss
    loss = model.loss(batch)["loss"]
    assert abs(loss - expected) < 1e-5
    loss.backward()
    assert model.vision.connector.query_tokens.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="needs `labels`"):
        model(replace(batch, labels=None))


def test_places_and_pictures_must_agree():
    case = NAMED["llava"]
    model = from_reference(case.reference())
    seen = a_batch(model, [a_picture(31, 40)], case).pictures
    ids = torch.tensor([[1, IMAGE, IMAGE, 7]])
    with pytest.raises(ValueError, match="2 places are kept for pictures whose tokens are 4"):
        model(Batch(ids, torch.ones_like(ids, dtype=torch.bool), ids == IMAGE, seen))


def options(name, **changed):
    case = NAMED[name]
    config = case.config()
    for key, value in changed.items():
        part, _, option = key.rpartition("__")
        setattr(getattr(config, part) if part else config, option, value)
    return config


@pytest.mark.parametrize(
    "name, changed, message",
    [
        ("llava-phi", {"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy='default'"),
        ("llava-next", {"vision_feature_select_strategy": "full"}, "tiles with class tokens make no grid"),
        ("llava-onevision", {"vision_aspect_ratio": "square"}, "vision_aspect_ratio='square'"),
        ("llava-next-video", {"spatial_pool_mode": "max"}, "spatial_pool_mode='max'"),
        ("llava-next-video", {"spatial_pool_stride": 3}, "cells that fill 4 x 4 patches"),
        ("blip2-opt", {"qformer_config__hidden_act": "relu"}, "hidden_act='relu'"),
        ("internvl", {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy='full'"),
        ("internvl", {"vision_config__image_size": [56, 28]}, "tiles are square"),
    ],
)
def test_an_option_without_a_part_is_named(name, changed, message):
    reference = NAMED[name].reference()
    reference.config = options(name, **changed)
    with pytest.raises(ValueError, match=message):
        from_reference(reference)


@pytest.mark.parametrize(
    "name, images, message",
    [
        ("llava", {"do_normalize": False}, "do_normalize=false"),
        ("llava", {"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ("qwen2-vl", {"image_mean": [0.5, 0.5, 0.5]}, r"image_mean=\[0.5, 0.5, 0.5\]"),
        ("idefics3", {"do_image_splitting": False}, "do_image_splitting=false"),
    ],
)
def test_a_preprocessing_without_a_part_is_named(name, images, message):
    with pytest.raises(ValueError, match=message):
        from_reference(NAMED[name].reference(), images)


def test_a_linear_projector_needs_the_identity_behind_it():
    case = NAMED["llava-linear"]
    reference = case.reference()
    with torch.no_grad():
        reference.model.multi_modal_projector.linear_2.bias.add_(1)
    with pytest.raises(ValueError, match=r"linear_2.bias' should be the identity"):
        from_reference(reference)


def test_a_bias_that_the_reference_has_no_place_for_is_not_dropped():
    reference = NAMED["llava-phi"].reference()
    model = from_reference(reference)
    with torch.no_grad():
        model.backbone.model.lm_head.bias.add_(1)
    with pytest.raises(ValueError, match="no place for the bias"):
        to_reference(model, reference.config)
