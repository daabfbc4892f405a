"""Speak a chunk of actions as words of the language model's own vocabulary.

RT-2 (Brohan et al. 2023, arXiv 2307.15818) and OpenVLA (Kim et al. 2024, arXiv 2406.09246): each number is clipped to
[-1, 1] and cut into 256 bins, a bin is one of the last 256 token ids, and the chunk is written step by step,
dimension by dimension, as one sentence of H x A tokens. It is learned by next-token prediction and decoded with the
prefix's key-value cache: the observation is never read twice. Slower than the other heads by the length of the
sentence, but it keeps the modes of demonstrations that disagree, and its loss is the language model's own.

The sentence opens with a projection of the readout tokens, where RT-2 has the end of the prompt; token i is then
predicted from the opening and the tokens before i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import ActionHead, Generators, Prefix, Readout, masked_mean
from policies.heads.pooling import Pool, Pooling


class TokenHead(ActionHead):
    """256-bin action tokens, decoded by the language model.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        bins: B edges on [-1, 1], as OpenVLA counts them: B - 1 intervals and, for +1 itself, id B.
        temperature: 0 takes the likeliest token; above, tokens are drawn from the action tokens' distribution.
        pooling: `mean` or `flatten` (`policies.heads.pooling`).

    Raises:
        ValueError: `bins` is not 2 to 256 or `temperature` is negative; when used: the readout has no prefix to
            decode on from, or its vocabulary has no room for action tokens.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        bins: int = 256,
        temperature: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if not 2 <= bins <= 256:
            raise ValueError(f"TokenHead: bins must be 2 to 256 (a vocabulary's last 256 ids are free), got {bins}")
        if temperature < 0:
            raise ValueError(f"TokenHead: temperature must not be negative, got {temperature}")
        self.temperature = temperature
        self.binning = Binning(bins)
        self.pool = Pool(pooling, width, readout_tokens)
        self.opening = nn.Linear(self.pool.width, width)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        prefix = self._prefix(readout)
        # What padding holds must not reach the tokens after it, nor its gradient anything.
        actions = actions.masked_fill(~mask.unsqueeze(-1), 0.0)
        ids = self.binning.encode(actions, prefix.vocabulary).flatten(1)
        hidden, _ = prefix.extend(torch.cat([self._opening(readout), prefix.embed(ids[:, :-1])], dim=1))
        logits = prefix.logits(hidden).float()
        surprise = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(actions)
        loss = masked_mean(surprise, mask)
        with torch.no_grad():
            guess = self._restrict(logits, prefix.vocabulary).argmax(-1) + prefix.vocabulary - self.binning.bins
            right = masked_mean((guess == ids).view_as(actions).float(), mask)
            off = masked_mean((self.binning.decode(guess, prefix.vocabulary).view_as(actions) - actions).abs(), mask)
        return {"loss": loss, "token_accuracy": right, "token_l1": off}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        prefix = self._prefix(readout)
        vocabulary, embeddings = prefix.vocabulary, self._opening(readout)
        first = vocabulary - self.binning.bins
        ids: list[Tensor] = []
        for _ in range(self.horizon * self.action_dim):
            hidden, prefix = prefix.extend(embeddings)
            logits = self._restrict(prefix.logits(hidden[:, -1:]).float(), vocabulary).squeeze(1)
            ids.append(first + self._choose(logits, generators))
            embeddings = prefix.embed(ids[-1].unsqueeze(1))
        chunk = self.binning.decode(torch.stack(ids, dim=1), vocabulary)
        return chunk.unflatten(-1, (self.horizon, self.action_dim))

    def _choose(self, logits: Tensor, generators: Generators | None) -> Tensor:
        """One of the action tokens per row, (B,), from their logits (B, bins)."""
        if self.temperature == 0:
            return logits.argmax(-1)
        shares = (logits / self.temperature).softmax(-1)
        if generators is None:
            return torch.multinomial(shares, 1).squeeze(1)
        # Drawn on the CPU, row by row, so that a seed gives the same tokens on every device and in every batch.
        rows = [torch.multinomial(row, 1, generator=g) for row, g in zip(shares.cpu(), generators, strict=True)]
        return torch.cat(rows).to(logits.device)

    def _restrict(self, logits: Tensor, vocabulary: int) -> Tensor:
        """Logits of the action tokens only, (..., bins)."""
        return logits[..., vocabulary - self.binning.bins : vocabulary]

    def _opening(self, readout: Readout) -> Tensor:
        return self.opening(self.pool(readout)).unsqueeze(1)

    def _prefix(self, readout: Readout) -> Prefix:
        if readout.prefix is None:
            raise ValueError("TokenHead decodes on from the observation, but this readout comes without its prefix")
        if readout.prefix.vocabulary <= self.binning.bins:
            size = readout.prefix.vocabulary
            raise ValueError(f"TokenHead needs {self.binning.bins} token ids of its own, but the vocabulary has {size}")
        return readout.prefix


class Binning(nn.Module):
    """Numbers in [-1, 1] to the last token ids of a vocabulary and back (OpenVLA's `ActionTokenizer`).

    `numpy.digitize` over `bins` edges gives k = 1 for the lowest interval up to `bins` for +1 itself, and the id is
    `vocabulary - k`. An id stands for the middle of its interval; +1 shares the middle of the topmost.
    """

    edges: Tensor
    centres: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        exact = torch.linspace(-1, 1, bins, dtype=torch.float64)
        edges = exact.float()
        # A float32 number is no less than an edge just when it is no less than the first float32 number that is not.
        edges = torch.where(edges < exact, edges.nextafter(torch.tensor(torch.inf)), edges)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("centres", ((exact[:-1] + exact[1:]) / 2).float(), persistent=False)

    def encode(self, actions: Tensor, vocabulary: int) -> Tensor:
        """Actions of any shape to token ids of that shape; magnitudes above 1 are clipped."""
        return vocabulary - torch.bucketize(actions.float().clamp(-1, 1), self.edges, right=True)

    def decode(self, ids: Tensor, vocabulary: int) -> Tensor:
        """Token ids of any shape to the middles of their intervals, float32."""
        return self.centres[(vocabulary - ids - 1).clamp(0, self.bins - 2)]
