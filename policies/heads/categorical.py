"""Choose an action by its name, or draw numbers around one answer: LLaRP's two action decoders.

LLaRP (Szot et al. 2024, arXiv 2310.17722; `llarp/policies/action_decoders.py`): two layers with layer norm behind the
readout, then one linear layer that starts near zero, so that training starts from an even choice. Where LLaRP learns by
reinforcement, the loss here is the demonstration's surprise, which is the same distribution's.

`CategoricalHead` is for bodies whose actions are names (`ActionSpec.kind == "categorical"`: skills, turn left, stop);
an action is the index of one. `GaussianHead` is for numbers, with one learned spread per number, whatever is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import ActionHead, Generators, Readout, draw_normal, masked_mean
from embodied.spec import ActionSpec
from policies.heads.pooling import Pool, Pooling
from policies.heads.speaking import choose


class Decoder(nn.Sequential):
    """Linear, layer norm, ReLU for each of `hidden`, then a linear layer that starts near zero (LLaRP's gain, 0.01)."""

    def __init__(self, size: int, hidden: Sequence[int], out: int) -> None:
        sizes = [size, *hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.ReLU()]
        last = nn.Linear(sizes[-1], out)
        nn.init.orthogonal_(last.weight, gain=0.01)
        nn.init.zeros_(last.bias)
        super().__init__(*layers, last)


class NamedHead(ActionHead):
    """What heads that choose among named actions share: the choice at each step of a chunk, by its logits.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`; `action_dim` is 1, the index.
        action: the body's actions; only how many names there are is read.
        temperature: 0 takes the likeliest action; above, actions are drawn by their shares at that temperature.

    Raises:
        ValueError: the actions are not categorical, or the temperature is negative.
    """

    kinds = ("categorical",)

    def __init__(
        self, width: int, horizon: int, action_dim: int, readout_tokens: int, action: ActionSpec, temperature: float
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if action.kind != "categorical":
            raise ValueError(f"{type(self).__name__} chooses among named actions, but these are {action.kind}")
        if temperature < 0:
            raise ValueError(f"{type(self).__name__}: temperature must not be negative, got {temperature}")
        self.names, self.temperature = action.names, temperature

    def fit(self, chunks: Tensor, mask: Tensor) -> None:
        """Check that every action of the data is the index of a name.

        Raises:
            ValueError: naming the first that is not.
        """
        check_indices(chunks[mask], len(self.names))

    def decoder(self, size: int, hidden: Sequence[int]) -> Decoder:
        """From features (..., size) to what `logits` takes."""
        return Decoder(size, hidden, self.horizon * len(self.names))

    def logits(self, decoded: Tensor) -> Tensor:
        """(..., H, names), float32 also under autocast."""
        return decoded.unflatten(-1, (self.horizon, len(self.names))).float()

    def surprise(self, logits: Tensor, actions: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the demonstrated names, and how often the likeliest is right.

        Args:
            logits: (..., H, names).
            actions: indices, (..., H, 1).
            mask: (..., H); False where there is nothing to learn.
        """
        wanted = actions.squeeze(-1).masked_fill(~mask, 0.0).long()
        surprise = F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="none").view_as(actions)
        right = masked_mean((logits.argmax(-1) == wanted).unsqueeze(-1).float(), mask)
        return {"loss": masked_mean(surprise, mask), "accuracy": right.detach()}

    def choice(self, logits: Tensor, generators: Generators | None) -> Tensor:
        """Indices (B, H, 1) by logits (B, H, names)."""
        steps = [choose(logits[:, step], self.temperature, generators) for step in range(self.horizon)]
        return torch.stack(steps, dim=1).unsqueeze(-1).float()


class CategoricalHead(NamedHead):
    """A distribution over the names of actions, per step of the chunk.

    Args:
        width, horizon, action_dim, readout_tokens, action, temperature: see `NamedHead`.
        hidden: widths of the hidden layers.
        pooling: `mean`, `max` or `flatten` (`policies.heads.pooling`).

    Raises:
        ValueError: the actions are not categorical, or an option is not possible.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        *,
        action: ActionSpec,
        hidden: Sequence[int] = (512, 512),
        temperature: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, action, temperature)
        self.pool = Pool(pooling, width, readout_tokens)
        self.net = self.decoder(self.pool.width, hidden)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        return self.surprise(self._logits(readout), actions, mask)

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        return self.choice(self._logits(readout), generators)

    def _logits(self, readout: Readout) -> Tensor:
        return self.logits(self.net(self.pool(readout)))


class GaussianHead(ActionHead):
    """Independent normal distributions around one answer, with a spread that does not depend on what is seen.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        hidden: widths of the hidden layers.
        log_std: what the logarithm of the spread starts from and is limited to: (start, low, high).
        sample_std: what the spread is multiplied by in `sample`; 0 gives the answer itself.
        pooling: `mean`, `max` or `flatten` (`policies.heads.pooling`).

    Raises:
        ValueError: an option is not possible.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        hidden: Sequence[int] = (512, 512),
        log_std: Sequence[float] = (0.0, -5.0, 2.0),
        sample_std: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        if len(log_std) != 3 or not log_std[1] <= log_std[0] <= log_std[2]:
            raise ValueError(f"GaussianHead: log_std is start, low, high with low <= start <= high, got {log_std}")
        if sample_std < 0:
            raise ValueError(f"GaussianHead: sample_std must not be negative, got {sample_std}")
        start, self.low, self.high = log_std
        self.sample_std = sample_std
        self.pool = Pool(pooling, width, readout_tokens)
        self.net = Decoder(self.pool.width, hidden, horizon * action_dim)
        self.log_std = nn.Parameter(torch.full((action_dim,), float(start)))

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        """Negative log-likelihood per number, in nats."""
        actions = actions.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever padding holds, NaN too, no gradient sees it
        mean = self._mean(readout)
        surprise = -torch.distributions.Normal(mean, self._std(), validate_args=False).log_prob(actions)
        error = masked_mean((mean.detach() - actions).abs(), mask)
        return {"loss": masked_mean(surprise, mask), "l1": error, "std": self._std().mean().detach()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        mean = self._mean(readout)
        if self.sample_std == 0:
            return mean
        return mean + self.sample_std * self._std() * draw_normal(mean.shape, mean, generators)

    def _mean(self, readout: Readout) -> Tensor:
        """(B, H, A), float32 also under autocast."""
        return self.net(self.pool(readout)).unflatten(-1, (self.horizon, self.action_dim)).float()

    def _std(self) -> Tensor:
        return self.log_std.clamp(self.low, self.high).exp()


def check_indices(actions: Tensor, names: int) -> None:
    """Stop at an action that is no index of `names` names.

    Raises:
        ValueError: naming it.
    """
    wrong = ~((actions == actions.round()) & (actions >= 0) & (actions < names))
    if wrong.any():
        value = float(actions[wrong][0])
        raise ValueError(f"a categorical action is an index from 0 to {names - 1}, but the data has {value:g}")
