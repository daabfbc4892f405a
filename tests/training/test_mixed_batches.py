"""Mixed batches on their way to a crew: rows, counts and devices of their parts, and curves of their sources."""

import pytest
import torch
from fakes.training import TinyStream

from embodied.data.mixture import ROW, SOURCES, Mixture, MixtureStream
from embodied.training.feed import Part, fetch, kept_steps, shares, to_device
from embodied.training.log import per_source


class Source(TinyStream):
    def __len__(self):
        return self.samples

    def batch(self, indices):
        return self.gather(indices)


@pytest.fixture
def stream():
    return MixtureStream(Mixture({"a": Source(samples=10), "b": Source(samples=7)}), {"b": 2.0}, 9, seed=0)


def test_the_parts_of_a_step_keep_together_what_the_whole_batch_does(stream):
    whole = stream.gather(stream.indices(3))
    for processes, accumulate in ((1, 1), (2, 1), (2, 2), (3, 3)):
        parts = fetch(stream, 3, shares(9, processes, accumulate))
        assert sum(part.kept for part in parts) == kept_steps(whole)
        assert all(part.kept == kept_steps(part.batch) for part in parts)


def test_a_row_is_found_in_its_source(stream):
    part = fetch(stream, 0, shares(9, 1, 1))[0]
    for i, index in enumerate(part.indices):
        one: Part = part.row(i)
        ((name, batch),) = one.batch[SOURCES].items()
        source, local = stream.source.place(int(index))
        assert (name, batch[ROW], one.seeds.tolist()) == (source, [0], [part.seeds[i]])
        expected = stream.source.sources[source].batch([local])
        assert torch.equal(batch["observation.state"], expected["observation.state"])


def test_every_part_goes_to_the_device(stream):
    moved = to_device(stream.gather(stream.indices(0)), torch.device("meta"))
    assert {t.device.type for p in moved[SOURCES].values() for t in p.values() if torch.is_tensor(t)} == {"meta"}
    assert all(isinstance(part[ROW], list) for part in moved[SOURCES].values())


def test_a_sources_own_loss_is_what_it_added_by_its_share():
    means = {"loss": 2.0, "loss/a": 1.5, "share/a": 0.75, "loss/b": 0.5, "share/b": 0.25, "loss/c": 0.0, "share/c": 0.0}
    assert per_source(means | {"grad_norm": 1.0}) == {"loss": 2.0, "grad_norm": 1.0, "loss/a": 2.0, "loss/b": 2.0}
    assert per_source({"loss": 1.0, "motion": 2.0}) == {"loss": 1.0, "motion": 2.0}
