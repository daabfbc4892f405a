"""State spaces over a picture: features are read along several paths by Mamba, then projected.

VL-Mamba (Qiao et al. 2024, arXiv 2403.13600) puts a 2-D selective scan between the encoder and a Mamba language model:
`bidirectional` reads the rows forwards and backwards, `cross` also the columns (VMamba's cross scan, Liu et al. 2024,
arXiv 2401.10166), so that a feature knows of those around it although a state space only looks back. A path's scan is
transformers' Mamba mixer (Gu and Dao 2023, arXiv 2312.00752); what the paths found is summed.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer, MambaRMSNorm

from embodied.lvlm.connectors.base import NOTHING, Connector, Context
from embodied.lvlm.connectors.checks import grid_of, positive
from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector

Paths = Literal["forward", "bidirectional", "cross"]
COUNT = {"forward": 1, "bidirectional": 2, "cross": 4}


class SelectiveScan(Connector):
    """Blocks of norm, scans along paths and a residual; then a linear map or an MLP.

    Args:
        features, width: D_enc and D.
        paths: `forward` (row by row, plain Mamba), `bidirectional`, or `cross`.
        blocks: how many; VL-Mamba: 1.
        state: size of the state per channel.
        expand: width of a scan, in D_enc.
        kernel: of the convolution along the path.
        layers: of the projection behind; 1: a linear map (the paper's VSS-L2 has 2).

    Raises:
        ValueError: unknown paths, or a size that is not positive; when used: the features make no grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        paths: Paths = "bidirectional",
        blocks: int = 1,
        state: int = 16,
        expand: int = 2,
        kernel: int = 4,
        layers: int = 2,
    ) -> None:
        super().__init__(features, width)
        if paths not in get_args(Paths):
            raise ValueError(f"SelectiveScan: paths is one of {', '.join(get_args(Paths))}, got {paths!r}")
        positive("SelectiveScan", blocks=blocks, state=state, expand=expand, kernel=kernel, layers=layers)
        config = MambaConfig(
            hidden_size=features, state_size=state, expand=expand, conv_kernel=kernel, num_hidden_layers=1
        )
        self.paths = paths
        self.blocks = nn.ModuleList(_Block(config, COUNT[paths]) for _ in range(blocks))
        self.project = LinearConnector(features, width) if layers == 1 else MLPConnector(features, width, layers=layers)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        orders = self._orders(features.shape[1], context, features.device)
        if context.present is not None and not context.present.all():
            raise ValueError("SelectiveScan: pictures of different sizes must come one by one")
        for block in self.blocks:
            features = block(features, orders)
        return self.project(features)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        if self.paths == "cross":
            grid_of("SelectiveScan", features, context)
        return features

    def _orders(self, count: int, context: Context, device: torch.device) -> list[Tensor]:
        """Which feature each path reads when, (N,) each."""
        onwards = torch.arange(count, device=device)
        if self.paths != "cross":
            return [onwards, onwards.flip(0)][: COUNT[self.paths]]
        rows, columns = grid_of("SelectiveScan", count, context)
        down = onwards.view(context.frames, rows, columns).transpose(1, 2).flatten()
        return [onwards, down, onwards.flip(0), down.flip(0)]


class _Block(nn.Module):
    """Mamba's block, with a mixer for each path."""

    def __init__(self, config: MambaConfig, paths: int) -> None:
        super().__init__()
        self.norm = MambaRMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mixers = nn.ModuleList(MambaMixer(config, layer_idx=0) for _ in range(paths))

    def forward(self, features: Tensor, orders: list[Tensor]) -> Tensor:
        normalised = self.norm(features)
        found = [mixer(normalised[:, order]) for mixer, order in zip(self.mixers, orders, strict=True)]
        return features + sum(x[:, order.argsort()] for x, order in zip(found, orders, strict=True))
