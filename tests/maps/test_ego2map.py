"""Pre-training against maps: InfoNCE both ways with its auxiliary losses, and it learns to match."""

import pytest
import torch
from torch import nn

from maps.ego2map import Ego2Map, draw


class Pixels(nn.Module):
    """An encoder whose features are what two linear layers make of the picture."""

    def __init__(self, side=4, dim=16):
        super().__init__()
        self.dim, self.net = dim, nn.Sequential(nn.Linear(side * side * 3, 32), nn.ReLU(), nn.Linear(32, dim))

    def forward(self, pictures):
        return self.net(pictures.float().flatten(1)).unsqueeze(1)


def paths(seed, batch=8):
    """Views and a map that share a hidden colour; the angle and the distances show in the views too."""
    g = torch.Generator().manual_seed(seed)
    kind, turned = torch.rand(batch, 3, generator=g), torch.rand(batch, generator=g) * 2 - 1
    ahead = torch.rand(batch, 2, generator=g) * 10
    first = kind.view(batch, 1, 1, 3).repeat(1, 4, 4, 1)
    last = first.clone()
    last[:, 0, 0, 0], first[:, 0, 1, 0], last[:, 0, 1, 0] = turned, ahead[:, 0] / 10, ahead[:, 1] / 10
    return first, last, turned, kind.flip(1).view(batch, 1, 1, 3).repeat(1, 4, 4, 1), ahead


def a_model(**settings):
    torch.manual_seed(0)
    return Ego2Map(Pixels(), Pixels(), width=16, **settings)


def test_the_contrast_is_infonce_in_both_directions():
    model = a_model()
    first, last, turned, drawn, ahead = paths(0, 4)
    logits = model(first, last, turned, drawn)
    rows, columns = logits.softmax(1).diag(), logits.softmax(0).diag()
    expected = -(rows.log().mean() + columns.log().mean()) / 2
    losses = model.loss(first, last, turned, drawn, ahead)
    torch.testing.assert_close(losses["contrast"], expected.detach())
    total = losses["contrast"] + losses["angle"] + losses["distance"]
    torch.testing.assert_close(losses["loss"].detach(), total)
    assert logits.abs().max() <= 1 / 0.07 + 1e-4  # cosines over the temperature


def test_weights_weigh_the_auxiliary_losses():
    plain = a_model(angle_weight=0.0, distance_weight=0.0).loss(*paths(0))
    torch.testing.assert_close(plain["loss"].detach(), plain["contrast"])


def test_it_learns_to_match_and_what_the_auxiliary_losses_ask():
    model = a_model()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    start = model.loss(*paths(99))
    for step in range(250):
        optimizer.zero_grad()
        model.loss(*paths(step)).pop("loss").backward()
        optimizer.step()
    end = model.loss(*paths(99))
    assert end["accuracy"] >= 0.6  # of 8 maps with colours drawn at random, some of them alike; chance is 0.125
    assert end["contrast"] < 0.5 * start["contrast"]
    assert end["angle"] < 0.2 * start["angle"] and end["distance"] < 0.5 * start["distance"]


def test_every_part_learns():
    model = a_model()
    model.loss(*paths(0))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_map_is_drawn_in_colours():
    categories = torch.tensor([[[-1, 0], [1, -1]]])
    free = torch.tensor([[[True, False], [True, False]]])
    picture = draw(categories, free)
    assert picture.dtype == torch.uint8 and picture.shape == (1, 2, 2, 3)
    assert picture[0, 0, 0].tolist() == [255, 255, 255] and picture[0, 1, 1].tolist() == [0, 0, 0]
    assert len({tuple(picture[0, i, j].tolist()) for i in range(2) for j in range(2)}) == 4


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least 2 paths"):
        a_model().loss(*paths(0, 1))
    with pytest.raises(ValueError, match="temperature=0"):
        a_model(temperature=0)
