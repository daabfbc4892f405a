"""Transformers that attend over space and time at once: TimeSformer and VideoMAE.

TimeSformer (Bertasius et al. 2021, arXiv 2102.05095) attends over time and then over space in each layer; VideoMAE
(Tong et al. 2022, arXiv 2203.12602) over all tubelets of two frames together. Both classes are transformers' own. And
Qwen2-VL's encoder, which reads pairs of frames.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers import TimesformerModel, VideoMAEModel

from embodied.lvlm.encoders.base import Preprocess
from embodied.lvlm.encoders.pretrained import IMAGENET, described, tower
from embodied.lvlm.encoders.qwen import QwenVision
from embodied.lvlm.encoders.video import VideoEncoder
from embodied.lvlm.encoders.vision import pair

TOWERS: dict[str, Any] = {"timesformer": TimesformerModel, "videomae": VideoMAEModel}
STATISTICS = {"timesformer": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)), "videomae": IMAGENET}


class SpaceTimeTransformer(VideoEncoder):
    """A video transformer of transformers.

    Args:
        config: its configuration, with `model_type` timesformer or videomae.
        checkpoint: instead of `config`, a Hugging Face folder.

    Raises:
        ValueError: neither or both of config and checkpoint, an unknown family or setting; when used: a number of
            frames that VideoMAE was not made for.
    """

    def __init__(self, config: dict[str, Any] | None = None, checkpoint: str | None = None) -> None:
        super().__init__()
        self.model: Any = tower("SpaceTimeTransformer", TOWERS, config, checkpoint)
        settings = self.model.config
        self.family: str = settings.model_type
        self.dim, self.size, self.patch = settings.hidden_size, pair(settings.image_size), pair(settings.patch_size)
        self.span = settings.tubelet_size if self.family == "videomae" else 1

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return (Preprocess(self.size, *STATISTICS[self.family], "bilinear", "crop"),)

    def layout(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        wanted = self.model.config.num_frames
        if self.family == "videomae" and frames != wanted:
            raise ValueError(f"SpaceTimeTransformer: this VideoMAE reads {wanted} frames, got {frames}")
        return frames // self.span, self.size[0] // self.patch[0], self.size[1] // self.patch[1]

    def encode(self, pixels: Tensor) -> Tensor:
        times, rows, columns = self.layout(pixels.shape[1], pixels.shape[-2], pixels.shape[-1])
        if (pixels.shape[-2], pixels.shape[-1]) != self.size:
            flat = F.interpolate(pixels.flatten(0, 1), self.size, mode="bicubic", antialias=True)
            pixels = flat.unflatten(0, (-1, pixels.shape[1]))
        features = self.model(pixel_values=pixels).last_hidden_state
        if self.family == "videomae":
            return features
        # TimeSformer: a class token, then all times of the first place, of the second, ...
        return features[:, 1:].unflatten(1, (rows * columns, times)).transpose(1, 2).flatten(1, 2)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in node.items() if key != "checkpoint"}
        return {**rest, "config": described(self.model)}


class QwenVideo(VideoEncoder):
    """Qwen2-VL's encoder on a video: two frames make one patch, and attention spans the pair.

    Args:
        encoder: the same that reads pictures.
    """

    def __init__(self, encoder: QwenVision) -> None:
        super().__init__()
        self.encoder, self.dim, self.span = encoder, encoder.dim, encoder.span

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        return self.encoder.preprocess

    def layout(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return -(-frames // self.encoder.span), *self.encoder.grid(height, width)

    def encode(self, pixels: Tensor) -> Tensor:
        return self.encoder.encode_frames(pixels)

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        return {**node, "encoder": self.encoder.resolved(dict(node["encoder"]))}
