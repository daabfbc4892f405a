"""What trains in a stage: exactly the parameters that its parts and modes name, at the rates they say."""

import re

import pytest
from torch import nn

from embodied.cli.zoo import entry
from embodied.training.exercise import tiny
from embodied.training.optimizer import AdamW
from embodied.training.stages import PARTS, check_stages, part_of, train_parts

LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0}


def assistant(key="llava-1.5"):
    each = entry(key)
    return tiny(each.row, each.chat)


def trained(model, **train):
    train_parts(model, train, 1e-3, LORA)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def within(model, module):
    """The names of a module's parameters in the model, found by identity and not by name."""
    inside = {id(parameter) for parameter in module.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}


def test_full_is_the_whole_part_and_what_is_not_named_is_frozen():
    model = assistant()
    vision = model.model.vision
    assert trained(model, encoder="full") == within(model, vision.encoder)
    assert trained(model, connector="full") == within(model, vision.connector)
    assert trained(model, backbone="full", connector="frozen") == within(model, model.model.backbone)
    both = within(model, vision.connector) | within(model, model.model.backbone)
    assert trained(model, connector="full", backbone="full", adapters="full") == both


def test_norms_and_biases_alone():
    model = assistant()
    encoder = model.model.vision.encoder
    norms = {name for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    expected = {name for name in within(model, encoder) if name.rpartition(".")[0] in norms}
    assert expected and trained(model, encoder="norms") == expected
    biases = {name for name in within(model, encoder) if name.endswith("bias")}
    assert biases and trained(model, encoder="biases") == biases


def test_the_last_layers():
    model = assistant()
    layers = next(m for m in model.model.backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == 2)
    assert trained(model, backbone={"last": 1}) == within(model, layers[1])
    assert trained(model, backbone={"last": 9}) == within(model, layers)


def test_decay_gives_each_layer_its_share_of_the_rate():
    model = assistant()
    rates = train_parts(model, {"backbone": {"decay": 0.5}, "connector": "full"}, 1e-3, LORA)
    names = {name: p for name, p in model.named_parameters() if p.requires_grad}
    backbone, connector = within(model, model.model.backbone), within(model, model.model.vision.connector)
    assert set(names) == backbone | connector
    groups = AdamW(1e-3, rates=rates).groups(names)
    rate = {name: group["lr"] for group in groups for name in group["names"]}
    layers = next(m for m in model.model.backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == 2)
    first, last = within(model, layers[0]), within(model, layers[1])
    embedding = within(model, next(m for m in model.model.backbone.modules() if isinstance(m, nn.Embedding)))
    for some, expected in ((last, 1e-3), (first, 5e-4), (embedding, 2.5e-4), (connector, 1e-3)):
        assert some and all(rate[name] == pytest.approx(expected) for name in some)
    assert all(rate[name] == pytest.approx(1e-3) for name in backbone - first - last - embedding)


def test_low_rank_updates_lie_beside_each_linear_layer_but_the_vocabulary():
    model = assistant()
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith("model.backbone.")}
    expected = {n for n in linear if not n.endswith("lm_head")}
    found = trained(model, backbone="lora")
    assert expected and all(".lora_A." in name or ".lora_B." in name for name in found)
    assert {re.sub(r"\.lora_[AB]\..*", "", name) for name in found} == expected


def test_parameter_efficient_is_the_models_own_adapters_where_it_has_them():
    model = assistant("llama-adapter")
    assert trained(model, backbone="peft") == {
        n for n, _ in model.named_parameters() if n.startswith("model.adapters.")
    }
    assert all("lora_" in name for name in trained(assistant(), backbone="peft"))


def test_the_merger_within_an_encoder_is_its_connector():
    model = assistant("qwen2-vl")
    merger = within(model, model.model.vision.encoder.model.merger)
    assert merger and trained(model, connector="full") >= merger
    assert not trained(model, encoder="full") & merger


def test_every_parameter_of_a_model_is_of_one_part():
    for key in ("qwen2-vl", "idefics", "llava-next"):
        for name, _ in assistant(key).named_parameters():
            assert [part for part, pattern in PARTS.items() if re.match(pattern, name)] == [part_of(name)]


@pytest.mark.parametrize(
    "train, message",
    [
        ({"encodr": "full"}, "train has 'encodr'; did you mean 'encoder'"),
        ({"encoder": "half"}, r"train.encoder is half, not one of full, frozen"),
        ({"encoder": {"first": 2}}, "not one of"),
        ({"encoder": "frozen"}, "nothing trains"),
        ({"connector": {"last": 1}}, "asks for layers, and this connector has none"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(train, message):
    with pytest.raises(ValueError, match=message):
        train_parts(assistant(), train, 1e-3, LORA)


@pytest.mark.parametrize(
    "stage, message",
    [
        ({"train": {"encoder": "full"}, "data": ["pairs"]}, "mine.tune says no lr"),
        ({"train": {}, "data": ["pairs"], "lr": 1.0}, "mine.tune says no train"),
        ({"train": {"encoder": {"decay": 0.9, "last": 2}}, "data": ["pairs"], "lr": 1.0}, "not one of"),
        ({"train": {"encoder": "full"}, "data": ["pairs"], "lr": 1.0, "epochs": 2}, "mine.tune has 'epochs'"),
    ],
)
def test_a_recipe_is_checked_before_anything_runs(stage, message):
    with pytest.raises(ValueError, match=message):
        check_stages({"tune": stage}, "mine")
