"""Optimizer groups, schedules and averages against the libraries that define them."""

import diffusers.training_utils
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import get_scheduler

from embodied.training.ema import EMA
from embodied.training.optimizer import SGD, AdamW, load_state, state_tensors
from embodied.training.schedule import make_schedule


def a_model():
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 2)})


def step(model, optimizer, seed=0):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model["head"](model["norm"](model["encoder"](x))).square().mean().backward()
    optimizer.step()


def test_vectors_have_no_decay_and_patterns_their_own_rate():
    recipe = AdamW(lr=1e-3, weight_decay=0.1, rates=[{"match": "encoder", "lr": 1e-5}], no_decay=["head"])
    groups = recipe.groups(dict(a_model().named_parameters()))
    found = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found == {
        "encoder.weight": (1e-5, 0.1),
        "encoder.bias": (1e-5, 0.0),
        "norm.weight": (1e-3, 0.0),
        "norm.bias": (1e-3, 0.0),
        "head.weight": (1e-3, 0.0),
        "head.bias": (1e-3, 0.0),
    }


@pytest.mark.parametrize("recipe", [AdamW(lr=1e-2, weight_decay=0.1), SGD(lr=1e-2)])
def test_the_state_survives_and_the_next_steps_are_the_same_bits(recipe):
    one, two = a_model(), a_model()
    first = recipe.make(recipe.groups(dict(one.named_parameters())))
    for i in range(3):
        step(one, first, i)
    two.load_state_dict(one.state_dict())
    second = recipe.make(recipe.groups(dict(two.named_parameters())))
    load_state(second, {name: tensor.clone() for name, tensor in state_tensors(first).items()})
    for i in range(3, 6):
        step(one, first, i)
        step(two, second, i)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"lr": -1.0}, "not negative"),
        ({"lr": 1.0, "rates": [{"pattern": "head", "lr": 1.0}]}, "match: pattern, lr: number"),
    ],
)
def test_a_mistaken_recipe_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        AdamW(**arguments)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"])
def test_a_schedule_is_transformers_own(name):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(name, optimizer, 5, 50)
    ours = make_schedule(name, 50, warmup=0.1)
    for i in range(50):
        assert ours(i) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"name": "cosin"}, "did you mean 'cosine'"),
        ({"name": "reduce_lr_on_plateau"}, "no 'reduce_lr_on_plateau'"),
        ({"name": "cosine", "warmup": -1}, "warmup"),
        ({"name": "cosine", "options": {"num_cycle": 2}}, "do not suit 'cosine'"),
    ],
)
def test_a_mistaken_schedule_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        make_schedule(max_steps=10, **arguments)


def test_the_average_is_diffusers_own():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 4))
    ours = EMA({"weight": weight}, decay=0.9, power=0.75)
    theirs = diffusers.training_utils.EMAModel([weight], decay=0.9, use_ema_warmup=True, power=0.75)
    for i in range(40):
        with torch.no_grad():
            weight += torch.randn(3, 4)
        ours.update(i)
        theirs.step([weight])
        assert torch.allclose(ours.shadow["weight"], theirs.shadow_params[0], atol=1e-5)


@given(st.floats(0, 0.9999), st.integers(0, 10**7))
def test_the_decay_rises_from_nothing_to_its_limit(limit, updates):
    ema = EMA({}, limit)
    assert ema.decay(0) == 0
    assert 0 <= ema.decay(updates) <= ema.decay(updates + 1) <= limit


def test_applying_the_average_is_undone_even_by_an_error():
    weight = nn.Parameter(torch.zeros(2))
    ema = EMA({"weight": weight}, 0.5)
    ema.shadow["weight"].fill_(1)
    with pytest.raises(RuntimeError), ema.applied():
        assert weight.tolist() == [1, 1]
        raise RuntimeError
    assert weight.tolist() == [0, 0] and ema.shadow["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("decay, power", [(1.0, 0.75), (-0.1, 0.75), (0.9, 0)])
def test_a_mistaken_average_is_refused(decay, power):
    with pytest.raises(ValueError, match=r"ema\."):
        EMA({}, decay, power)
