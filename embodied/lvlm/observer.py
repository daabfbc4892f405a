"""The LVLM as a robot's: it reads observations - instruction, cameras, history, state - and gives heads a readout.

An observation becomes a sequence - the instruction, then per history step the tokens of each camera and of the state
- which the backbone reads once, keeping its keys and values. Readout tokens (learned queries, Octo's idea) are read
behind it, and a head may decode on from it or attend to it as often as it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied.building import build, nearest
from embodied.contracts import Readout
from embodied.lvlm.backbones.causal import CausalBackbone, KeyValues
from embodied.lvlm.connectors.base import Connector
from embodied.lvlm.encoders.base import ImageEncoder
from embodied.lvlm.encoders.state import StateEncoder
from embodied.lvlm.sequence import Attention, Packed, Segment, pack
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.spec import IMAGES, STATE, TASK

SEGMENTS = ("task", "images", "state")


class Prefix:
    """The observation as keys and values of the backbone (`embodied.contracts.Prefix`)."""

    def __init__(self, backbone: CausalBackbone, cache: KeyValues, present: Tensor, hidden: Tensor) -> None:
        self._backbone, self._cache, self.present, self.hidden = backbone, cache, present, hidden

    @property
    def keys(self) -> list[Tensor]:
        return [keys for keys, _ in self._cache]

    @property
    def values(self) -> list[Tensor]:
        return [values for _, values in self._cache]

    @property
    def vocabulary(self) -> int:
        return self._backbone.vocabulary

    def embed(self, ids: Tensor) -> Tensor:
        return self._backbone.embed(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._backbone.logits(hidden)

    def extend(self, embeddings: Tensor, causal: bool = True) -> tuple[Tensor, Prefix]:
        """Read on; with `causal=False` the new tokens also see each other in both directions."""
        rows, new, _ = embeddings.shape
        among = torch.ones(new, new, dtype=torch.bool, device=embeddings.device)
        among = among.tril() if causal else among
        mask = torch.cat([self.present.unsqueeze(1).expand(-1, new, -1), among.expand(rows, -1, -1)], dim=2)
        positions = self.present.sum(1, keepdim=True) + torch.arange(new, device=embeddings.device)
        hidden, cache = self._backbone(embeddings, mask, positions, past=self._cache, keep=True)
        present = torch.cat([self.present, torch.ones(rows, new, dtype=torch.bool, device=embeddings.device)], dim=1)
        return hidden, Prefix(self._backbone, cache, present, torch.cat([self.hidden, hidden], dim=1))


class Observer(nn.Module):
    """A language model that reads instructions, cameras, frames and states.

    Built by `from_config`; see there for the config's keys.

    Args:
        backbone: the language model.
        tokenizer: for the instruction.
        cameras: names, in the order their tokens are read.
        encoders, connectors: one each per camera, or one each for all (then tokens also carry a camera embedding).
        state: the state encoder; None reads no state.
        history: T, frames per observation; each step's tokens carry an embedding of how long ago they were seen.
        readout_tokens: R.
        attention: how the prefix sees itself: `bidirectional`, `causal`, `stepwise` (no step looks ahead: a readout per
            step) or `framewise` (each step is read by itself, whatever its age: a readout per step, and no prefix).
        order: what is read in which order within a step (`task` is read once, before or after all steps).

    Raises:
        ValueError: an unknown segment in `order`; nothing to read.
    """

    def __init__(
        self,
        backbone: CausalBackbone,
        tokenizer: TextTokenizer,
        cameras: Sequence[str],
        encoders: Sequence[ImageEncoder],
        connectors: Sequence[Connector],
        state: StateEncoder | None,
        history: int = 1,
        readout_tokens: int = 1,
        attention: Attention = "bidirectional",
        order: Sequence[str] = SEGMENTS,
    ) -> None:
        super().__init__()
        for name in order:
            if name not in SEGMENTS:
                raise ValueError(f"model.order has '{name}'{nearest(name, SEGMENTS)}")
        if not order or (list(order) == ["state"] and state is None):
            raise ValueError(f"model.order is {list(order)}: there is nothing to read")
        self.backbone, self.tokenizer, self.cameras = backbone, tokenizer, list(cameras)
        self.encoders, self.connectors, self.state = nn.ModuleList(encoders), nn.ModuleList(connectors), state
        self.history, self.attention, self.order = history, attention, list(order)
        width = backbone.width
        self.width, self.readout_tokens = width, readout_tokens
        self.readouts = nn.Parameter(torch.randn(readout_tokens, width) * 0.02)
        aged = history > 1 and attention != "framewise"
        self.ages = nn.Parameter(torch.zeros(history, width)) if aged else None
        shared = len(encoders) < len(self.cameras)
        self.camera_embeddings = nn.Parameter(torch.randn(len(self.cameras), width) * 0.02) if shared else None

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        tokenizer: TextTokenizer,
        cameras: Sequence[str],
        state_dim: int,
        history: int,
    ) -> Observer:
        """Build from a config.

        Args:
            config: nodes `encoder`, `connector`, `backbone`, `state` (null: none) and plain values `readout_tokens`,
                `attention`, `order`, `share_encoder` (one encoder for all cameras, or one for each).
            tokenizer: gives the backbone its vocabulary.
            cameras: camera names.
            state_dim: S.
            history: T.

        Raises:
            ValueError: an unknown key, or whatever a part objects to.
        """
        known = ("encoder", "connector", "backbone", "state", "readout_tokens", "attention", "order", "share_encoder")
        for key in config:
            if key not in known:
                raise ValueError(f"model has no '{key}'{nearest(str(key), known)}")
        backbone = build(dict(config["backbone"]), (nn.Module,), vocabulary=len(tokenizer))
        count = min(1, len(cameras)) if config.get("share_encoder", True) else len(cameras)
        encoders = [build(config["encoder"], (nn.Module,)) for _ in range(count)]
        connectors = [build(config["connector"], (nn.Module,), features=e.dim, width=backbone.width) for e in encoders]
        state = None
        if config.get("state") is not None and state_dim:
            state = build(config["state"], (nn.Module,), state_dim=state_dim, width=backbone.width)
        options = {key: config[key] for key in ("readout_tokens", "attention", "order") if key in config}
        return cls(backbone, tokenizer, cameras, encoders, connectors, state, history=history, **options)

    def resolved(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`config` with checkpoint folders replaced by what they hold, for an agent that must stand alone."""
        resolved = dict(config) | {"backbone": self.backbone.resolved(dict(config["backbone"]))}
        for encoder in self.encoders[:1]:
            assert isinstance(encoder, ImageEncoder)
            resolved["encoder"] = encoder.resolved(dict(config["encoder"]))
        return resolved

    def forward(self, batch: Mapping[str, Any]) -> Readout:
        """Read a batch (`embodied.processing.base` lists its keys; `action` is not looked at)."""
        if self.attention == "framewise":
            return self._read_frames(batch)
        packed, steps = self.read(batch)
        prefix = self.prefix(packed)
        rows = len(packed.tokens)
        if self.attention == "stepwise":
            tokens = torch.stack([self._read_out(packed, prefix, step) for step in range(self.history)], dim=1)
        else:
            hidden, _ = prefix.extend(self.readouts.expand(rows, -1, -1), causal=False)
            tokens, steps = hidden.unsqueeze(1), torch.ones(rows, 1, dtype=torch.bool, device=hidden.device)
        state = batch[STATE][:, -1].to(tokens.device) if STATE in batch else None
        return Readout(tokens, steps, prefix, state)

    def _read_frames(self, batch: Mapping[str, Any]) -> Readout:
        """Each of any number T of steps as an observation of its own, so that a rollout may feed one at a time."""
        steps = ~batch["observation_is_pad"].to(self.readouts.device)
        rows, frames = steps.shape
        seen = [key for key in batch if key == STATE or key.startswith(IMAGES)]
        apart: dict[str, Any] = {key: batch[key].flatten(0, 1).unsqueeze(1) for key in seen}
        apart[TASK] = [task for task in batch[TASK] for _ in range(frames)]
        apart["observation_is_pad"] = torch.zeros(rows * frames, 1, dtype=torch.bool)
        packed, _ = self.read(apart)
        hidden, _ = self.prefix(packed).extend(self.readouts.expand(rows * frames, -1, -1), causal=False)
        return Readout(hidden.unflatten(0, (rows, frames)), steps)

    def prefix(self, packed: Packed) -> Prefix:
        """One pass of the backbone over the observation."""
        hidden, cache = self.backbone(packed.tokens, packed.mask, packed.positions, keep=True)
        return Prefix(self.backbone, cache, packed.present, hidden)

    def read(self, batch: Mapping[str, Any]) -> tuple[Packed, Tensor]:
        """The batch as one sequence per sample, and which history steps exist, (B, T)."""
        device = self.readouts.device
        steps = ~batch["observation_is_pad"].to(device)
        images = {camera: batch[IMAGES + camera] for camera in self.cameras} if "images" in self.order else {}
        seen = self._see(images) if images else None
        felt = self._feel(batch[STATE].to(device)) if self.state is not None and "state" in self.order else None
        observed = {"images": seen, "state": felt}
        segments: list[Segment] = []
        at_end: list[Segment] = []
        if "task" in self.order:
            ids, present = (x.to(device) for x in self.tokenizer(batch[TASK]))
            first = self.order.index("task") == 0
            task = Segment(self.backbone.embed(ids), present, step=-1 if first else steps.shape[1])
            (segments if first else at_end).append(task)
        for step in range(steps.shape[1]):
            for name in self.order:
                tokens = observed.get(name)
                if tokens is not None:
                    here = tokens[:, step] if self.ages is None else tokens[:, step] + self.ages[step]
                    present = steps[:, step : step + 1].expand(-1, here.shape[1])
                    segments.append(Segment(here, present, step))
        return pack(segments + at_end, self.attention), steps

    def _see(self, images: Mapping[str, Tensor]) -> Tensor:
        """(B, T, cameras x M, D) from one (B, T, H, W, 3) per camera."""
        rows, frames = next(iter(images.values())).shape[:2]
        device = self.readouts.device
        tokens = []
        for i, camera in enumerate(self.cameras):
            part = 0 if len(self.encoders) == 1 else i
            connected = self.connectors[part](self.encoders[part](images[camera].to(device).flatten(0, 1)))
            if self.camera_embeddings is not None:
                connected = connected + self.camera_embeddings[i]
            tokens.append(connected.unflatten(0, (rows, frames)))
        return torch.cat(tokens, dim=2)

    def _feel(self, state: Tensor) -> Tensor:
        """(B, T, M, D) from (B, T, S)."""
        assert self.state is not None
        return self.state(state.flatten(0, 1)).unflatten(0, state.shape[:2])

    def _read_out(self, packed: Packed, prefix: Prefix, step: int) -> Tensor:
        """(B, R, D): what step `step` knew: readout tokens that see it and the steps before."""
        visible = Prefix(self.backbone, prefix._cache, packed.present & (packed.steps <= step), prefix.hidden)
        hidden, _ = visible.extend(self.readouts.expand(len(packed.tokens), -1, -1), causal=False)
        return hidden
