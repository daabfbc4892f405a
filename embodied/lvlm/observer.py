"""The LVLM as a robot's: it reads observations - instruction, cameras, map, history, state - and gives heads a readout.

An observation becomes a sequence - the instruction, then per history step the tokens of each camera and of the state
- which the backbone reads once, keeping its keys and values. Readout tokens (learned queries, Octo's idea) are read
behind it, and a head may decode on from it or attend to it as often as it needs.

A map (`embodied.contracts.MapEncoder`) is one more thing to read: a memory of all that was seen since the episode
began, written at every step, also with what the image encoder makes of the pictures. In training it is written over
whole episodes, and every step reads it as it was then, with gradients; a rollout keeps the memory and writes one step
at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied.building import build, nearest
from embodied.contracts import Readout, Text
from embodied.lvlm.backbones.causal import CausalBackbone, KeyValues
from embodied.lvlm.connectors.base import Connector
from embodied.lvlm.encoders.base import ImageEncoder
from embodied.lvlm.encoders.depth import DepthEncoder
from embodied.lvlm.encoders.semantic import SemanticEncoder
from embodied.lvlm.encoders.state import StateEncoder
from embodied.lvlm.recollection import Tokens, build_map, recall
from embodied.lvlm.sequence import Attention, Packed, Segment, pack
from embodied.lvlm.tokenizers.text import TextTokenizer
from embodied.spec import DEPTH, FEATURES, IMAGES, SEMANTIC, STATE, TASK

SEGMENTS = ("task", "images", "depth", "semantic", "map", "state")
SENSES = {"depth": (DEPTH, DepthEncoder), "semantic": (SEMANTIC, SemanticEncoder)}
"""Pictures of other things than colours: the keys of their observations, and what makes an image encoder read them."""
Sense = tuple[nn.Module, Connector, Sequence[str]]
"""An encoder of `SENSES`, its connector, and the cameras whose pictures it reads."""


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
    """A language model that reads instructions, cameras, maps, frames and states.

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
        senses: by name, of `SENSES`, what else cameras give: depth, categories.
        map: a memory that becomes tokens; None: none. Wants `framewise` attention.

    Attributes:
        reads: keys of observations that are read besides images and states.

    Raises:
        ValueError: an unknown segment in `order`, or one missing; nothing to read; a map with another attention.
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
        senses: Mapping[str, Sense] | None = None,
        map: Any = None,
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
        shared = 0 < len(encoders) < len(self.cameras)
        self.camera_embeddings = nn.Parameter(torch.randn(len(self.cameras), width) * 0.02) if shared else None
        for name in (*(senses or {}), *(("map",) if map is not None else ())):
            if name not in order:
                raise ValueError(f"model.{name} is given, but model.order {list(order)} does not read it")
        self.senses = {name: list(sense[2]) for name, sense in (senses or {}).items()}
        for name, (encoder, connector, _) in (senses or {}).items():
            self.add_module(name, encoder)
            self.add_module(f"{name}_connector", connector)
        if map is not None and attention != "framewise":
            raise ValueError(f"a map is read at every step: it needs model.attention=framewise, not {attention}")
        self.map: Any = map  # a `MapEncoder`
        self.reads = tuple(SENSES[name][0] + camera for name, those in self.senses.items() for camera in those)
        if self.map is not None:
            made = {FEATURES + camera for camera in self.cameras} | {IMAGES + camera for camera in self.cameras}
            self.reads += tuple(key for key in self.map.reads if key not in self.reads and key not in made)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        tokenizer: TextTokenizer,
        cameras: Sequence[str],
        state_dim: int,
        history: int,
        depth_cameras: Sequence[str] = (),
    ) -> Observer:
        """Build from a config.

        Args:
            config: nodes `encoder`, `connector`, `backbone`, `state`, `map` (null: none), `depth` (`{reach: metres}`:
                depth pictures are read by an encoder and connector like the cameras'; null: they are not), `semantic`
                (`{categories: C}`: those of categories likewise) and plain values `readout_tokens`, `attention`,
                `order`, `share_encoder` (one encoder for all cameras, or one for each). A map that takes `features` and
                doesn't say how many reads the image encoder's.
            tokenizer: gives the backbone its vocabulary.
            cameras: camera names.
            state_dim: S.
            history: T.
            depth_cameras: those of the cameras that come with depth.

        Raises:
            ValueError: an unknown key, or whatever a part objects to.
        """
        values = ("readout_tokens", "attention", "order", "share_encoder")
        known = ("encoder", "connector", "backbone", "state", "map", *SENSES, *values)
        for key in config:
            if key not in known:
                raise ValueError(f"model has no '{key}'{nearest(str(key), known)}")
        backbone = build(dict(config["backbone"]), (nn.Module,), vocabulary=len(tokenizer))
        count = min(1, len(cameras)) if config.get("share_encoder", True) else len(cameras)
        encoders = [build(config["encoder"], (nn.Module,)) for _ in range(count)]
        shown = encoders if "images" in config.get("order", SEGMENTS) else []
        connectors = [build(config["connector"], (nn.Module,), features=e.dim, width=backbone.width) for e in shown]
        state = None
        if config.get("state") is not None and state_dim:
            state = build(config["state"], (nn.Module,), state_dim=state_dim, width=backbone.width)
        options = {key: config[key] for key in ("readout_tokens", "attention", "order") if key in config}
        senses: dict[str, Sense] = {}
        for name, (_, reader) in SENSES.items():
            if config.get(name) is not None:
                those = depth_cameras if name == "depth" else cameras
                if not those:
                    raise ValueError(f"model.{name}: none of the cameras {', '.join(cameras)} comes with {name}")
                sense: Any = reader(build(config["encoder"], (nn.Module,)), **config[name])
                joined = build(config["connector"], (nn.Module,), features=sense.dim, width=backbone.width)
                senses[name] = sense, joined, those
        if config.get("map") is not None:
            options["map"] = build_map(config["map"], backbone.width, encoders[0].dim if encoders else None)
        if not shown and not any(key.startswith(FEATURES) for key in getattr(options.get("map"), "reads", ())):
            encoders = []  # nothing looks at pictures
        return cls(backbone, tokenizer, cameras, encoders, connectors, state, history=history, senses=senses, **options)

    def resolved(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`config` with checkpoint folders replaced by what they hold, for an agent that must stand alone."""
        resolved = dict(config) | {"backbone": self.backbone.resolved(dict(config["backbone"]))}
        for encoder in [*self.encoders, *(self.get_submodule(f"{name}.encoder") for name in self.senses)][:1]:
            assert isinstance(encoder, ImageEncoder)
            resolved["encoder"] = encoder.resolved(dict(config["encoder"]))
        return resolved

    def forward(
        self, batch: Mapping[str, Any], memory: Any = None, slots: Sequence[int] | Tensor | None = None
    ) -> Readout:
        """Read a batch (`embodied.processing.base` lists its keys; `action` is not looked at).

        Args:
            batch: observations, with what `reads` names.
            memory: of a map: episodes that go on; None: the batch's rows are episodes from their beginning on.
            slots: which of the memory's each row goes on with; a row that repeats an earlier one's slot writes nothing.
        """
        if self.attention == "framewise":
            return self._read_frames(batch, memory, slots)
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

    def _read_frames(self, batch: Mapping[str, Any], memory: Any, slots: Sequence[int] | Tensor | None) -> Readout:
        """Each of any number T of steps as an observation of its own, so that a rollout may feed one at a time.

        Steps that don't exist cost nothing, and their readouts are zeros.
        """
        steps = ~batch["observation_is_pad"].to(self.readouts.device)
        rows, frames = steps.shape
        real = steps.nonzero()
        at = real.to(batch["observation_is_pad"].device).unbind(1)
        seen = [key for key in batch if key == STATE or key in self.reads or key.startswith(IMAGES)]
        apart: dict[str, Any] = {key: batch[key][at].unsqueeze(1) for key in seen}
        apart[TASK] = [batch[TASK][row] for row in real[:, 0].tolist()]
        apart["observation_is_pad"] = torch.zeros(len(real), 1, dtype=torch.bool)
        mapped = self.map is not None and any(key.startswith(FEATURES) for key in self.map.reads)
        features = self._encode(apart) if self._sees or mapped else {}
        recalled = None
        if self.map is not None:
            recalled = self._recall(apart, batch[TASK], steps, features, memory, slots)
        packed, _ = self.read(apart, features, recalled)
        hidden, _ = self.prefix(packed).extend(self.readouts.expand(len(real), -1, -1), causal=False)
        tokens = hidden.new_zeros(rows, frames, *hidden.shape[1:])
        tokens[real[:, 0], real[:, 1]] = hidden
        return Readout(tokens, steps)

    def _recall(
        self,
        apart: Mapping[str, Any],
        tasks: Sequence[str],
        steps: Tensor,
        features: Mapping[str, Tensor],
        memory: Any,
        slots: Sequence[int] | Tensor | None,
    ) -> Tokens:
        """What the map says at the K real steps `apart` (K, 1, ...), whose pictures have `features`."""
        observed = {key: apart[key].squeeze(1) for key in self.map.reads if key in apart}
        for camera, values in features.items():
            if FEATURES + camera in self.map.reads:
                observed[FEATURES + camera] = self._as_picture(camera, values, apart)
        return recall(self.map, observed, Text(*self._instruction(tasks)), steps, memory, slots)

    def _as_picture(self, camera: str, features: Tensor, apart: Mapping[str, Any]) -> Tensor:
        """Features (K, N, F) as (K, F, h, w)."""
        encoder: Any = self.encoders[0 if len(self.encoders) == 1 else self.cameras.index(camera)]
        grid = encoder.grid(*apart[IMAGES + camera].shape[2:4])
        if grid[0] * grid[1] != features.shape[1] or 1 in grid:
            count = features.shape[1]
            raise ValueError(f"the {count} features of camera '{camera}' are no picture that a map could use")
        return features.transpose(1, 2).unflatten(2, grid)

    def prefix(self, packed: Packed) -> Prefix:
        """One pass of the backbone over the observation."""
        hidden, cache = self.backbone(packed.tokens, packed.mask, packed.positions, keep=True)
        return Prefix(self.backbone, cache, packed.present, hidden)

    def read(
        self, batch: Mapping[str, Any], features: Mapping[str, Tensor] | None = None, recalled: Tokens | None = None
    ) -> tuple[Packed, Tensor]:
        """The batch as one sequence per sample, and which history steps exist, (B, T).

        Args:
            batch: see `forward`.
            features: of the pictures, by camera (B x T, N, D_enc), where they have been encoded already.
            recalled: what the map says at each step.
        """
        device = self.readouts.device
        steps = ~batch["observation_is_pad"].to(device)
        observed: dict[str, Tokens] = {} if recalled is None else {"map": recalled}
        everywhere = {
            "images": self._see(self._encode(batch) if features is None else features) if self._sees else None,
            **{name: self._sense(name, batch) for name in self.senses},
            "state": self._feel(batch[STATE].to(device)) if self.state is not None else None,
        }
        for name, tokens in everywhere.items():
            if tokens is not None:
                tokens = tokens.unflatten(0, steps.shape)
                observed[name] = Tokens(tokens, torch.ones(tokens.shape[:3], dtype=torch.bool, device=device))
        segments: list[Segment] = []
        at_end: list[Segment] = []
        if "task" in self.order:
            ids, present = self._instruction(batch[TASK])
            first = self.order.index("task") == 0
            task = Segment(ids, present, step=-1 if first else steps.shape[1])
            (segments if first else at_end).append(task)
        for step in range(steps.shape[1]):
            for name in self.order:
                if name in observed:
                    here = observed[name].tokens[:, step]
                    here = here if self.ages is None else here + self.ages[step]
                    segments.append(Segment(here, observed[name].present[:, step] & steps[:, step : step + 1], step))
        return pack(segments + at_end, self.attention), steps

    @property
    def _sees(self) -> bool:
        return bool(self.cameras) and "images" in self.order

    def _instruction(self, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings (B, L, D) of instructions, and which are no padding."""
        ids, present = (x.to(self.readouts.device) for x in self.tokenizer(tasks))
        return self.backbone.embed(ids), present

    def _encode(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """By camera, features (B x T, N, D_enc) of its pictures (B, T, H, W, 3)."""
        device = self.readouts.device
        return {
            camera: self.encoders[0 if len(self.encoders) == 1 else i](batch[IMAGES + camera].to(device).flatten(0, 1))
            for i, camera in enumerate(self.cameras)
        }

    def _see(self, features: Mapping[str, Tensor]) -> Tensor:
        """(B x T, cameras x M, D) from features by camera."""
        tokens = []
        for i, camera in enumerate(self.cameras):
            connected = self.connectors[0 if len(self.connectors) == 1 else i](features[camera])
            tokens.append(connected if self.camera_embeddings is None else connected + self.camera_embeddings[i])
        return torch.cat(tokens, dim=1)

    def _sense(self, name: str, batch: Mapping[str, Any]) -> Tensor:
        """(B x T, cameras x M, D) from pictures (B, T, H, W) of one of `SENSES`."""
        key, encoder, connector = SENSES[name][0], self.get_submodule(name), self.get_submodule(f"{name}_connector")
        pictures = [batch[key + camera].to(self.readouts.device).flatten(0, 1) for camera in self.senses[name]]
        return torch.cat([connector(encoder(picture)) for picture in pictures], dim=1)

    def _feel(self, state: Tensor) -> Tensor:
        """(B x T, M, D) from (B, T, S)."""
        assert self.state is not None
        return self.state(state.flatten(0, 1))

    def _read_out(self, packed: Packed, prefix: Prefix, step: int) -> Tensor:
        """(B, R, D): what step `step` knew: readout tokens that see it and the steps before."""
        visible = Prefix(self.backbone, prefix._cache, packed.present & (packed.steps <= step), prefix.hidden)
        hidden, _ = visible.extend(self.readouts.expand(len(packed.tokens), -1, -1), causal=False)
        return hidden
