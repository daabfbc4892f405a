"""Freezing, adapting and showing what trains."""

import pytest
import torch
from fakes.training import TinyAgent, a_trainer, adapted, weights
from torch import nn

from embodied.training.lora import add_lora, kept_apart, layers, merged
from embodied.training.run_folder import newest
from embodied.training.trainable import count, freeze, table


def trains(agent):
    return {name for name, p in agent.named_parameters() if p.requires_grad}


def test_a_pattern_freezes_what_it_matches_and_training_leaves_it_alone(tmp_path):
    trainer = a_trainer(tmp_path, prepare=lambda agent: freeze(agent, ["encoder", r"head\.bias"]))
    before = {name: p.clone() for name, p in trainer.agent.named_parameters()}
    trainer.train()
    changed = {
        name for name, p in weights(newest(tmp_path)).items() if name in before and not torch.equal(p, before[name])
    }
    assert changed == {"model.backbone.weight", "model.backbone.bias", "head.weight"}


@pytest.mark.parametrize(
    "pattern, says",
    [
        ("backbon.weight", "near names: .*model.backbone"),
        ("vision_tower", "the parts are head.bias, head.weight, model.backbone"),
        ("head[", "'head\\[' is not a regular expression"),
        (".*", "freezes every parameter"),
    ],
)
def test_a_pattern_that_does_nothing_sensible_is_refused(pattern, says):
    with pytest.raises(ValueError, match=says):
        freeze(TinyAgent(), [pattern])


def test_the_table_adds_up():
    agent = TinyAgent()
    freeze(agent, ["encoder"])
    lines = [line.rsplit(maxsplit=2) for line in table(agent).splitlines()]
    assert [cell.strip() for cell in lines[0]] == ["part", "trainable", "total"]
    shown = {name.strip(): total for name, _, total in lines[1:]}
    assert list(shown) == ["model.encoder", "model.backbone", "model.spare", "head", "all"]
    assert shown["model.spare"] == "12" and shown["all"] == f"{count(agent) / 1000:.2f}k"


def test_lora_trains_the_update_and_nothing_under_it():
    agent = TinyAgent()
    freeze(agent, ["encoder"])
    add_lora(agent, "backbone", rank=2)
    assert trains(agent) == {
        "model.backbone.lora_A.default.weight",
        "model.backbone.lora_B.default.weight",
        *(f"{part}.{kind}" for part in ("head", "model.spare") for kind in ("weight", "bias")),
    }


def test_lora_starts_as_the_same_function_and_follows_the_paper():
    agent = TinyAgent(noise=0.0)
    x = torch.randn(5, 32)
    before = agent.model["backbone"](x)
    weight = agent.model["backbone"].weight.clone()
    add_lora(agent, "backbone", rank=2, alpha=6.0)
    layer = agent.model["backbone"]
    assert torch.equal(layer(x), before)
    nn.init.normal_(layer.lora_B["default"].weight)
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 6.0 / 2
    assert torch.allclose(layer(x), x @ (weight + update).T + layer.base_layer.bias, atol=1e-5)


def test_the_saved_agent_is_plain_and_computes_what_the_adapted_one_does(tmp_path):
    trainer = a_trainer(tmp_path, max_steps=20, prepare=adapted)
    trainer.train()
    plain, batch = TinyAgent.from_pretrained(newest(tmp_path)), trainer.stream.gather(trainer.stream.indices(0))
    assert not layers(plain)
    trained = trainer.agent.eval()
    assert torch.allclose(plain.loss(batch)["loss"], trained.loss(batch)["loss"], atol=1e-6)
    assert not torch.allclose(plain.model["backbone"].weight, trained.model["backbone"].base_layer.weight)


def test_merging_leaves_no_trace():
    agent = TinyAgent()
    adapted(agent)
    nn.init.normal_(agent.model["backbone"].lora_B["default"].weight)
    before = {name: (id(p), p.clone()) for name, p in agent.named_parameters()}
    with merged(agent):
        assert set(dict(agent.named_parameters())) == set(dict(TinyAgent().named_parameters()))
    after = dict(agent.named_parameters())
    assert list(after) == list(before)
    assert all(id(after[n]) == i and torch.equal(after[n], p) for n, (i, p) in before.items())
    assert kept_apart(agent) == {n for n in after if n.startswith("model.backbone")}


def test_a_name_that_ends_like_the_match_is_not_adapted():
    agent = nn.ModuleDict({"head": nn.Linear(2, 2), "other": nn.ModuleDict({"head": nn.Linear(2, 2)})})
    add_lora(agent, "^head$", rank=1)
    assert [name for name, _ in layers(agent)] == ["head"]


def test_a_shared_weight_is_not_adapted_in_one_place():
    agent = nn.ModuleDict({"in": nn.Embedding(4, 3), "out": nn.Linear(3, 4, bias=False)})
    agent["out"].weight = agent["in"].weight
    with pytest.raises(ValueError, match=r"in.weight and out.weight are one weight"):
        add_lora(agent, "out")


@pytest.mark.parametrize("match, rank, says", [("norm", 2, "matches nothing"), ("head", 0, "at least 1")])
def test_a_mistaken_lora_is_refused(match, rank, says):
    with pytest.raises(ValueError, match=says):
        add_lora(TinyAgent(), match, rank)
