"""EVA's vision transformers, which transformers lacks: EVA-CLIP and EVA-02-CLIP (Sun et al. 2023, arXiv 2303.15389).

The layer table, as the paper and its official code have it:

| model | width | layers | heads | hidden | norm | feed-forward | rotary | patch |
|---|---|---|---|---|---|---|---|---|
| EVA-CLIP ViT-g/14 (BLIP-2's; also `blip_2_vision_model`) | 1408 | 40 | 16 | 6144 | pre | gelu | no | 14 |
| EVA-02-CLIP-L/14 | 1024 | 24 | 16 | 2730 | pre | swiglu, with a norm inside | yes | 14 |
| EVA-02-CLIP-E/14 (CogVLM, GLM-4V: 63 layers of 64) | 1792 | 64 | 16 | 15360 | post | gelu | no | 14 |

`post` norms a branch's output before it is added, which is why BLIP-2's class cannot hold the E.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.lvlm.encoders.base import Fit, ImageEncoder, Preprocess
from embodied.lvlm.encoders.pretrained import OPENAI

Norm = Literal["pre", "post"]
FeedForward = Literal["gelu", "swiglu"]


class EVA(ImageEncoder):
    """A vision transformer of the EVA family.

    Args:
        image_size: side of the square it reads, in pixels.
        patch: side of a patch; it divides `image_size`.
        width: D_enc.
        depth: layers.
        heads: attention heads; they divide `width`.
        hidden: width inside the feed-forward net.
        norm: whether a branch's input (`pre`) or output (`post`) is normed.
        feed_forward: `gelu`, or `swiglu` with a norm inside.
        rotary: whether queries and keys are turned by their place in the grid (EVA-02).
        attention_norm: whether the heads' outputs are normed before the last projection (EVA-02-L).
        final_norm: whether the features are normed at the end.
        positions: side of the grid, in patches, that rotary positions were trained on; those of another grid are
            interpolated to it. 0: the grid's own.
        epsilon: of the norms.
        keep_class_token: whether the class token is part of the features.
        fit: how a picture is brought to `image_size` (`Preprocess`).

    Raises:
        ValueError: sizes that do not divide one another, an unknown norm or feed-forward net, fit=native.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch: int = 14,
        width: int = 1792,
        depth: int = 63,
        heads: int = 16,
        hidden: int = 15360,
        norm: Norm = "post",
        feed_forward: FeedForward = "gelu",
        rotary: bool = False,
        attention_norm: bool = False,
        final_norm: bool = False,
        positions: int = 16,
        epsilon: float = 1e-6,
        keep_class_token: bool = False,
        fit: Fit = "squash",
    ) -> None:
        super().__init__(*OPENAI)
        if norm not in get_args(Norm) or feed_forward not in get_args(FeedForward):
            raise ValueError(f"EVA: norm is pre or post, feed_forward gelu or swiglu; got {norm!r}, {feed_forward!r}")
        if image_size % patch or width % heads:
            raise ValueError(f"EVA: patch {patch} divides image_size {image_size}, and {heads} heads width {width}")
        if rotary and (width // heads) % 4:
            raise ValueError(f"EVA: rotary positions need heads of a multiple of 4 channels, got {width // heads}")
        if fit == "native":
            raise ValueError("EVA: reads pictures of one size, so fit cannot be native")
        self.dim, self.size, self.fit, self.keep_class_token = width, (image_size, image_size), fit, keep_class_token
        self.head_dim = width // heads
        self.side, self.rotary, self.positions = image_size // patch, rotary, positions or image_size // patch
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, self.side**2 + 1, width) * 0.02)
        self.layers = nn.ModuleList(
            _Layer(width, heads, hidden, norm, feed_forward, attention_norm, epsilon) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=epsilon) if final_norm else nn.Identity()
        assert self.preprocess  # an unknown fit is refused now

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(self.size, *OPENAI, "bicubic", self.fit),)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return (1, self.side**2 + 1) if self.keep_class_token else (self.side, self.side)

    def tokens(self, height: int, width: int) -> int:
        rows, columns = self.grid(height, width)
        return rows * columns

    def encode(self, pixels: Tensor) -> Tensor:
        if (pixels.shape[-2], pixels.shape[-1]) != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bicubic", antialias=True)
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1) + self.position
        turns = None
        if self.rotary:
            turns = rotations(self.side, self.head_dim, self.side / self.positions, x.device)
        for layer in self.layers:
            x = layer(x, turns)
        x = self.norm(x)
        return x if self.keep_class_token else x[:, 1:]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Positions of another resolution are interpolated as they are loaded (CogVLM: 224 to 490 pixels)."""
        name = prefix + "position"
        if name in state_dict and state_dict[name].shape != self.position.shape:
            state_dict[name] = interpolated(state_dict[name], self.side)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Layer(nn.Module):
    def __init__(
        self, width: int, heads: int, hidden: int, norm: Norm, feed_forward: FeedForward, inner: bool, epsilon: float
    ) -> None:
        super().__init__()
        self.heads, self.post = heads, norm == "post"
        self.norm_attention, self.norm_feed = nn.LayerNorm(width, eps=epsilon), nn.LayerNorm(width, eps=epsilon)
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.inner = nn.LayerNorm(width, eps=epsilon) if inner else nn.Identity()
        self.out = nn.Linear(width, width)
        self.feed: nn.Module = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        if feed_forward == "swiglu":
            self.feed = _SwiGLU(width, hidden, epsilon)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.post:
            x = x + self.norm_attention(self._attend(x, turns))
            return x + self.norm_feed(self.feed(x))
        x = x + self._attend(self.norm_attention(x), turns)
        return x + self.feed(self.norm_feed(x))

    def _attend(self, x: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q(x), self.k(x), self.v(x)))
        if turns is not None:
            q, k = turned(q, *turns), turned(k, *turns)
        return self.out(self.inner(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))


class _SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int, epsilon: float) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.norm, self.down = nn.LayerNorm(hidden, eps=epsilon), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(F.silu(self.gate(x)) * self.up(x)))


def interpolated(positions: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), the class token's first, for a grid of side x side, bicubically."""
    first, grid = positions[:, :1], positions[:, 1:]
    old = round(grid.shape[1] ** 0.5)
    if old == side:
        return positions
    square = grid.transpose(1, 2).unflatten(2, (old, old))
    return torch.cat([first, F.interpolate(square, (side, side), mode="bicubic").flatten(2).transpose(1, 2)], dim=1)


def rotations(side: int, head_dim: int, scale: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (side * side, head_dim): the first half of the channels turns with the row, the other the column.

    `scale` is how many grid cells make one step of the grid the model was trained on.
    """
    frequencies = 10000 ** (-torch.arange(0, head_dim // 2, 2, device=device) / (head_dim // 2))
    angles = (torch.arange(side, device=device) / scale).unsqueeze(1) * frequencies
    angles = angles.repeat_interleave(2, dim=-1)  # neighbouring channels make a plane
    rows, columns = angles.unsqueeze(1).expand(-1, side, -1), angles.unsqueeze(0).expand(side, -1, -1)
    both = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return both.cos(), both.sin()


def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Queries or keys (B, heads, 1 + N, C), turned by their places; the class token has none."""
    first, rest = x[:, :, :1], x[:, :, 1:]
    swapped = torch.stack([-rest[..., 1::2], rest[..., 0::2]], dim=-1).flatten(-2)
    return torch.cat([first, rest * cosine.to(x.dtype) + swapped * sine.to(x.dtype)], dim=2)
