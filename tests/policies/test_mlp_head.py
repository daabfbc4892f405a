"""The regression head's losses are what they are called, and its gripper is open or closed."""

import pytest
import torch
from torch.nn import functional as F

from policies.heads.mlp import MLPHead


@pytest.mark.parametrize("distance, error", [("l1", F.l1_loss), ("l2", F.mse_loss), ("smooth_l1", F.smooth_l1_loss)])
def test_the_loss_is_the_distance_over_what_the_mask_keeps(distance, error, observe):
    head = MLPHead(16, 4, 3, readout_tokens=2, distance=distance)
    actions, mask = torch.randn(8, 4, 3), torch.zeros(8, 4, dtype=torch.bool)
    mask[:3, :2] = True
    loss = head.loss(observe(), actions, mask)["loss"]
    assert torch.allclose(loss, error(head.sample(observe())[:3, :2], actions[:3, :2]))


def test_gripper_is_open_or_closed_never_between(observe):
    chunk = MLPHead(16, 4, 3, 2, gripper=1).sample(observe(64))
    assert set(chunk[..., 1].unique().tolist()) == {-1.0, 1.0}
    assert len(chunk[..., 0].unique()) > 10


def test_gripper_is_learned_from_which_side_of_zero_it_was(observe):
    torch.manual_seed(0)
    head, readout = MLPHead(16, 2, 2, 2, hidden=[64], gripper=0, gripper_weight=1.0), observe(32)
    actions = readout.last.mean(1)[:, None, :2].expand(-1, 2, -1)
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        head.loss(readout, actions, torch.ones(32, 2, dtype=torch.bool))["loss"].backward()
        optimiser.step()
    assert torch.equal(head.sample(readout)[..., 0], actions[..., 0].sign())


def test_a_body_that_is_only_a_gripper_can_be_learned(observe):
    shown = MLPHead(16, 4, 1, 2, gripper=0).loss(observe(), torch.ones(8, 4, 1), torch.ones(8, 4, dtype=torch.bool))
    assert shown["motion"] == 0 and shown["loss"] > 0


def test_pooling_by_mean_does_not_care_which_token_is_which(observe):
    readout = observe()
    swapped = type(readout)(readout.tokens.flip(2), readout.steps)
    for pooling, same in (("mean", True), ("flatten", False)):
        head = MLPHead(16, 4, 3, 2, pooling=pooling)
        assert torch.allclose(head.sample(readout), head.sample(swapped), atol=1e-6) == same
