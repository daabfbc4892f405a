"""Heads that read step by step: what they carry through a rollout is what one pass over the history gives."""

import pytest
import torch
from torch.nn import functional as F

from embodied.contracts import Readout
from embodied.spec import ActionSpec
from policies.heads.gpt import GPTHead
from policies.heads.recurrent import RecurrentCategoricalHead
from policies.heads.rnn import RNNHead

WIDTH, HORIZON, ACTIONS, TOKENS = 8, 2, 3, 2
SMALL = {"size": 16, "layers": 2, "hidden": [16]}
HEADS = {
    "lstm, window": lambda window: RNNHead(WIDTH, HORIZON, ACTIONS, TOKENS, window=window, **SMALL),
    "gru, window": lambda window: RNNHead(WIDTH, HORIZON, ACTIONS, TOKENS, cell="gru", window=window, **SMALL),
    "lstm, episode": lambda window: RNNHead(WIDTH, HORIZON, ACTIONS, TOKENS, window=None, gripper=2, **SMALL),
    "gru, episode": lambda window: RNNHead(WIDTH, HORIZON, ACTIONS, TOKENS, cell="gru", window=None, **SMALL),
    "gpt": lambda window: GPTHead(WIDTH, HORIZON, ACTIONS, TOKENS, window=window, **SMALL),
}
NAMED = ActionSpec(("stop", "on", "left"), ("1",) * 3, (0.0,) * 3, (1.0,) * 3, "categorical", "none", "none")


def named(cell="lstm", temperature=0.0):
    return RecurrentCategoricalHead(
        WIDTH, HORIZON, 1, TOKENS, action=NAMED, cell=cell, size=16, layers=2, hidden=[16], temperature=temperature
    )


every_head = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in HEADS.items()])


def a_readout(batch=2, steps=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, steps, TOKENS, WIDTH, generator=generator, dtype=torch.float64).float()
    return Readout(tokens, torch.ones(batch, steps, dtype=torch.bool))


def part(readout, first, last):
    return Readout(readout.tokens[:, first:last], readout.steps[:, first:last])


@every_head
def test_a_carried_memory_says_what_one_pass_over_the_history_says(make):
    torch.manual_seed(0)
    window = 4
    head, episode = make(window), a_readout()
    memory = head.begin(2)
    for step in range(7):
        chunk, memory = head.sample_next(part(episode, step, step + 1), memory)
        first = 0 if head.window is None else max(0, step + 1 - window)
        whole = head.sample(part(episode, first, step + 1))
        assert torch.allclose(chunk, whole, atol=1e-6), step
        assert step < 2 or not torch.allclose(chunk, head.sample(part(episode, step, step + 1)), atol=1e-6)


@every_head
def test_a_row_of_a_memory_is_an_episode_of_its_own(make):
    torch.manual_seed(0)
    head, episode = make(4), a_readout(batch=3)
    together = head.begin(3)
    for step in range(6):
        chunk, together = head.sample_next(part(episode, step, step + 1), together)
    alone = head.begin(1)
    for step in range(6):
        mine = Readout(episode.tokens[1:2, step : step + 1], episode.steps[1:2, step : step + 1])
        single, alone = head.sample_next(mine, alone)
    assert torch.allclose(single[0], chunk[1], atol=1e-6)


@every_head
def test_steps_before_the_episode_began_are_as_if_they_were_not_there(make):
    torch.manual_seed(0)
    head, episode = make(7), a_readout()
    episode.steps[:, :3] = False
    episode.tokens[:, :3] = torch.nan
    assert torch.allclose(head.sample(episode), head.sample(part(episode, 3, 7)), atol=1e-6)


@every_head
def test_every_step_learns_its_own_chunk_from_what_came_before_it_alone(make):
    torch.manual_seed(0)
    head, episode = make(7), a_readout()
    actions, mask = torch.rand(2, 7, HORIZON, ACTIONS), torch.rand(2, 7, HORIZON) < 0.7
    whole = head.loss(episode, actions, mask)["loss"]
    one_by_one = sum(
        head.loss(part(episode, 0, t + 1), actions[:, t], mask[:, t])["loss"] * mask[:, t].sum() for t in range(7)
    )
    assert torch.allclose(whole, one_by_one / mask.sum(), rtol=1e-5)


@every_head
def test_padded_steps_change_neither_loss_nor_gradient(make):
    torch.manual_seed(0)
    head, results = make(7), []
    for garbage in (0.5, torch.nan):
        episode = a_readout()
        episode.steps[0, :4] = False
        episode.tokens[0, :4] = garbage
        tokens = episode.tokens.requires_grad_()
        actions = torch.full((2, 7, HORIZON, ACTIONS), 0.1)
        actions[0, :4] = garbage
        mask = episode.steps.unsqueeze(-1).expand(-1, -1, HORIZON)
        head.zero_grad()
        head.loss(Readout(tokens, episode.steps), actions, mask)["loss"].backward()
        assert not tokens.grad[0, :4].any() and tokens.grad[0, 4:].any()
        results.append(torch.cat([p.grad.flatten() for p in head.parameters()]))
    assert torch.equal(*results) and results[0].isfinite().all()


def test_the_lstm_head_is_robo_flamingos_written_out():
    """Max-pooled tokens, LSTM, an MLP each for pose and gripper; Huber distance + 0.01 x binary cross-entropy."""
    torch.manual_seed(0)
    head = RNNHead(WIDTH, 1, 7, TOKENS, size=16, layers=2, hidden=[32, 16], gripper=6)
    episode, actions = a_readout(batch=3, steps=5), torch.rand(3, 5, 1, 7) * 2 - 1
    lstm = torch.nn.LSTM(WIDTH, 16, 2, batch_first=True)
    lstm.load_state_dict(head.rnn.state_dict())
    seen, _ = lstm(episode.tokens.max(dim=2).values)
    pose, gripper = torch.tanh(head.motion(seen)), torch.sigmoid(head.grip(seen))
    huber = F.huber_loss(pose, actions[:, :, 0, :6])
    entropy = F.binary_cross_entropy(gripper, (actions[:, :, 0, 6:] > 0).float())
    said = head.loss(episode, actions, torch.ones(3, 5, 1, dtype=torch.bool))
    assert torch.allclose(said["loss"], huber + 0.01 * entropy, atol=1e-6)
    chunk = head.sample(episode)
    assert torch.allclose(chunk[:, 0, :6], pose[:, -1], atol=1e-6)
    assert torch.equal(chunk[:, 0, 6:], torch.where(gripper[:, -1] > 0.5, 1.0, -1.0))


def test_the_default_lstm_head_has_robo_flamingos_sizes():
    head = RNNHead(2048, 1, 7, 1, gripper=6)
    assert (head.rnn.hidden_size, head.rnn.num_layers, head.window) == (1024, 4, 12)
    assert [layer.out_features for layer in head.motion if hasattr(layer, "out_features")] == [1024, 512, 256, 6]
    assert [layer.out_features for layer in head.grip if hasattr(layer, "out_features")] == [1024, 512, 256, 1]


@pytest.mark.parametrize("name", ["lstm, window", "gpt"])
def test_it_remembers_what_only_the_first_step_showed(name):
    torch.manual_seed(0)
    head = HEADS[name](5)
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    mask = torch.ones(32, HORIZON, dtype=torch.bool)

    def shown(seed):
        episode = a_readout(32, 5, seed)
        episode.tokens[:, 0] = 2 * episode.tokens[:, 0, :1].sign()
        return episode, episode.tokens[:, 0, :1, :ACTIONS].sign().expand(-1, HORIZON, -1)

    for step in range(150):
        episode, target = shown(step % 20)
        optimiser.zero_grad()
        head.loss(episode, target * 0.9, mask)["loss"].backward()
        optimiser.step()
    episode, target = shown(0)
    assert (head.sample(episode).sign() == target).float().mean() > 0.95


@pytest.mark.parametrize("name", ["lstm, window", "gpt"])
def test_a_history_longer_than_the_window_is_refused(name):
    with pytest.raises(ValueError, match=r"reads 4 steps at most, but a history has 7: raise head\.window"):
        HEADS[name](4).sample(a_readout())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_named_actions_follow_from_the_whole_episode_however_it_is_read(cell):
    torch.manual_seed(0)
    head, episode = named(cell), a_readout()
    torch.nn.init.normal_(head.net[-1].weight)
    memory = head.begin(2)
    for step in range(7):
        chosen, memory = head.sample_next(part(episode, step, step + 1), memory)
        assert torch.equal(chosen, head.sample(part(episode, 0, step + 1))), step
    later = head._read(part(episode, 2, 7))
    assert not torch.allclose(later[:, -1], head._read(episode)[:, -1], atol=1e-6)


def test_the_loss_of_named_actions_is_that_of_every_step_and_padding_has_none():
    torch.manual_seed(0)
    head, episode = named(), a_readout(steps=4)
    actions = torch.randint(0, 3, (2, 4, HORIZON, 1)).float()
    mask = torch.ones(2, 4, HORIZON, dtype=torch.bool)
    mask[1, 2:] = False
    logits = head._logits(head._read(episode))
    expected = F.cross_entropy(logits[mask], actions[mask].squeeze(-1).long())
    assert torch.allclose(head.loss(episode, actions, mask)["loss"], expected)
    actions[1, 2:] = float("nan")
    assert torch.allclose(head.loss(episode, actions, mask)["loss"], expected)


def test_actions_are_drawn_by_their_shares_and_mistakes_are_named():
    head, episode = named(temperature=1.0), a_readout(batch=64, steps=1)
    drawn = head.sample(episode, [torch.Generator().manual_seed(i) for i in range(64)])
    assert drawn.shape == (64, HORIZON, 1) and set(drawn.unique().tolist()) == {0.0, 1.0, 2.0}
    with pytest.raises(ValueError, match="from 0 to 2, but the data has 3"):
        head.fit(torch.full((1, HORIZON, 1), 3.0), torch.ones(1, HORIZON, dtype=torch.bool))
    with pytest.raises(ValueError, match="cell is one of lstm, gru, got 'rnn'"):
        named("rnn")
    with pytest.raises(ValueError, match="temperature must not be negative"):
        named(temperature=-1)
