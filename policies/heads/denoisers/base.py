"""What a denoiser is: a network from a noisy chunk, its noise level and the readout to a chunk of the same shape.

What its output means (the noise, the clean chunk, a velocity) is the head's affair, so any denoiser serves any head.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from embodied.contracts import Readout
from policies.heads.pooling import Pool, Pooling


@dataclass(frozen=True)
class Sizes:
    """What a denoiser has to fit, known only once the model and the embodiment are.

    Attributes:
        width, horizon, action_dim, readout_tokens: see `ActionHead`.
        layers: the language model's transformers configuration, with `model_type` and `head_dim`; None where unknown.
        state_dim: S, 0 for a body without a state.
    """

    width: int
    horizon: int
    action_dim: int
    readout_tokens: int = 1
    layers: Mapping[str, Any] | None = None
    state_dim: int = 0


class Denoiser(nn.Module, ABC):
    """A denoising network. Its constructor takes choices; its head calls `create` with the sizes, once, at once.

    Attributes:
        fractions: whether noise levels come as fractions from 0 (clean) to 1 (noise), as action experts take them;
            other denoisers take them counted, 0, 1, 2, ... up to about 100, as diffusion schedules number them.
        reads_prefix: whether it needs `Readout.prefix`, see `ActionHead`.
    """

    fractions: ClassVar[bool] = False
    reads_prefix: ClassVar[bool] = False

    @abstractmethod
    def create(self, sizes: Sizes) -> None:
        """Make the layers.

        Raises:
            ValueError: the choices and the sizes do not go together.
        """

    @abstractmethod
    def condition(self, readout: Readout) -> Any:
        """What of the readout of B rows is looked at; computed once for all noise levels."""

    @abstractmethod
    def forward(self, noisy: Tensor, levels: Tensor, condition: Any, mask: Tensor | None = None) -> Tensor:
        """Remove noise.

        Args:
            noisy: (K x B, H, A), K noisy versions of each of B chunks: all rows of the first version, then the second.
            levels: (K x B,), see `fractions`.
            condition: from `condition`, for B rows.
            mask: (K x B, H), bool; False on steps that do not exist. None: all exist.

        Returns:
            (K x B, H, A), float32 also under autocast; what it holds where `mask` is False does not matter.
        """


class PooledDenoiser(Denoiser):
    """A denoiser that looks at one vector per row.

    Args:
        pooling: `mean` or `flatten` (`policies.heads.pooling`).
    """

    def __init__(self, pooling: Pooling = "flatten") -> None:
        super().__init__()
        self.pooling = pooling

    def create(self, sizes: Sizes) -> None:
        self.pool = Pool(self.pooling, sizes.width, sizes.readout_tokens)

    def condition(self, readout: Readout) -> Tensor:
        return self.pool(readout)


class Sinusoid(nn.Module):
    """Numbers (B,) as sines, then cosines, (B, width), over frequencies from 1 down to 1/10000 in a geometric series.

    The step embedding of Diffusion Policy (Chi et al. 2023), after "Attention is all you need".
    """

    rates: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"a sine-cosine embedding needs an even width of at least 4, got {width}")
        half = width // 2
        rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        angle = numbers.float().unsqueeze(-1) * self.rates
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def spread(values: Tensor, rows: int) -> Tensor:
    """`values` of B rows repeated for K versions of them, `rows` = K x B."""
    return values if len(values) == rows else values.repeat(rows // len(values), *[1] * (values.dim() - 1))
