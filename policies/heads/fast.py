"""FAST: a chunk as few tokens, by its frequencies (Pertsch et al. 2025, arXiv 2501.09747).

A smooth motion of H steps and A dimensions is nearly all low frequencies. So each dimension of the chunk is turned into
its cosine coefficients over time (DCT-II, orthonormal), these are scaled and rounded, which leaves mostly zeros, and
written down low frequencies first, all dimensions of one frequency side by side. What is left is a string over a small
alphabet, which byte-pair encoding (`tokenizers`), learned from the training data, shortens to a few tokens. The
language model says them one after the other; a chunk takes several times fewer of them than with one per number.

This is `FastCodec`, the published processor (`physical-intelligence/fast`) but for one thing: theirs runs the string
through a splitter made for English text, ours merges across the whole chunk.

The head's tokens have embeddings and an output layer of its own, so that a language model's vocabulary stays as it is
and their number is free.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import Generators, Readout
from policies.heads.pooling import Pooling
from policies.heads.speaking import SpeakingHead, choose

FIRST = 0x100
"""Symbol s is written as this character plus s: all of them printable and none of them a space."""


class FastHead(SpeakingHead):
    """Chunks as byte-pair encoded cosine coefficients, decoded by the language model.

    Wants actions normalised by quantiles, as the paper does (`processing.actions.mode=quantiles`).

    Args:
        width, horizon, action_dim, readout_tokens, temperature, pooling: see `SpeakingHead`.
        vocabulary: the most tokens that are learned.
        scale: what coefficients are multiplied by before rounding: more is finer and takes more tokens.
        constrained: whether decoding is limited to tokens that lead to a whole chunk, so that every sentence is one.
            Otherwise the model ends its sentences itself, and one that is no chunk of H x A coefficients becomes NaN:
            an evaluation counts it among the actions that are not finite, and `unreadable` counts it here.
        train_chunks: the most chunks that byte-pair encoding is learned from, taken evenly.

    Attributes:
        unreadable: how many sentences so far were no chunk.

    Raises:
        ValueError: an option is not possible; when used: before `fit` and without loaded weights.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        vocabulary: int = 1024,
        scale: float = 10.0,
        constrained: bool = True,
        train_chunks: int = 20_000,
        temperature: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, temperature, pooling)
        if vocabulary < 2 or train_chunks < 1 or scale <= 0:
            raise ValueError(
                f"FastHead: vocabulary must be at least 2, train_chunks at least 1 and scale positive, "
                f"got vocabulary={vocabulary}, train_chunks={train_chunks}, scale={scale}"
            )
        self.constrained, self.train_chunks, self.unreadable = constrained, train_chunks, 0
        self.codec = FastCodec(horizon, action_dim, vocabulary, scale)
        self.end = vocabulary  # the id behind the learned ones
        self.words = nn.Embedding(vocabulary + 1, width)
        nn.init.normal_(self.words.weight, std=0.02)
        self.speak = nn.Linear(width, vocabulary + 1, bias=False)

    def fit(self, chunks: Tensor, mask: Tensor) -> None:
        self.codec.fit(hold(chunks, mask)[mask.any(dim=1)], self.train_chunks)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        """Surprise at the sentence per number of the chunk, so that it compares with one token per number.

        All of a chunk's frequencies hang on all of its steps. Past an episode's end the last action is held, and such a
        chunk weighs as much as it has steps.
        """
        prefix, opening = self._prefix(readout), self._opening(readout)
        sentences = [[*ids, self.end] for ids in self.codec.encode(hold(actions, mask))]
        longest = max(map(len, sentences))
        padded = torch.tensor([ids + [-1] * (longest - len(ids)) for ids in sentences], device=opening.device)
        present = padded >= 0
        ids = padded.clamp(min=0)
        hidden, _ = prefix.extend(torch.cat([opening, self.words(ids[:, :-1])], dim=1))
        logits = self.speak(hidden).float()
        surprise = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
        steps = mask.sum(dim=1).to(surprise.dtype)
        weight = steps / steps.sum().clamp(min=1)
        loss = (surprise.masked_fill(~present, 0.0).sum(dim=1) / (self.horizon * self.action_dim) * weight).sum()
        with torch.no_grad():
            right = ((logits.argmax(-1) == ids) & present).sum(dim=1) / present.sum(dim=1)
            length = present.sum(dim=1) - 1.0
        return {"loss": loss, "token_accuracy": (right * weight).sum(), "chunk_tokens": (length * weight).sum()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        prefix, embeddings = self._prefix(readout), self._opening(readout)
        lengths = torch.tensor(self.codec.lengths(), device=embeddings.device)
        size = self.horizon * self.action_dim
        left = torch.full((len(embeddings),), size, device=embeddings.device)
        ended = torch.zeros_like(left, dtype=torch.bool)
        spoken: list[Tensor] = []
        while len(spoken) <= size and not bool(ended.all()):
            hidden, prefix = prefix.extend(embeddings)
            logits = self.speak(hidden[:, -1]).float()
            if self.constrained:
                fits = (lengths > 0) & (lengths <= left.unsqueeze(1))
                fits = torch.cat([fits, (left == 0).unsqueeze(1)], dim=1)
            else:
                fits = F.pad(lengths > 0, (0, 1), value=True).expand_as(logits)
            ids = choose(logits.masked_fill(~fits, -torch.inf), self.temperature, generators, ended.tolist())
            ids = ids.masked_fill(ended, self.end)
            spoken.append(ids)
            left = left - F.pad(lengths, (0, 1))[ids]
            ended = ended | (ids == self.end) | ((left == 0) if self.constrained else torch.zeros_like(ended))
            embeddings = self.words(ids.unsqueeze(1))
        return self._read(torch.stack(spoken, dim=1)).to(embeddings.device)

    def _read(self, spoken: Tensor) -> Tensor:
        """Token ids (B, N), each row up to its end token, to chunks (B, H, A); NaN where a row is none."""
        chunks = []
        for ids in spoken.tolist():
            sentence = ids[: ids.index(self.end)] if self.end in ids else ids
            chunk = self.codec.decode(sentence)
            self.unreadable += chunk is None
            chunks.append(torch.full((self.horizon, self.action_dim), torch.nan) if chunk is None else chunk)
        return torch.stack(chunks)


@dataclass
class _Words:
    """Byte-pair encoding as the buffers describe it.

    Attributes:
        version: of the buffers it was made from.
        bpe: encodes strings.
        spelled: per token id its symbols.
    """

    version: tuple[int, int]
    bpe: Tokenizer
    spelled: list[list[int]]


class FastCodec(nn.Module):
    """Chunks (H, A) to token ids and back. What `fit` learns is kept in buffers.

    Args:
        horizon, action_dim: H and A.
        vocabulary: the most token ids.
        scale: what coefficients are multiplied by before they are rounded.

    Attributes:
        merges: (vocabulary, 3), int64: pairs of token ids in the order they are merged, and what they become; -1 where
            there are no more. The first `symbols` ids are single coefficients.
        alphabet: the lowest rounded coefficient and how many follow each other from there, (2,), int64.
    """

    merges: Tensor
    alphabet: Tensor

    def __init__(self, horizon: int, action_dim: int, vocabulary: int, scale: float) -> None:
        super().__init__()
        self.horizon, self.action_dim, self.vocabulary, self.scale = horizon, action_dim, vocabulary, scale
        self.register_buffer("merges", torch.full((vocabulary, 3), -1))
        self.register_buffer("alphabet", torch.zeros(2, dtype=torch.long))
        self._transform = cosines(horizon)  # used on the CPU, where byte-pair encoding runs
        self._words: _Words | None = None

    def fit(self, chunks: Tensor, train_chunks: int) -> None:
        """Learn the alphabet from all chunks (N, H, A), and what to merge from at most `train_chunks` of them.

        Raises:
            ValueError: there are no chunks, or more different coefficients than the vocabulary can hold.
        """
        if not len(chunks):
            raise ValueError("FastHead: there is not one chunk to learn tokens from")
        coefficients = self._coefficients(chunks)
        lowest, highest = int(coefficients.min()), int(coefficients.max())
        count = highest - lowest + 1
        if count > self.vocabulary:
            raise ValueError(
                f"FastHead: at scale {self.scale:g} the data's coefficients go from {lowest} to {highest}, more values "
                f"than the vocabulary of {self.vocabulary} has tokens: normalise actions, lower head.scale or raise "
                f"head.vocabulary"
            )
        chosen = torch.linspace(0, len(chunks) - 1, min(len(chunks), train_chunks)).round().long()
        bpe = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            min_frequency=2,
            initial_alphabet=[chr(FIRST + symbol) for symbol in range(count)],
            max_token_length=10_000,
            show_progress=False,
        )
        bpe.train_from_iterator((_write(row) for row in (coefficients[chosen] - lowest).tolist()), trainer)
        learned = json.loads(bpe.to_str())["model"]
        ids, pairs = learned["vocab"], learned["merges"][: self.vocabulary]
        assert all(ids[chr(FIRST + symbol)] == symbol for symbol in range(count))
        self.merges.fill_(-1)
        if pairs:
            rows = [[ids[left], ids[right], ids[left + right]] for left, right in pairs]
            self.merges[: len(rows)] = torch.tensor(rows)
        self.alphabet.copy_(torch.tensor([lowest, count]))

    def encode(self, chunks: Tensor) -> list[list[int]]:
        """Chunks (B, H, A) to token ids; coefficients beyond those of the training data become the nearest of them."""
        words, (lowest, count) = self._learned(), self.alphabet.tolist()
        symbols = (self._coefficients(chunks) - lowest).clamp(0, count - 1).tolist()
        return [encoding.ids for encoding in words.bpe.encode_batch([_write(row) for row in symbols])]

    def decode(self, ids: Sequence[int]) -> Tensor | None:
        """Token ids to a chunk (H, A), float32 on the CPU; None where they do not spell H x A coefficients."""
        spelled, (lowest, _) = self._learned().spelled, self.alphabet.tolist()
        symbols = [symbol for token in ids for symbol in spelled[token]]
        if len(symbols) != self.horizon * self.action_dim:
            return None
        coefficients = torch.tensor(symbols).view(self.horizon, self.action_dim) + lowest
        return (self._transform.mT @ (coefficients.double() / self.scale)).float()

    def lengths(self) -> list[int]:
        """How many coefficients each token id spells; 0 for ids that were not needed."""
        return [len(symbols) for symbols in self._learned().spelled]

    def _coefficients(self, chunks: Tensor) -> Tensor:
        """Rounded coefficients, low frequencies first, (B, H x A), int64 on the CPU."""
        return (self._transform @ chunks.detach().cpu().double() * self.scale).round().long().flatten(1)

    def _learned(self) -> _Words:
        version = (id(self.merges), self.merges._version)  # loading weights and moving to a device change it
        if self._words is None or self._words.version != version:
            self._words = self._rebuild(version)
        return self._words

    def _rebuild(self, version: tuple[int, int]) -> _Words:
        count = int(self.alphabet[1])
        if count == 0:
            raise ValueError("FastHead has no tokens yet: fit it to the data or load a trained agent")
        spelled: list[list[int]] = [[symbol] if symbol < count else [] for symbol in range(self.vocabulary)]
        pairs = []
        for left, right, merged in self.merges.tolist():
            if merged >= 0:
                spelled[merged] = spelled[left] + spelled[right]
                pairs.append((_write(spelled[left]), _write(spelled[right])))
        vocabulary = {_write(symbols): i for i, symbols in enumerate(spelled) if symbols}
        return _Words(version, Tokenizer(models.BPE(vocab=vocabulary, merges=pairs)), spelled)


def cosines(size: int) -> Tensor:
    """The orthonormal DCT-II as a matrix (size, size), float64: row k holds the cosine of frequency k."""
    steps = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(torch.pi / size * (steps + 0.5) * steps.unsqueeze(1)) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


def hold(actions: Tensor, mask: Tensor) -> Tensor:
    """Actions (B, H, A) with each step that `mask` (B, H) leaves out replaced by the last one before that it keeps.

    Steps before the first kept one become that one; a row without any becomes 0.
    """
    order = torch.arange(mask.shape[1], device=mask.device)
    latest = torch.where(mask, order, -1).cummax(dim=1).values
    first = mask.to(torch.int64).argmax(dim=1, keepdim=True)
    index = torch.maximum(latest, first)
    held = actions.gather(1, index.unsqueeze(-1).expand_as(actions))
    return torch.where(mask.any(dim=1)[:, None, None], held, torch.zeros_like(held))


def _write(symbols: Sequence[int]) -> str:
    return "".join(chr(FIRST + symbol) for symbol in symbols)
