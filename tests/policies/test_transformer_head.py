"""Action queries look where they are told to, and nowhere else."""

import dataclasses

import pytest
import torch

from embodied.contracts import Readout
from embodied.lvlm.observer import Prefix
from policies.heads.transformer import TransformerHead

WIDTH, HORIZON, ACTIONS, TOKENS = 8, 4, 3, 2


def a_readout(batch=3, steps=3, length=5):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(batch, steps, TOKENS, WIDTH, generator=generator)
    hidden = torch.randn(batch, length, WIDTH, generator=generator)
    prefix = Prefix(None, [], torch.ones(batch, length, dtype=torch.bool), hidden)
    return Readout(tokens, torch.ones(batch, steps, dtype=torch.bool), prefix)


def a_head(attend, **options):
    torch.manual_seed(0)
    return TransformerHead(WIDTH, HORIZON, ACTIONS, TOKENS, attend, size=16, layers=2, **options).eval()


def moved(head, readout, other):
    return bool((head.sample(readout) - head.sample(other)).abs().max() > 1e-6)


@pytest.mark.parametrize(
    "attend, latest, earlier, prefix",
    [("readout", True, False, False), ("steps", True, True, False), ("prefix", False, False, True)],
)
def test_it_reads_what_it_attends(attend, latest, earlier, prefix):
    head, readout = a_head(attend), a_readout()
    for step, expected in ((2, latest), (0, earlier)):
        tokens = readout.tokens.clone()
        tokens[:, step] += 1
        assert moved(head, readout, dataclasses.replace(readout, tokens=tokens)) == expected
    other = Prefix(None, [], readout.prefix.present, readout.prefix.hidden.roll(1, dims=-1))
    assert moved(head, readout, dataclasses.replace(readout, prefix=other)) == prefix


def test_padding_of_the_prefix_is_not_attended():
    head, readout = a_head("prefix"), a_readout()
    shorter = Prefix(None, [], readout.prefix.present[:, :3], readout.prefix.hidden[:, :3])
    readout.prefix.present[:, 3:] = False
    chunk = head.sample(readout)
    assert torch.allclose(chunk, head.sample(dataclasses.replace(readout, prefix=shorter)), atol=1e-6)


def test_how_long_ago_a_step_was_matters_and_how_many_are_padded_does_not():
    head, readout = a_head("steps"), a_readout()
    swapped = dataclasses.replace(readout, tokens=readout.tokens[:, [1, 0, 2]])
    assert moved(head, readout, swapped)
    longer = Readout(
        torch.cat([torch.full((3, 2, TOKENS, WIDTH), torch.nan), readout.tokens], dim=1),
        torch.cat([torch.zeros(3, 2, dtype=torch.bool), readout.steps], dim=1),
    )
    assert torch.allclose(head.sample(longer), head.sample(readout), atol=1e-6)


def test_a_gripper_is_open_or_closed():
    chunk = a_head("readout", gripper=1, tanh=True).sample(a_readout(16))
    assert set(chunk[..., 1].unique().tolist()) <= {-1.0, 1.0} and chunk.abs().max() <= 1


def test_a_broken_number_stays_broken_also_in_the_gripper():
    head, readout = a_head("readout", gripper=1), a_readout()
    readout.tokens[0] = torch.nan
    chunk = head.sample(readout)
    assert chunk[0].isnan().all() and chunk[1:].isfinite().all()


def test_a_readout_without_its_prefix_is_refused():
    head = a_head("prefix")
    assert head.reads_prefix and not a_head("steps").reads_prefix
    with pytest.raises(ValueError, match="comes without it"):
        head.sample(dataclasses.replace(a_readout(), prefix=None))
