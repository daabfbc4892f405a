"""Depth pictures, read by an image encoder of their own as shades of grey (as VLN-CE and DD-PPO encode depth apart)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.lvlm.encoders.base import ImageEncoder


class DepthEncoder(nn.Module):
    """Metres to features.

    Args:
        encoder: reads the pictures.
        reach: metres that are white; what is farther is white, too. Where nothing was measured (0, NaN, infinite) it
            is black.

    Raises:
        ValueError: a reach that is not positive.
    """

    def __init__(self, encoder: ImageEncoder, reach: float = 10.0) -> None:
        super().__init__()
        if reach <= 0:
            raise ValueError(f"model.depth.reach is in metres and positive, got {reach}")
        self.encoder, self.reach, self.dim = encoder, reach, encoder.dim

    def forward(self, depth: Tensor) -> Tensor:
        """Depths (B, H, W), metres, to features (B, N, D_enc)."""
        grey = torch.nan_to_num(depth.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(0, self.reach) / self.reach
        return self.encoder(grey.unsqueeze(-1).expand(-1, -1, -1, 3))
