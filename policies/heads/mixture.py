"""A mixture of Gaussians over each action, or over the whole chunk, learned by its likelihood.

robomimic's BC-GMM (Mandlekar et al. 2021, arXiv 2108.03298; `GMMActorNetwork` in `policy_nets.py`): a network says how
likely each of a few modes is, where it lies and how wide it is. It keeps the modes of demonstrations that disagree at
the price of one forward pass. As there, a mode's mean is squashed into [-1, 1], and actions are executed with almost no
noise around it, though learned with all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.contracts import ActionHead, Generators, Readout, draw_normal, draw_uniform, masked_mean
from policies.heads.pooling import Pool, Pooling
from policies.heads.regression import perceptron

Per = Literal["step", "chunk"]
Choose = Literal["draw", "likeliest"]


class MixtureHead(ActionHead):
    """MLP from the readout to a Gaussian mixture.

    Args:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        modes: K (robomimic: 5).
        per: `step`: each step of the chunk has a mixture of its own, as if robomimic's were asked once per step;
            `chunk`: one choice among K whole chunks, so that all steps follow the same way round an obstacle.
        choose: `draw` a mode by its probability, or take the `likeliest`.
        sample_std: standard deviation of the noise that is executed around the mode's mean (robomimic's
            `low_noise_eval`: 1e-4); null: as learned; 0: none.
        min_std: least standard deviation that is learned (robomimic: 1e-4).
        hidden: widths of the hidden layers (robomimic: 1024, 1024).
        pooling: `mean`, `max` or `flatten` (`policies.heads.pooling`).
        dropout: share of hidden units dropped in training.
        tanh: whether means are squashed into [-1, 1].

    Raises:
        ValueError: an unknown option; a number out of its range.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        modes: int = 5,
        per: Per = "step",
        choose: Choose = "draw",
        sample_std: float | None = 1e-4,
        min_std: float = 1e-4,
        hidden: Sequence[int] = (512, 256),
        pooling: Pooling = "flatten",
        dropout: float = 0.0,
        tanh: bool = True,
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens)
        for name, value, options in (("per", per, get_args(Per)), ("choose", choose, get_args(Choose))):
            if value not in options:
                raise ValueError(f"MixtureHead: {name} is one of {', '.join(options)}, got {value!r}")
        if modes < 1 or min_std <= 0 or (sample_std is not None and sample_std < 0):
            raise ValueError(
                f"MixtureHead: modes and min_std must be positive and sample_std not negative, "
                f"got modes={modes}, min_std={min_std}, sample_std={sample_std}"
            )
        self.modes, self.per, self.choose, self.tanh = modes, per, choose, tanh
        self.sample_std, self.min_std = sample_std, min_std
        self.choices = 1 if per == "chunk" else horizon
        self.pool = Pool(pooling, width, readout_tokens)
        numbers = 2 * horizon * modes * action_dim + self.choices * modes
        self.net = perceptron([self.pool.width, *hidden, numbers], nn.ReLU, dropout)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        """Negative log-likelihood per step of the chunk, in nats, the dimensions of a step summed as robomimic does."""
        means, stds, logits = self.mixture(readout)
        actions = actions.masked_fill(~mask.unsqueeze(-1), 0.0).unsqueeze(2)
        far = (actions - means) / stds
        densities = (-0.5 * far.square() - stds.log() - 0.5 * math.log(2 * math.pi)).sum(-1)  # (B, H, K)
        densities = torch.where(mask.unsqueeze(-1), densities, 0.0)
        if self.per == "chunk":
            densities = densities.sum(1, keepdim=True)
        surprise = -(densities + logits.log_softmax(-1)).logsumexp(-1)  # (B, H), or (B, 1)
        if self.per == "chunk":
            kept = mask.any(1)
            loss = torch.where(kept, surprise.squeeze(1), 0.0).sum() / mask.sum().clamp(min=1)
        else:
            loss = masked_mean(surprise.unsqueeze(-1), mask)
        error = (means - actions).abs().mean(-1)
        likeliest = error.gather(2, logits.argmax(-1, keepdim=True).expand(-1, self.horizon, -1))
        return {"loss": loss, "likeliest_l1": masked_mean(likeliest, mask).detach()}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        means, stds, logits = self.mixture(readout)
        if self.choose == "draw":  # the largest of log-probabilities with Gumbel noise is a draw (Gumbel 1954)
            uniform = draw_uniform(logits.shape, logits, generators)
            logits = logits - (-uniform.clamp(min=1e-20).log()).clamp(min=1e-20).log()
        chosen = logits.argmax(-1).expand(-1, self.horizon)[..., None, None].expand(-1, -1, 1, self.action_dim)
        mean, std = means.gather(2, chosen).squeeze(2), stds.gather(2, chosen).squeeze(2)
        if self.sample_std == 0:
            return mean
        noise = draw_normal(mean.shape, mean, generators)
        return mean + noise * (std if self.sample_std is None else self.sample_std)

    def mixture(self, readout: Readout) -> tuple[Tensor, Tensor, Tensor]:
        """Means and standard deviations (B, H, K, A), and the modes' logits, (B, H, K) or (B, 1, K) for a chunk."""
        numbers = self.net(self.pool(readout)).float()
        size = self.horizon * self.modes * self.action_dim
        shape = (self.horizon, self.modes, self.action_dim)
        means, scales, logits = numbers.split([size, size, self.choices * self.modes], dim=-1)
        means = means.unflatten(-1, shape)
        stds = F.softplus(scales).unflatten(-1, shape) + self.min_std
        return means.tanh() if self.tanh else means, stds, logits.unflatten(-1, (self.choices, self.modes))
