"""Frames of a video become one picture's worth of tokens, and a token per frame.

Valley (Luo et al. 2023, arXiv 2306.07207) gathers each patch over time in one of three ways and lets each frame's class
token speak for the frame: version 1 by the mean, version 2 by a mean weighted with learned importance of the frames,
version 3 by the mean plus what one transformer layer over the patch's history makes of the latest frame. Video-ChatGPT
(Maaz et al. 2023, arXiv 2306.05424) is version 1 with the mean of a frame's patches in place of a class token.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from embodied.lvlm.connectors.base import NOTHING, Context
from embodied.lvlm.connectors.checks import divides, per_frame, positive
from embodied.lvlm.connectors.queries import QueryConnector

Gather = Literal["mean", "importance", "transformer"]


class TemporalModule(QueryConnector):
    """A linear map per feature, then tokens of the patches gathered over time, then one token per frame.

    Args:
        features, width: D_enc and D.
        gather: `mean` (Valley v1, Video-ChatGPT), `importance` (v2), or `transformer` (v3).
        class_token: whether each frame's features begin with a class token, which then is the frame's token; otherwise
            the frame's token is the mean of its patches.
        frames_first: whether the frames' tokens come first (Video-ChatGPT), and the gathered patches behind.
        patches: of a frame, for `importance`, whose scores look at all of them.
        heads: of the transformer layer; they divide D.
        frames: most frames of a video, for the transformer's learned embeddings of time.

    Raises:
        ValueError: an unknown gathering, a size that does not fit; when used: another number of patches, or frames that
            are more than `frames` or do not share the features evenly.
    """

    def __init__(
        self,
        features: int,
        width: int,
        gather: Gather = "mean",
        class_token: bool = False,
        frames_first: bool = False,
        patches: int = 256,
        heads: int = 8,
        frames: int = 64,
    ) -> None:
        super().__init__(features, width)
        if gather not in get_args(Gather):
            raise ValueError(f"TemporalModule: gather is one of {', '.join(get_args(Gather))}, got {gather!r}")
        positive("TemporalModule", patches=patches, frames=frames)
        self.gather, self.class_token, self.patches, self.frames_first = gather, class_token, patches, frames_first
        self.mm_projector = nn.Linear(features, width)
        self.pooling_layer = nn.Linear(width * patches, 1) if gather == "importance" else None
        self.transformer: nn.TransformerEncoderLayer | None = None
        self.times: nn.Parameter | None = None
        if gather == "transformer":
            divides("TemporalModule", "heads", heads, "width", width)
            self.transformer = nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True, dropout=0.0)
            self.times = nn.Parameter(torch.randn(frames, width) * 0.02)

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        self.tokens(features.shape[1], context)
        video = self.mm_projector(features).unflatten(1, (context.frames, -1))  # (B, T, N, D)
        patches = video[:, :, 1:] if self.class_token else video
        frames = video[:, :, 0] if self.class_token else video.mean(2)
        parts = [self._gathered(patches), frames]
        return torch.cat(parts[::-1] if self.frames_first else parts, dim=1)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        count = per_frame("TemporalModule", features, context) - self.class_token
        if self.pooling_layer is not None and count != self.patches:
            raise ValueError(f"TemporalModule: importance was learned for {self.patches} patches, a frame has {count}")
        if self.times is not None and context.frames > len(self.times):
            raise ValueError(f"TemporalModule: a video of {context.frames} frames; at most {len(self.times)} are read")
        return count + context.frames

    def _gathered(self, patches: Tensor) -> Tensor:
        """(B, T, N, D) to (B, N, D)."""
        if self.pooling_layer is not None:
            importance = self.pooling_layer(patches.flatten(2)).softmax(dim=1)  # (B, T, 1)
            return (importance.unsqueeze(-1) * patches).sum(1)
        if self.transformer is None or self.times is None:
            return patches.mean(1)
        histories = patches.transpose(1, 2).flatten(0, 1)  # (B x N, T, D)
        moved = self.transformer(histories + self.times[: histories.shape[1]])[:, -1]
        return moved.unflatten(0, (len(patches), -1)) + patches.mean(1)
