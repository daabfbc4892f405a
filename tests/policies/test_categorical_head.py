"""A body whose actions are names: how its head is built, learns, acts in a rollout, and what does not fit together."""

import dataclasses

import numpy as np
import pytest
import torch
from fakes.grid import NAMES, GridWorld
from fakes.point import PointWorld
from fakes.policies import Constant
from omegaconf import OmegaConf
from torch.nn import functional as F

import conf  # noqa: F401 (registers configs)
from embodied.agent import Agent, create_agent
from embodied.cli.configs import compose
from embodied.collection import collect
from embodied.data import Cache, LeRobotDataset, Windows
from embodied.evaluation.policies import ExpertPolicy, RandomPolicy
from embodied.evaluation.rollout import rollout
from embodied.spec import ActionSpec
from policies.heads.categorical import CategoricalHead, GaussianHead, check_indices

ACTION = ActionSpec(NAMES, ("1",) * 3, (0.0,) * 3, (1.0,) * 3, "categorical", "none", "none")
ENV = {
    "name": "fake/grid",
    "make": {"_target_": "fakes.grid.GridWorld"},
    "expert": {"_target_": "fakes.grid.GridExpert"},
}
SMALL = [
    "data.root=unused",
    "out=unused",
    "model.backbone.config.hidden_size=32",
    "model.backbone.config.num_hidden_layers=1",
    "model.backbone.config.intermediate_size=64",
    "model.order=[task,state]",
    "chunk.horizon=4",
]


def small(*changes):
    return OmegaConf.to_container(compose("train", [*SMALL, *changes]), resolve=False)


def columns(body, rows=30, seed=0):
    random = np.random.default_rng(seed)
    actions = random.integers(0, body.action.dim, (rows, 1)) if body.action.kind == "categorical" else None
    actions = random.uniform(-0.1, 0.1, (rows, body.action.dim)) if actions is None else actions
    return {
        "action": actions.astype(np.float32),
        "observation.state": random.uniform(-1, 1, (rows, body.state.dim)).astype(np.float32),
    }


def untrained(body, *changes):
    return create_agent(small(*changes), body, ["go"], columns(body), np.array([30]))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_its_loss_is_the_cross_entropy_and_its_samples_are_indices(temperature, observe):
    torch.manual_seed(0)
    head = CategoricalHead(16, 2, 1, 2, action=ACTION, hidden=[32], temperature=temperature)
    with torch.no_grad():
        head.net[-1].bias.copy_(torch.tensor([0.0, 1, 2, 2, 1, 0]))
    wanted = torch.randint(3, (8, 2, 1))
    mask = torch.ones(8, 2, dtype=torch.bool)
    logits = head.net(observe().last.flatten(1)).view(16, 3)
    loss = head.loss(observe(), wanted.float(), mask)["loss"]
    assert torch.allclose(loss, F.nll_loss(logits.log_softmax(-1), wanted.flatten()), rtol=1e-5)
    chunk = head.sample(observe(), [torch.Generator().manual_seed(i) for i in range(8)])
    assert chunk.shape == (8, 2, 1) and chunk.dtype == torch.float32
    assert torch.isin(chunk, torch.tensor([0.0, 1, 2])).all()
    if temperature == 0:
        assert chunk[:, 0].unique() == 2 and chunk[:, 1].unique() == 0


def test_drawn_actions_follow_their_shares(observe, rows):
    head = CategoricalHead(16, 1, 1, 2, action=ACTION, hidden=[32], temperature=1.0)
    with torch.no_grad():
        head.net[-1].weight.zero_()
        head.net[-1].bias.copy_(torch.tensor([0.2, 0.5, 0.3]).log())
    seeds = [torch.Generator().manual_seed(i) for i in range(1000)]
    drawn = head.sample(rows(observe(1), [0] * 1000), seeds).flatten().long()
    assert ((torch.bincount(drawn, minlength=3) / 1000 - torch.tensor([0.2, 0.5, 0.3])).abs() < 0.06).all()


def test_padding_hides_completely_and_a_row_minds_its_own_business(observe, rows):
    torch.manual_seed(0)
    head = CategoricalHead(16, 3, 1, 2, action=ACTION, hidden=[32], temperature=1.0)
    mask = torch.arange(3) < torch.arange(8).unsqueeze(1)
    actions, found = torch.randint(3, (8, 3, 1)).float(), []
    for garbage in (0.0, 1e9, torch.nan):
        head.zero_grad()
        loss = head.loss(observe(), torch.where(mask.unsqueeze(-1), actions, garbage), mask)["loss"]
        loss.backward()
        found.append(torch.cat([loss.detach().view(1), *(p.grad.flatten() for p in head.parameters())]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]) and found[0].isfinite().all()
    parts = [head.loss(rows(observe(), p), actions[p], mask[p])["loss"] * mask[p].sum() for p in ([0, 5, 1], [2, 3, 7])]
    rest = head.loss(rows(observe(), [4, 6]), actions[[4, 6]], mask[[4, 6]])["loss"] * mask[[4, 6]].sum()
    assert torch.allclose((sum(parts) + rest) / mask.sum(), found[0][0], rtol=1e-5)
    assert head.loss(observe(), actions, torch.zeros_like(mask))["loss"] == 0
    together = head.sample(observe(), [torch.Generator().manual_seed(i) for i in range(8)])
    for row in (0, 5):
        alone = head.sample(rows(observe(), [row]), [torch.Generator().manual_seed(row)])
        assert torch.equal(alone[0], together[row])


def test_it_starts_from_an_even_choice_with_the_layers_of_llarp(observe):
    torch.manual_seed(0)
    head = CategoricalHead(16, 1, 1, 2, action=ACTION)
    kinds = [type(layer).__name__ for layer in head.net]
    assert kinds == ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU", "Linear"]
    last = head.net[-1]
    assert torch.allclose(last.weight @ last.weight.T, 1e-4 * torch.eye(3), atol=1e-6) and not last.bias.any()
    assert (head._logits(observe()).softmax(-1) - 1 / 3).abs().max() < 0.1


def test_the_gaussians_loss_is_its_negative_log_likelihood(observe):
    torch.manual_seed(0)
    head, mask = GaussianHead(16, 2, 3, 2, log_std=[0.5, -5, 2], sample_std=1.0), torch.ones(8, 2, dtype=torch.bool)
    actions, mean = torch.randn(8, 2, 3), head.net(observe().last.flatten(1)).view(8, 2, 3)
    wanted = F.gaussian_nll_loss(mean, actions, torch.full_like(mean, np.exp(1.0)), full=True)
    assert torch.allclose(head.loss(observe(), actions, mask)["loss"], wanted, rtol=1e-5)
    with torch.no_grad():
        head.log_std.fill_(9.0)
    assert head.loss(observe(), actions, mask)["std"] == pytest.approx(np.exp(2.0))


def test_its_spread_learns_that_of_the_data(observe):
    torch.manual_seed(0)
    head, mask = GaussianHead(16, 2, 3, 2, hidden=[16], sample_std=1.0), torch.ones(128, 2, dtype=torch.bool)
    optimiser, readout = torch.optim.Adam(head.parameters(), 2e-2), dataclasses.replace(observe(128), prefix=None)
    for _ in range(250):
        optimiser.zero_grad()
        noisy = 0.5 + torch.tensor([0.05, 0.2, 0.8]) * torch.randn(128, 2, 3)
        head.loss(readout, noisy, mask)["loss"].backward()
        optimiser.step()
    drawn = head.sample(readout, [torch.Generator().manual_seed(i) for i in range(128)])
    assert torch.allclose(drawn.flatten(0, 1).std(dim=0), torch.tensor([0.05, 0.2, 0.8]), rtol=0.25)


def test_from_demonstrations_to_a_rollout(plugins, tmp_path):
    """Collected with the expert, learned, saved, loaded and driven: as good as the expert, unlike chance."""
    assert collect(ENV, tmp_path / "data", episodes=60, num_workers=1).episodes == 60
    windows = Windows(Cache(LeRobotDataset(tmp_path / "data")), horizon=4)
    torch.manual_seed(1)
    config = small("head=categorical", "head.hidden=[64]", "execution.steps=1")
    agent = create_agent(config, windows.embodiment, windows.tasks, windows.columns, windows.episode_ends)
    optimiser = torch.optim.Adam(agent.parameters(), 3e-3)
    random = np.random.default_rng(0)
    agent.train()
    for _ in range(300):
        optimiser.zero_grad()
        losses = agent.loss(windows.batch(random.integers(len(windows), size=64)))
        losses["loss"].backward()
        optimiser.step()
    assert losses["accuracy"] > 0.9
    agent.save_pretrained(tmp_path / "agent")
    agent = Agent.from_pretrained(tmp_path / "agent")
    episodes = [("reach", 1000 + seed) for seed in range(20)]
    score = {}
    for policy in (agent, ExpertPolicy(), RandomPolicy(windows.embodiment)):
        records = rollout(policy, ENV, episodes)
        assert all(record.error is None and record.nan_actions == 0 for record in records)
        score[type(policy).__name__] = sum(record.success for record in records)
    assert score["ExpertPolicy"] == 20 and score["Agent"] >= 16 > score["RandomPolicy"]


def test_an_index_of_no_name_ends_the_episode_and_is_reported(plugins):
    for wrong, says in ((3, "was 3, no index from 0 to 2"), (0.5, "was 0.5"), (-1, "was -1"), (np.nan, "not finite")):
        (record,) = rollout(Constant([wrong]), ENV, [("reach", 0)])
        assert not record.success and record.nan_actions == int(np.isnan(wrong)) and says in record.error
    with pytest.raises(ValueError, match=r"shape \(1, 3\) for 1 slots: fake/grid takes \(1, 1\)"):
        rollout(Constant([0, 1, 2]), ENV, [("reach", 0)])


@pytest.mark.parametrize("processing", ["default", "none", "relative"])
def test_processing_leaves_an_index_as_it_is(processing):
    agent = untrained(GridWorld().embodiment, "head=categorical", f"processing={processing}")
    batch = {"action": torch.tensor([[[2.0], [1.0]], [[0.0], [1.0]]]), "observation.state": torch.zeros(2, 1, 6)}
    batch |= {"observation_is_pad": torch.zeros(2, 1, dtype=torch.bool)}
    assert torch.equal(agent.processing(batch)["action"], batch["action"])
    assert torch.equal(agent.processing.inverse(batch["action"], batch), batch["action"])


def test_a_head_for_another_kind_of_action_is_refused():
    with pytest.raises(ValueError, match="MLPHead makes continuous actions, but those of walker are categorical"):
        untrained(GridWorld().embodiment, "head=mlp")
    with pytest.raises(
        ValueError, match="CategoricalHead makes categorical actions, but those of point are continuous"
    ):
        untrained(PointWorld(size=0).embodiment, "head=categorical")
    with pytest.raises(ValueError, match="these are continuous"):
        CategoricalHead(16, 1, 1, 2, action=PointWorld().embodiment.action)


def test_an_execution_that_averages_indices_is_refused():
    with pytest.raises(ValueError, match="TemporalEnsemble averages chunks, but the actions of walker are categorical"):
        untrained(GridWorld().embodiment, "head=categorical", "execution=temporal_ensemble")


@pytest.mark.parametrize("wrong", [3.0, -1.0, 0.5])
def test_data_that_is_no_index_is_refused(wrong):
    with pytest.raises(ValueError, match=f"index from 0 to 2, but the data has {wrong:g}"):
        check_indices(torch.tensor([[0.0], [2.0], [wrong]]), 3)
    body = GridWorld().embodiment
    data = columns(body)
    data["action"][7] = wrong
    with pytest.raises(ValueError, match=f"index from 0 to 2, but the data has {wrong:g}"):
        create_agent(small("head=categorical"), body, ["go"], data, np.array([30]))


def test_options_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="not be negative"):
        CategoricalHead(16, 1, 1, 2, action=ACTION, temperature=-1)
    with pytest.raises(ValueError, match="low <= start <= high"):
        GaussianHead(16, 1, 1, log_std=[3, -5, 2])
    with pytest.raises(ValueError, match="sample_std must not be negative"):
        GaussianHead(16, 1, 1, sample_std=-1)
    with pytest.raises(ValueError, match="these are text"):
        CategoricalHead(16, 1, 1, action=dataclasses.replace(ACTION, kind="text"))
