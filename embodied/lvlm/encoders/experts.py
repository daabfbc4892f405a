"""Poly-expert fusion: every expert's features through a layer of its own into one space, and on through a shared one.

MouSi (Fan et al. 2024, arXiv 2401.17221) joins CLIP, DINOv2, LayoutLMv3, ConvNeXt, SAM and MAE by a two-layer MLP whose
first layer is each expert's own and also joins several neighbouring patches into one token, so that SAM's 4096 features
need not be 4096 tokens; the second layer is shared by all. The first layer with its activation is here; the shared
second one is the linear connector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embodied.lvlm.encoders.base import ImageEncoder
from embodied.lvlm.encoders.ensemble import Ensemble, Grid


class PolyExpert(Ensemble):
    """An MLP layer per expert; the experts' tokens follow one another.

    Args:
        members: the experts.
        width: D_enc.
        patches: how many consecutive features make one token, for each expert or for all alike.

    Raises:
        ValueError: no members, not one number of patches per member, a number below 1; when used: features that
            `patches` does not divide.
    """

    def __init__(self, members: Sequence[ImageEncoder], width: int, patches: int | Sequence[int] = 1) -> None:
        super().__init__(members)
        self.patches = [patches] * len(members) if isinstance(patches, int) else list(patches)
        if len(self.patches) != len(members) or min(self.patches) < 1:
            raise ValueError(f"PolyExpert: patches {self.patches} are not one positive number for each member")
        self.dim = width
        self.project = nn.ModuleList(nn.Linear(m.dim * p, width) for m, p in zip(members, self.patches, strict=True))
        self.act = nn.GELU()

    def fuse(self, features: list[Tensor], grids: list[Grid]) -> Tensor:
        tokens = []
        for project, feature, patches in zip(self.project, features, self.patches, strict=True):
            self._count(feature.shape[1], patches)
            tokens.append(self.act(project(feature.unflatten(1, (-1, patches)).flatten(2))))
        return torch.cat(tokens, dim=1)

    def grid(self, height: int, width: int) -> Grid:
        if len(self.members) == 1 and self.patches == [1]:
            return self.encoders[0].grid(height, width)
        counts = [member.tokens(height, width) for member in self.encoders]
        return 1, sum(self._count(n, p) for n, p in zip(counts, self.patches, strict=True))

    @staticmethod
    def _count(features: int, patches: int) -> int:
        if features % patches:
            raise ValueError(f"PolyExpert: {patches} patches per token do not divide {features} features")
        return features // patches
