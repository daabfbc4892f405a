"""The way of a picture or film to tokens: which views of it are encoded, by what, and how features become tokens.

`prepare` and `film` are the processor's half (PIL to pixel tensors, on any machine and process), `measured` says how
many tokens will come of them before anything is encoded, and `forward` is the model's half. All follow one layout, so
placeholders and tokens cannot disagree.

A film's frames are pictures, each with tokens of its own, or the film is read as a whole: its frames' features go
through the connector together (Video-ChatGPT, Valley, PLLaVA), or come from a video encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from embodied.lvlm.chat.media import Film, Measured, measure
from embodied.lvlm.connectors.base import Connector, Context
from embodied.lvlm.connectors.stages import Stage
from embodied.lvlm.encoders.base import ImageEncoder
from embodied.lvlm.encoders.video import VideoEncoder
from embodied.lvlm.resolution.base import Layout, Resolution

Pixels = tuple[Tensor, ...]
"""One view as its encoders read it: a (3, H, W) for each."""


@dataclass(frozen=True)
class Picture:
    """A picture ready to be encoded.

    Attributes:
        layout: which views there are.
        views: their pixels, in the layout's order.
    """

    layout: Layout
    views: tuple[Pixels, ...]


@dataclass(frozen=True)
class Clip:
    """A film ready to be encoded: its frames in order, and when each is seen, seconds from the film's first."""

    frames: tuple[Picture, ...]
    seconds: tuple[float, ...]


Grid = tuple[int, ...]
"""Rows and columns of tokens, or times, rows and columns."""


class VisionPath(nn.Module):
    """Resolution, encoder and connector as one.

    Args:
        encoder: pixels to features.
        connector: features to tokens.
        resolution: a picture to views, and their tokens to one sequence.
        video: how films are read: None, each frame as a picture, tiles and all; `together`, one view of each frame
            through `encoder` (of as many frames at a time as it reads as one), and the features of all frames through
            the connector at once; or an encoder of films.
        video_connector: of films read as a whole; None: `connector`.
        video_stage: what merges the features of films read as a whole ahead of their connector, which pictures may
            share (LLaVA-NeXT-Video pools each frame by 2); None: nothing.

    Attributes:
        width: D of a token.
        whole: whether a film is read as a whole.

    Raises:
        ValueError: films' features or tokens have another width than the connector reads or makes; a connector or a
            stage for films that are not read as a whole; a stage that is none.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        connector: Connector,
        resolution: Resolution,
        video: VideoEncoder | Literal["together"] | None = None,
        video_connector: Connector | None = None,
        video_stage: Stage | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.connector, self.resolution = encoder, connector, resolution
        self.width, self.whole = connector.width, video is not None
        if isinstance(video, str) and video != "together":
            raise ValueError(f"model.video is null, together or a node of conf/video, got {video!r}")
        self.video = None if isinstance(video, str) else video
        self.video_connector, self.video_stage = video_connector, video_stage
        for name, part in {"video_connector": video_connector, "video_stage": video_stage}.items():
            if part is not None and not self.whole:
                raise ValueError(f"model.{name} is for films read as a whole, and model.video is null")
        if video_stage is not None and not isinstance(video_stage, Stage):
            raise ValueError(f"model.video_stage is a {type(video_stage).__name__}, which is no stage")
        reads, made = self._film_connector.features, (self.video or encoder).dim
        made = made if video_stage is None else video_stage.create(made)
        if self.whole and made != reads:
            raise ValueError(
                f"the video encoder makes features of width {made}, the connector reads {reads}: give films a connector"
                " of their own, model.video_connector"
            )
        if self._film_connector.width != self.width:
            raise ValueError(f"films would become tokens of width {self._film_connector.width}, pictures {self.width}")
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def _film_connector(self) -> Connector:
        return self.connector if self.video_connector is None else self.video_connector

    def prepare(self, picture: Image.Image) -> Picture:
        """An RGB picture as pixels.

        Raises:
            ValueError: the resolution strategy refuses a picture of its size.
        """
        layout = self.resolution.plan(picture.height, picture.width)
        cut = self.resolution.cut(picture.convert("RGB"), layout)
        how = self.encoder.preprocess
        return Picture(layout, tuple(tuple(each(view) for each in how) for view in cut))

    def film(self, frames: Sequence[Image.Image], seconds: Sequence[float]) -> Clip:
        """RGB frames of a film as pixels.

        Raises:
            ValueError: the resolution strategy refuses frames of their size, or would cut into tiles what is read as a
                whole; frames of several sizes; the video encoder reads another number of frames.
        """
        if not self.whole:
            return Clip(tuple(map(self.prepare, frames)), tuple(seconds))
        how = (self.video or self.encoder).preprocess
        pictures = []
        for frame in frames:
            view, layout = frame.convert("RGB"), Layout((frame.height, frame.width), (how[0].size or (0, 0),))
            if how[0].size is None:
                layout = self.resolution.plan(frame.height, frame.width)
                if len(layout.views) != 1:
                    raise ValueError("frames of a film that is read as a whole are read in one view each, not in tiles")
                view = self.resolution.cut(view, layout)[0]
            pictures.append(Picture(layout, (tuple(each(view) for each in how),)))
        if len({picture.layout.views for picture in pictures}) > 1:
            raise ValueError("frames of a film that is read as a whole have one size")
        clip = Clip(tuple(pictures), tuple(seconds))
        self.grids(clip)  # which refuses what cannot be encoded
        return clip

    def measured(self, seen: Picture | Clip) -> Measured | Film:
        """How many tokens will come of it, in the runs between which a template may put text.

        A film whose frames do not stay apart is to the template one frame, seen when the film begins.
        """
        if isinstance(seen, Picture):
            return self._measured(seen)
        if not self.whole:
            return Film(tuple(map(self._measured, seen.frames)), seen.seconds)
        times, rows, columns = self.resolution.film_grid(self._film_grid(seen))
        begun = seen.seconds[:: (self.video or self.encoder).span]
        runs = tuple(Measured((rows * columns,)) for _ in range(times))
        return Film(runs, tuple(begun[run * len(begun) // times] for run in range(times)))

    def _measured(self, picture: Picture) -> Measured:
        return measure(self.resolution, picture.layout, self.token_grids(picture.layout))

    def grids(self, seen: Picture | Clip) -> list[Grid]:
        """Rows and columns of the tokens of each view, or of each view of each frame.

        Of a film read as a whole there is one: times, rows and columns; (1, 1, N) where its tokens make none.

        Raises:
            ValueError: the video encoder reads another number of frames.
        """
        if isinstance(seen, Picture):
            return list(self.token_grids(seen.layout))
        if not self.whole:
            return [grid for frame in seen.frames for grid in self.token_grids(frame.layout)]
        return [self.resolution.film_grid(self._film_grid(seen))]

    def _film_grid(self, clip: Clip) -> tuple[int, int, int]:
        """Times, rows and columns of the tokens that a connector makes of a film; (1, 1, N) where they make none."""
        times, rows, columns = self._film_layout(clip)
        if self.video_stage is not None:
            times, rows, columns = self.video_stage.film_grid((times, rows, columns))
        context = Context(grid=(rows, columns), frames=times)
        total = self._film_connector.tokens(times * rows * columns, context)
        down, across = self._film_connector.grid((rows, columns))
        left, rest = divmod(total, down * across)
        return (1, 1, total) if rest or left > times else (left, down, across)

    def _film_layout(self, clip: Clip) -> tuple[int, int, int]:
        """Times, rows and columns of a film's features."""
        height, width = clip.frames[0].layout.views[0]
        if self.video is not None:
            return self.video.layout(len(clip.frames), height, width)
        return -(-len(clip.frames) // self.encoder.span), *self._feature_grid(height, width)

    def count(self, layout: Layout) -> int:
        """How many tokens a picture with this layout becomes."""
        return self.resolution.count(layout, self.token_grids(layout))

    def token_grids(self, layout: Layout) -> list[tuple[int, int]]:
        """Rows and columns of each view's tokens."""
        return [self.connector.grid(self._feature_grid(*size)) for size in layout.views]

    def _feature_grid(self, height: int, width: int) -> tuple[int, int]:
        size = self.encoder.preprocess[0].size or (height, width)
        if size not in self._grids:
            self._grids[size] = self.encoder.grid(*size)
        return self._grids[size]

    def forward(
        self, pictures: Sequence[Picture | Clip], text: Tensor | None = None, text_present: Tensor | None = None
    ) -> list[Tensor]:
        """Tokens (N, D) of each picture or film, in order.

        Views of one shape are encoded in one pass, whichever picture they belong to, and so are films.

        Args:
            pictures: any number, of any layouts.
            text, text_present: for instruction-aware connectors: the instruction of each picture, (len(pictures), L).
        """
        alone: list[tuple[int, Picture]] = []
        films: dict[tuple[Any, ...], list[tuple[int, Clip]]] = {}
        for i, seen in enumerate(pictures):
            if isinstance(seen, Picture):
                alone.append((i, seen))
            elif not self.whole:
                alone += [(i, frame) for frame in seen.frames]
            else:
                shapes = tuple(x.shape for frame in seen.frames for x in frame.views[0])
                films.setdefault((len(seen.frames), shapes), []).append((i, seen))
        parts: list[list[Tensor]] = [[] for _ in pictures]
        for (i, _), tokens in zip(alone, self._see(alone, text, text_present), strict=True):
            parts[i].append(tokens)
        for members in films.values():
            for (i, _), tokens in zip(members, self._watch(members, text, text_present), strict=True):
                parts[i].append(tokens)
        return [each[0] if len(each) == 1 else torch.cat(each) for each in parts]

    def _see(
        self, members: Sequence[tuple[int, Picture]], text: Tensor | None, text_present: Tensor | None
    ) -> list[Tensor]:
        """Tokens of pictures, each with the number of what it belongs to, whose instruction it shares."""
        pictures = [picture for _, picture in members]
        tokens: dict[tuple[int, int], Tensor] = {}
        groups: dict[tuple[torch.Size, ...], list[tuple[int, int]]] = {}
        for p, picture in enumerate(pictures):
            for v, view in enumerate(picture.views):
                groups.setdefault(tuple(x.shape for x in view), []).append((p, v))
        for places in groups.values():
            features = self._encoded([pictures[p].views[v] for p, v in places])
            p, v = places[0]
            context = self._context([members[p][0] for p, _ in places], text, text_present)
            context = replace(context, grid=self._feature_grid(*pictures[p].layout.views[v]))
            for where, row in zip(places, self.connector(features, context), strict=True):
                tokens[where] = row
        return [
            self.resolution.arrange(
                [tokens[p, v] for v in range(len(picture.views))], picture.layout, self.token_grids(picture.layout)
            )
            for p, picture in enumerate(pictures)
        ]

    def _watch(self, members: Sequence[tuple[int, Clip]], text: Tensor | None, text_present: Tensor | None) -> Tensor:
        """Tokens (B, N, D) of films of one shape that are read as a whole."""
        clips = [clip for _, clip in members]
        times, rows, columns = self._film_layout(clips[0])
        if self.video is not None or self.encoder.span > 1:
            pixels = torch.stack([torch.stack([frame.views[0][0] for frame in clip.frames]) for clip in clips])
            read = self.encoder.encode_frames if self.video is None else self.video.encode
            features = read(pixels.to(self.encoder.mean.device))
        else:
            features = self._encoded([frame.views[0] for clip in clips for frame in clip.frames])
            features = features.unflatten(0, (len(clips), times)).flatten(1, 2)
        context = self._context([i for i, _ in members], text, text_present)
        context = replace(context, grid=(rows, columns), frames=times)
        if self.video_stage is not None:
            features, context = self.video_stage(features, context)
        return self.resolution.arrange_film(self._film_connector(features, context), self._film_grid(clips[0]))

    def features(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """What the encoder makes of each picture, (N, D_enc), its views one after the other: what a connector gets."""
        groups: dict[tuple[torch.Size, ...], list[tuple[int, int]]] = {}
        for p, picture in enumerate(pictures):
            for v, view in enumerate(picture.views):
                groups.setdefault(tuple(x.shape for x in view), []).append((p, v))
        found: dict[tuple[int, int], Tensor] = {}
        for places in groups.values():
            rows = self._encoded([pictures[p].views[v] for p, v in places])
            found |= dict(zip(places, rows, strict=True))
        return [torch.cat([found[p, v] for v in range(len(x.views))]) for p, x in enumerate(pictures)]

    def _encoded(self, views: Sequence[Pixels]) -> Tensor:
        """Features (B, N, D_enc) of views of one shape."""
        stacked = [torch.stack(each).to(self.encoder.mean.device) for each in zip(*views, strict=True)]
        return self.encoder.encode(stacked[0] if len(stacked) == 1 else tuple(stacked))  # type: ignore[arg-type]

    def _context(self, owners: Sequence[int], text: Tensor | None, text_present: Tensor | None) -> Context:
        """With the instructions of what these views or films belong to."""
        at = torch.tensor(owners, device=self.encoder.mean.device)
        return Context(
            text=None if text is None else text[at], text_present=None if text_present is None else text_present[at]
        )
