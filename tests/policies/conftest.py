"""A language model small enough to write out: what a head needs from one, and nothing of ours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from embodied.contracts import Readout

WIDTH, VOCABULARY = 16, 300


class TinyLanguageModel(nn.Module):
    """One attention layer over what it was told."""

    def __init__(self, width=WIDTH, vocabulary=VOCABULARY):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(128, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.speak = nn.Linear(width, vocabulary)

    def read(self, observation):
        """A prefix of observation tokens (B, L, D)."""
        empty = observation[:, None, :0]  # one attention head
        nothing = torch.zeros(len(observation), 0, dtype=torch.bool)
        return TinyPrefix(self, [empty], [empty], nothing).extend(observation)[1]


@dataclass
class TinyPrefix:
    model: TinyLanguageModel
    keys: list
    values: list
    present: torch.Tensor

    @property
    def vocabulary(self):
        return self.model.words.num_embeddings

    def embed(self, ids):
        return self.model.words(ids)

    def logits(self, hidden):
        return self.model.speak(hidden)

    def extend(self, embeddings, causal=True):
        (past,) = self.present.shape[1:]
        new = embeddings.shape[1]
        x = embeddings + self.model.places(torch.arange(past, past + new))
        keys = torch.cat([self.keys[0], self.model.key(x).unsqueeze(1)], dim=2)
        values = torch.cat([self.values[0], self.model.value(x).unsqueeze(1)], dim=2)
        scores = self.model.query(x) @ keys[:, 0].mT / math.sqrt(x.shape[-1])
        sees = torch.ones(new, past + new, dtype=torch.bool)
        sees = sees.tril(past) if causal else sees
        x = x + scores.masked_fill(~sees, -torch.inf).softmax(-1) @ values[:, 0]
        present = torch.ones(len(x), past + new, dtype=torch.bool)
        return x + self.model.think(x), TinyPrefix(self.model, [keys], [values], present)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are slowed down by a second thread, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def language_model():
    torch.manual_seed(0)
    return TinyLanguageModel()


@pytest.fixture
def observe(language_model):
    """Readouts of random observations: three history steps, the last of which is padding in half of the rows."""

    def observe(batch=8, tokens=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        readouts = torch.randn(batch, 3, tokens, WIDTH, generator=generator)
        steps = torch.ones(batch, 3, dtype=torch.bool)
        steps[: batch // 2, -1] = False
        seen = Readout(readouts, steps).last
        return Readout(readouts, steps, language_model.read(seen))

    return observe


@pytest.fixture
def rows():
    """Some rows of a readout, with the prefix they come with."""

    def rows(readout, index):
        p = readout.prefix
        prefix = TinyPrefix(p.model, [p.keys[0][index]], [p.values[0][index]], p.present[index])
        return Readout(readout.tokens[index], readout.steps[index], prefix)

    return rows
