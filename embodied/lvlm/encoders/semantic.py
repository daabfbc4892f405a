"""Pictures of categories, read by an image encoder of their own in colours that are learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embodied.lvlm.encoders.base import ImageEncoder


class SemanticEncoder(nn.Module):
    """Categories to features: each category gets a colour, as palettes of label maps give it, but a learned one.

    Args:
        encoder: reads the pictures.
        categories: C; what is not from 0 to C - 1 is black, and stays so.

    Raises:
        ValueError: no categories.
    """

    def __init__(self, encoder: ImageEncoder, categories: int = 41) -> None:
        super().__init__()
        if categories < 1:
            raise ValueError(f"model.semantic.categories is 1 or more, got {categories}")
        self.encoder, self.categories, self.dim = encoder, categories, encoder.dim
        self.palette = nn.Parameter(torch.rand(categories, 3))

    def forward(self, semantic: Tensor) -> Tensor:
        """Categories (B, H, W), integers, to features (B, N, D_enc)."""
        known = (semantic >= 0) & (semantic < self.categories)
        colours = self.palette.clamp(0, 1)[semantic.clamp(0, self.categories - 1)]
        return self.encoder(colours * known.unsqueeze(-1))
