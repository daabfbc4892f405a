"""The LVLM: pictures and text in, text out. The only file that knows all its parts.

A vision path makes tokens of pictures; they stand among the words (`inline`: LLaVA, BLIP-2, Qwen2-VL), beside them for
adapters to attend to (`beside`: Flamingo, mPLUG-Owl3), or both; a language model with its adapters reads on. What a
zoo row, a recipe or a robot's `Observer` calls a model is a choice of these parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.building import build, nearest
from embodied.lvlm.adapters.base import Adapter, Sight
from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.backbones.encoder_decoder import EncoderDecoderBackbone
from embodied.lvlm.connectors.stages import Stage
from embodied.lvlm.positions import counted, in_three_axes
from embodied.lvlm.vision import Clip, Picture, VisionPath

Placement = Literal["inline", "beside"]
VISION = ("encoder", "connector", "resolution", "video", "video_connector", "video_stage")
PARTS = ("backbone", *VISION, "adapters", "placement")
"""Keys of a model's config."""
IGNORED = -100
"""The label of a token that is read and not learned, as in torch and transformers."""


@dataclass(frozen=True)
class Batch:
    """Conversations ready to be read.

    Attributes:
        ids: (B, L), token ids; at a slot, any.
        present: (B, L), bool; False on padding, on either side.
        slots: (B, L), bool: inline, where a token of a picture stands; beside, the one mark that each picture leaves.
        pictures: and films, of all rows, in reading order.
        labels: (B, L), ids to be learned at their own place (the shift is the model's), `IGNORED` elsewhere. For an
            encoder-decoder (B, T): what it is to say of what `ids` read.
        mask: (B, L, L), bool: row i sees column j, where that is not simply everything before it (packing).
        positions: (B, L) or (3, B, L), where they are not simply counted.
        text, text_present: the instruction of each picture for instruction-aware connectors, (len(pictures), L').
    """

    ids: Tensor
    present: Tensor
    slots: Tensor
    pictures: Sequence[Picture | Clip] = ()
    labels: Tensor | None = None
    mask: Tensor | None = None
    positions: Tensor | None = None
    text: Tensor | None = None
    text_present: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device; pictures follow when they are encoded."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
        return replace(self, **moved)


@dataclass(frozen=True)
class Embedded:
    """A batch with its pictures seen: what the language model reads.

    Attributes:
        tokens: (B, L, D).
        mask: (B, L, L), bool; None: each token sees the present ones up to itself.
        positions: (B, L) or (3, B, L), int.
        sight: for the adapters.
        present: (B, L), bool; False on padding.
    """

    tokens: Tensor
    mask: Tensor | None
    positions: Tensor
    sight: Sight
    present: Tensor


class LVLM(nn.Module):
    """A language model that sees.

    Built by `from_config`; see there for the config's keys.

    Args:
        backbone: the language model.
        vision: pictures to tokens of the backbone's width; None: it reads text alone.
        adapters: installed into the backbone here, in order.
        placement: where picture tokens go.

    Raises:
        ValueError: an unknown placement; widths that differ; an adapter that finds no place in the backbone.
    """

    def __init__(
        self,
        backbone: CausalBackbone | EncoderDecoderBackbone,
        vision: VisionPath | None = None,
        adapters: Sequence[Adapter] = (),
        placement: Placement = "inline",
    ) -> None:
        super().__init__()
        if placement not in get_args(Placement):
            raise ValueError(f"model.placement is one of {', '.join(get_args(Placement))}, got {placement!r}")
        if vision is not None and placement == "inline" and vision.width != backbone.width:
            raise ValueError(f"the connector makes tokens of width {vision.width}, the backbone reads {backbone.width}")
        self.backbone, self.vision, self.placement = backbone, vision, placement
        self.config: dict[str, Any] | None = None
        self.adapters = nn.ModuleList(adapters)
        for adapter in adapters:
            adapter.install(backbone.model)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], vocabulary: int | None = None) -> LVLM:
        """Build from a config.

        Args:
            config: nodes `backbone`, and for one that sees `encoder`, `connector`, `resolution`; for films `video`
                (null, `together` or a node), `video_connector` and `video_stage`, see `VisionPath`; `adapters`, a
                mapping of names to nodes; `placement`.
            vocabulary: ids of the tokenizer, for a backbone whose config does not say.

        Raises:
            ValueError: an unknown key, or whatever a part objects to.
        """
        for key in config:
            if key not in PARTS:
                raise ValueError(f"model has no '{key}'{nearest(str(key), PARTS)}")
        backbone = build(dict(config["backbone"]), (nn.Module,), vocabulary=vocabulary)
        vision = None
        if config.get("encoder") is not None:
            encoder = build(config["encoder"], (nn.Module,))
            connector_node = dict(config["connector"])
            # Tokens that stand beside the text may keep a width of their own, which the connector's node then says.
            width = connector_node.pop("width", backbone.width)
            connector = build(connector_node, (nn.Module,), features=encoder.dim, width=width)
            resolution = build(config["resolution"], (nn.Module,), width=width)
            video, own, stage = (config.get(key) for key in ("video", "video_connector", "video_stage"))
            if isinstance(video, Mapping):
                video = build(video, (nn.Module,))
            stage = None if stage is None else build(stage, (Stage,))
            if own is not None:
                features = encoder.dim if video is None or isinstance(video, str) else video.dim
                features = features if stage is None else stage.create(features)
                own = build(own, (nn.Module,), features=features, width=width)
            vision = VisionPath(encoder, connector, resolution, video, own, stage)
        elif config.get("video") is not None:
            raise ValueError("model.video is how a model that sees reads films, and this one has no model.encoder")
        adapters = [build(node, (nn.Module,)) for node in (config.get("adapters") or {}).values()]
        model = cls(backbone, vision, adapters, config.get("placement", "inline"))
        model.config = dict(config)
        return model

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LVLM:
        """Load a folder of `save_pretrained`, or of transformers for a family composed here.

        Raises:
            ValueError: see `embodied.lvlm.folder.load`.
        """
        from embodied.lvlm import folder as folders  # which builds models and hence knows this file

        return folders.load(folder)

    def save_pretrained(self, folder: str | Path, tokenizer: Any = None) -> None:
        """Write everything that `from_pretrained` needs; for a model built by `from_config`."""
        from embodied.lvlm import folder as folders

        folders.save(self, folder, tokenizer)

    def resolved(self) -> dict[str, Any]:
        """The config that rebuilds this model's shape without the checkpoints it was made from.

        Raises:
            ValueError: it was not built by `from_config`.
        """
        if self.config is None:
            raise ValueError("a model of hand-made parts has no config to be saved: build it with LVLM.from_config")
        config = self.config | {"backbone": self.backbone.resolved(dict(self.config["backbone"]))}
        if self.vision is not None:
            config["encoder"] = self.vision.encoder.resolved(dict(self.config["encoder"]))
            if self.vision.video is not None:
                config["video"] = self.vision.video.resolved(dict(self.config["video"]))
        return config

    def embed(self, batch: Batch) -> Embedded:
        """See the pictures and lay their tokens among, or beside, the words.

        Raises:
            ValueError: slots and picture tokens differ in number.
        """
        device = next(self.backbone.parameters()).device
        batch = batch.to(device)
        tokens = self.backbone.embed(batch.ids.masked_fill(batch.slots, 0))
        seen = self.see(batch)
        media = media_seen = media_owner = None
        if self.placement == "inline":
            slots, found = int(batch.slots.sum()), sum(map(len, seen))
            if slots != found:
                raise ValueError(f"{slots} places are kept for pictures whose tokens are {found}")
            if seen:
                tokens = tokens.masked_scatter(batch.slots.unsqueeze(-1), torch.cat(seen).to(tokens.dtype))
        else:
            tokens = torch.where(batch.slots.unsqueeze(-1), self.backbone.embed(batch.ids), tokens)
            media, media_seen, media_owner = beside(batch.slots, seen)
        positions = self.positions(batch) if batch.positions is None else batch.positions
        visual = batch.slots if self.placement == "inline" else None
        stands = (
            None if media_owner is None else (positions if positions.ndim == 2 else positions[0]).gather(1, media_owner)
        )
        sight = Sight(visual, media, media_seen, stands, present=batch.present)
        return Embedded(tokens, batch.mask, positions, sight, batch.present)

    def positions(self, batch: Batch) -> Tensor:
        """Where each token stands, one conversation a row: (B, L), or (3, B, L) for a backbone of three axes.

        Raises:
            ValueError: such a backbone, and a picture whose tokens make no grid or have no place.
        """
        if isinstance(self.backbone, EncoderDecoderBackbone) or self.backbone.axes == 1 or self.vision is None:
            return counted(batch.present)
        grids = []
        for picture in batch.pictures:
            views = [picture] if isinstance(picture, Picture) or self.vision.whole else picture.frames
            for view in views:
                grid, *more = self.vision.grids(view)
                if more:
                    raise ValueError(f"positions in {self.backbone.axes} axes are for pictures in one view, not tiles")
                grids.append(grid)
        return in_three_axes(batch.slots, batch.present, grids)

    def see(self, batch: Batch) -> list[Tensor]:
        """Tokens (N, D) of each picture of a batch.

        Raises:
            ValueError: there are pictures, and nothing to see them with.
        """
        if not batch.pictures:
            return []
        if self.vision is None:
            raise ValueError("this language model has no encoder: its conversations cannot hold pictures")
        return self.vision(batch.pictures, batch.text, batch.text_present)

    def forward(self, batch: Batch) -> Tensor:
        """Next-token logits (B, L, vocabulary) at every place; an encoder-decoder's of `labels`, (B, T, vocabulary).

        Raises:
            ValueError: an encoder-decoder, and nothing to be said.
        """
        embedded = self.embed(batch)
        if isinstance(self.backbone, EncoderDecoderBackbone):
            return self.backbone(self.read(embedded), embedded.present, self._said(batch))
        return self.backbone.logits(self.read(embedded))

    def _said(self, batch: Batch) -> Tensor:
        if batch.labels is None:
            raise ValueError("an encoder-decoder needs `labels`: what it says of what it has read")
        return batch.labels.to(next(self.backbone.parameters()).device)

    def read(self, embedded: Embedded) -> Tensor:
        """One pass of the language model, or of its encoder: hidden states (B, L, D)."""
        self.look_at(embedded.sight)  # and on: layers that are computed again for their gradients look once more
        if isinstance(self.backbone, EncoderDecoderBackbone):
            return self.backbone.encode(embedded.tokens, embedded.present)
        hidden, _ = self.backbone(embedded.tokens, embedded.mask, embedded.positions, present=embedded.present)
        return hidden

    def look_at(self, sight: Sight) -> None:
        """Tell every adapter what the next pass sees."""
        for adapter in self.adapters:
            assert isinstance(adapter, Adapter)
            adapter.see(sight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the labels, a mean over all that are learned, plus what adapters add.

        Returns:
            `loss`, to minimise, and detached: `text` and each adapter's term.
        """
        assert batch.labels is not None
        if isinstance(self.backbone, EncoderDecoderBackbone):
            labels = self._said(batch)
            logits = self(batch)[labels != IGNORED]
        else:
            hidden = self.read(self.embed(batch))
            labels = batch.labels.to(hidden.device)[:, 1:]
            # Logits are the largest tensor of all: only places that are learned get them.
            logits = self.backbone.logits(hidden[:, :-1][labels != IGNORED])
        learned = labels != IGNORED
        text = F.cross_entropy(logits.float(), labels[learned], reduction="sum") / learned.sum().clamp(min=1)
        terms = {"text": text} | self._terms()
        return {"loss": torch.stack(list(terms.values())).sum()} | {name: t.detach() for name, t in terms.items()}

    def _terms(self) -> dict[str, Tensor]:
        """What parts add to the loss of the pass just made (the balance of experts), under names of their own."""
        parts: dict[str, Any] = {"backbone": self.backbone}
        parts |= {f"adapter{i}": adapter for i, adapter in enumerate(self.adapters)}
        if self.vision is not None:
            parts["connector"] = self.vision.connector
        found = {part: module.losses() for part, module in parts.items() if hasattr(module, "losses")}
        return {f"{part}_{name}": term for part, terms in found.items() for name, term in terms.items()}


def beside(slots: Tensor, seen: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Picture tokens as media that text attends to.

    A token sees the latest picture that was marked before it, or at it, and no other (Flamingo's rule); before the
    first mark it sees none.

    Args:
        slots: (B, L), bool: each picture's mark.
        seen: tokens (N, D) of each picture, in reading order.

    Returns:
        Media (B, K, D), padded, which of them each token sees (B, L, K), and at which token each stands (B, K), int;
        None for all without pictures.

    Raises:
        ValueError: marks and pictures differ in number.
    """
    if int(slots.sum()) != len(seen):
        raise ValueError(f"{int(slots.sum())} marks stand for {len(seen)} pictures")
    if not seen:
        return None, None, None
    latest = slots.cumsum(1)  # (B, L): 0 before the first picture of the row
    counts = slots.sum(1).tolist()
    rows = []
    start = 0
    for count in counts:
        rows.append(list(seen[start : start + count]))
        start += count
    longest = max(sum(map(len, row)) for row in rows)
    media = seen[0].new_zeros(len(rows), longest, seen[0].shape[-1])
    owner = torch.full((len(rows), longest), -1, device=slots.device)
    for r, row in enumerate(rows):
        at = 0
        for i, tokens in enumerate(row):
            media[r, at : at + len(tokens)] = tokens
            owner[r, at : at + len(tokens)] = i + 1
            at += len(tokens)
    marks = torch.zeros_like(owner)
    for r, slot in enumerate(slots):
        places = slot.nonzero().flatten()
        marks[r] = places[(owner[r] - 1).clamp(min=0)] if len(places) else 0
    return media, latest.unsqueeze(-1) == owner.unsqueeze(1), marks
