"""One token per feature: a linear map (LLaVA) or a small MLP (LLaVA-1.5: two layers with GELU).

A stage (`embodied.lvlm.connectors.stages`) may merge features first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import nonlinearity, positive
from embodied.lvlm.connectors.stages import Stage

Norm = Literal["none", "features", "input", "layers"]


class Projection(Connector, ABC):
    """A map that each feature goes through by itself, after an optional stage.

    Args:
        features, width: D_enc and D.
        stage: what merges features first; None: nothing.

    Attributes:
        entering: width of what the map is given.

    Raises:
        ValueError: `stage` is no stage.
    """

    def __init__(self, features: int, width: int, stage: Stage | None = None) -> None:
        super().__init__(features, width)
        positive(type(self).__name__, features=features, width=width)
        if stage is not None and not isinstance(stage, Stage):
            raise ValueError(f"{type(self).__name__}: stage is a {type(stage).__name__}, which is no stage")
        self.stage = stage
        self.entering = features if stage is None else stage.create(features)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        if self.stage is not None:
            features, _ = self.stage(self.before(features), context)
            return self.project(features)
        return self.project(self.before(features))

    def before(self, features: Tensor) -> Tensor:
        """What happens to a feature ahead of the stage."""
        return features

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """(B, M, `entering`) to (B, M, D)."""

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        return features if self.stage is None else self.stage.tokens(features, context)

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return features if self.stage is None else self.stage.grid(features)


class LinearConnector(Projection):
    """LLaVA's projection (Liu et al. 2023, arXiv 2304.08485); after a pixel shuffle and without bias Idefics3's.

    Args:
        features, width, stage: see `Projection`.
        bias: whether something is added.
    """

    def __init__(self, features: int, width: int, bias: bool = True, stage: Stage | None = None) -> None:
        super().__init__(features, width, stage)
        self.net = nn.Linear(self.entering, width, bias=bias)

    def project(self, features: Tensor) -> Tensor:
        return self.net(features)


class MLPConnector(Projection):
    """LLaVA-1.5's projection (Liu et al. 2023, arXiv 2310.03744): `layers` linear maps, nonlinear in between.

    Its relatives differ in where they normalise: Yi-VL (arXiv 2403.04652) after each linear map, InternVL (with a
    pixel shuffle) its input, Qwen2-VL (with the same) each feature before they are merged. DeepSeek-VL's is
    LLaVA-1.5's; Cobra's has three layers, the first 4 x D_enc wide.

    Args:
        features, width, stage: see `Projection`.
        layers: how many linear maps.
        hidden: width between them; None: D; or one for each place between two maps.
        activation: transformers' name of the nonlinearity.
        norm: where LayerNorms are: `none`, each of the `features` before the stage, the `input` behind it, or after
            each of the `layers`.
        epsilon: theirs.
        bias: whether the linear maps add something.

    Raises:
        ValueError: fewer than two layers, an unknown activation or norm, widths that are not one per place.
    """

    def __init__(
        self,
        features: int,
        width: int,
        layers: int = 2,
        hidden: int | Sequence[int] | None = None,
        activation: str = "gelu",
        norm: Norm = "none",
        epsilon: float = 1e-5,
        bias: bool = True,
        stage: Stage | None = None,
    ) -> None:
        super().__init__(features, width, stage)
        if layers < 2:
            raise ValueError(
                f"MLPConnector: layers must be at least 2, got {layers}; one layer is the linear connector"
            )
        if norm not in get_args(Norm):
            raise ValueError(f"MLPConnector: norm is one of {', '.join(get_args(Norm))}, got {norm!r}")
        hidden = width if hidden is None else hidden
        between = [hidden] * (layers - 1) if isinstance(hidden, int) else list(hidden)
        if len(between) != layers - 1:
            raise ValueError(f"MLPConnector: {layers} layers have {layers - 1} hidden widths, got {between}")
        positive("MLPConnector", **{f"hidden[{i}]": size for i, size in enumerate(between)})
        widths = [self.entering, *between, width]
        parts: list[nn.Module] = [nn.LayerNorm(self.entering, eps=epsilon)] if norm == "input" else []
        for i, (entering, leaving) in enumerate(pairwise(widths)):
            parts += [nonlinearity("MLPConnector", activation)] if i else []
            parts.append(nn.Linear(entering, leaving, bias=bias))
            parts += [nn.LayerNorm(leaving, eps=epsilon)] if norm == "layers" else []
        self.net = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(features, eps=epsilon) if norm == "features" else None

    def before(self, features: Tensor) -> Tensor:
        return features if self.norm is None else self.norm(features)

    def project(self, features: Tensor) -> Tensor:
        return self.net(features)
