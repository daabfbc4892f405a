"""Speak a chunk of actions as words of the language model's own vocabulary.

RT-2 (Brohan et al. 2023, arXiv 2307.15818) and OpenVLA (Kim et al. 2024, arXiv 2406.09246): each number is clipped to
[-1, 1] and cut into 256 bins (`policies.heads.binning`), a bin is one of the last 256 token ids, and the chunk is
written step by step, dimension by dimension, as one sentence of H x S tokens.

`decoding=autoregressive` learns it by next-token prediction and decodes with the prefix's key-value cache: the
observation is never read twice. Slower than the other heads by the length of the sentence, but it keeps the modes of
demonstrations that disagree, and its loss is the language model's own. The sentence opens with a projection of the
readout tokens, where RT-2 has the end of the prompt; token i is then predicted from the opening and the tokens before.

`decoding=parallel` is OpenVLA-OFT's (Kim et al. 2025, arXiv 2502.19645): the language model reads the opening and one
learned placeholder per token, which all see one another, and answers every placeholder at once. One pass whatever the
length of the chunk; each token is then the likeliest by itself, not given the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import Generators, Prefix, Readout, masked_mean
from policies.heads.binning import Binnings, make_binning
from policies.heads.pooling import Pooling
from policies.heads.speaking import SpeakingHead, choose

Decoding = Literal["autoregressive", "parallel"]


class TokenHead(SpeakingHead):
    """256-bin action tokens, decoded by the language model.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        bins: how many bins there are: `openvla` counts edges on [-1, 1], so that there are one fewer intervals and the
            last bin is +1 itself.
        binning: `openvla` or `rt1` (`policies.heads.binning`).
        one_hot: for `rt1`, groups of dimensions that are one choice together.
        decoding: `autoregressive` or `parallel`.
        temperature: 0 takes the likeliest token; above, tokens are drawn from the action tokens' distribution.
        pooling: `mean` or `flatten` (`policies.heads.pooling`).

    Raises:
        ValueError: an unknown option, `bins` is not 2 to 256 or `temperature` is negative; when used: the readout has
            no prefix to decode on from, or its vocabulary has no room for action tokens.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        bins: int = 256,
        binning: Binnings = "openvla",
        one_hot: Sequence[Sequence[int]] = (),
        decoding: Decoding = "autoregressive",
        temperature: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, temperature, pooling)
        if not 2 <= bins <= 256:
            raise ValueError(f"TokenHead: bins must be 2 to 256 (a vocabulary's last 256 ids are free), got {bins}")
        if decoding not in get_args(Decoding):
            raise ValueError(f"TokenHead: decoding is one of {', '.join(get_args(Decoding))}, got {decoding!r}")
        self.binning = make_binning(binning, action_dim, bins, one_hot)
        self.length = horizon * self.binning.slots
        parallel = decoding == "parallel"
        self.placeholders = nn.Parameter(torch.randn(self.length, width) * 0.02) if parallel else None

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        prefix = self._prefix(readout)
        first = prefix.vocabulary - self.binning.bins
        # What padding holds must not reach the tokens after it, nor its gradient anything.
        actions = actions.masked_fill(~mask.unsqueeze(-1), 0.0)
        bins = self.binning.encode(actions)
        if self.placeholders is None:
            spoken = prefix.embed(first + bins.flatten(1)[:, :-1])
            hidden, _ = prefix.extend(torch.cat([self._opening(readout), spoken], dim=1))
        else:
            hidden = self._answers(prefix, readout)
        logits = prefix.logits(hidden).float()
        surprise = F.cross_entropy(logits.flatten(0, 1), first + bins.flatten(), reduction="none").view_as(bins)
        loss = masked_mean(surprise, mask)
        with torch.no_grad():
            guess = logits[..., first : prefix.vocabulary].argmax(-1).view_as(bins)
            right = masked_mean((guess == bins).float(), mask)
            off = masked_mean((self.binning.decode(guess) - actions).abs(), mask)
        return {"loss": loss, "token_accuracy": right, "token_l1": off}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        prefix = self._prefix(readout)
        first, last = prefix.vocabulary - self.binning.bins, prefix.vocabulary
        bins: list[Tensor] = []
        if self.placeholders is None:
            embeddings = self._opening(readout)
            for _ in range(self.length):
                hidden, prefix = prefix.extend(embeddings)
                logits = prefix.logits(hidden[:, -1]).float()[:, first:last]
                bins.append(choose(logits, self.temperature, generators))
                embeddings = prefix.embed(first + bins[-1].unsqueeze(1))
        else:
            logits = prefix.logits(self._answers(prefix, readout)).float()[..., first:last]
            bins = [choose(logits[:, i], self.temperature, generators) for i in range(self.length)]
        return self.binning.decode(torch.stack(bins, dim=1).unflatten(-1, (self.horizon, self.binning.slots)))

    def _answers(self, prefix: Prefix, readout: Readout) -> Tensor:
        """Hidden states (B, H x S, D) at the placeholders, from one pass in which they see one another."""
        assert self.placeholders is not None
        opening = self._opening(readout)
        asked = self.placeholders.to(opening.dtype).expand(len(opening), -1, -1)
        hidden, _ = prefix.extend(torch.cat([opening, asked], dim=1), causal=False)
        return hidden[:, 1:]

    def _prefix(self, readout: Readout) -> Prefix:
        prefix = super()._prefix(readout)
        if prefix.vocabulary <= self.binning.bins:
            raise ValueError(
                f"TokenHead needs {self.binning.bins} token ids of its own, but the vocabulary has {prefix.vocabulary}"
            )
        return prefix
