"""Speaking: what a language model says behind a prompt of embeddings, by transformers' own `generate`.

A prompt is read once (`read`) with any mask and positions, padded on either side, and may continue what was read
before: a picture is read once and asked many questions (`repeat`). From there on transformers chooses the tokens -
greedy, sampling, beams, its processors and its stopping rules - and this file answers each of its steps, so that every
family, cache and adapter generates in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import CausalLMOutputWithPast

from embodied.lvlm.adapters.base import BLIND, Adapter, Sight
from embodied.lvlm.backbones.causal import CausalBackbone, KeyValues
from embodied.lvlm.backbones.masks import causal


@dataclass(frozen=True)
class Read:
    """What has been read and can be read on, or spoken on, from.

    Attributes:
        past: keys and values per layer of P tokens.
        present: (B, P), bool; False on padding.
        next: (B,), int: the position of the token that would follow.
        hidden: (B, D): the hidden state of the last real token.
        sight: what the next token looks at.
        room: the cache that read it, if it is to be had: behind `past` it has room, which the first who speaks takes,
            and so need not copy what has been read. `past` itself is never written over.
    """

    past: KeyValues
    present: Tensor
    next: Tensor
    hidden: Tensor
    sight: Sight = BLIND
    room: list[Any] = field(default_factory=list, repr=False, compare=False)


def read(
    backbone: CausalBackbone,
    embeddings: Tensor,
    present: Tensor,
    positions: Tensor | None = None,
    mask: Tensor | None = None,
    before: Read | None = None,
    adapters: Sequence[Adapter] = (),
    sight: Sight = BLIND,
) -> Read:
    """Read a prompt, or read on.

    Args:
        backbone: the language model.
        embeddings: (B, N, D).
        present: (B, N), bool; False on padding. A row needs a real token.
        positions: (B, N) or (axes, B, N), int; None: the real tokens count on from `before`.
        mask: (B, N, P + N), bool; None: causal, behind all that is present before.
        before: what was read before; left as it was.
        adapters: of this backbone, told what is looked at.
        sight: what these N tokens look at.

    Raises:
        ValueError: a row without a real token.
    """
    if not present.any(1).all():
        row = int((~present.any(1)).nonzero()[0])
        raise ValueError(f"generation: row {row} of the prompt has no token")
    rows, new = present.shape
    earlier = before.present if before is not None else present[:, :0]
    start = before.next if before is not None else torch.zeros(rows, dtype=torch.long, device=present.device)
    if positions is None:
        positions = start.unsqueeze(1) + (present.cumsum(1) - 1).clamp(min=0)
    if mask is None and before is not None:
        mask = causal(present, earlier)
    for adapter in adapters:
        adapter.see(sight)
    cache = backbone.remember(None if before is None else before.past)
    hidden = backbone.read(embeddings, mask, positions, cache, present)
    last = new - 1 - present.flip(1).int().argmax(1)
    furthest = (positions if positions.ndim == 2 else positions.amax(0)).masked_fill(~present, -1).amax(1)
    return Read(
        past=backbone.remembered(cache),
        present=torch.cat([earlier, present], dim=1),
        next=furthest + 1,
        hidden=hidden[torch.arange(rows, device=hidden.device), last],
        sight=sight.onward(present),
        room=[] if backbone.recurrent else [cache],  # recurrent states are written over as one goes on
    )


def repeat(prefix: Read, times: int) -> Read:
    """Each row `times` times over: one picture for many questions."""
    seen = torch.ones(len(prefix.present), 1, dtype=torch.bool, device=prefix.present.device)
    return Read(
        past=[(_repeated(one, times), _repeated(two, times)) for one, two in prefix.past],
        present=prefix.present.repeat_interleave(times, 0),
        next=prefix.next.repeat_interleave(times, 0),
        hidden=prefix.hidden.repeat_interleave(times, 0),
        sight=prefix.sight.onward(seen, times),
    )


def _repeated(states: Tensor, times: int) -> Tensor:
    """Each row `times` times over; a single one without a copy, which reading on makes anyway."""
    return states.expand(times, *states.shape[1:]) if len(states) == 1 else states.repeat_interleave(times, 0)


@torch.no_grad()
def generate(
    backbone: CausalBackbone,
    prompt: Read,
    adapters: Sequence[Adapter] = (),
    stream: Callable[[list[int]], None] | BaseStreamer | None = None,
    **options: Any,
) -> Tensor:
    """What the language model says behind a prompt.

    Args:
        backbone: the language model.
        prompt: from `read`; left as it was.
        adapters: of this backbone.
        stream: called with the ids of all rows as soon as they are chosen, or a streamer of transformers.
        options: of transformers' GenerationConfig: `max_new_tokens` (64 unless given), `do_sample`, `temperature`,
            `top_p`, `num_beams`, `num_return_sequences`, `eos_token_id`, `pad_token_id`, ...; and of its `generate`:
            `logits_processor`, `stopping_criteria`.

    Returns:
        (B x num_return_sequences, T), int: new tokens alone; rows that ended are filled with `pad_token_id`.

    Raises:
        ValueError: an option that transformers does not know or can't combine.
    """
    extras = {key: options.pop(key) for key in ("logits_processor", "stopping_criteria") if key in options}
    unknown = [key for key in options if not hasattr(GenerationConfig(), key)]
    if unknown:
        raise ValueError(f"generation: transformers' GenerationConfig has no {', '.join(unknown)}")
    settings = GenerationConfig(**({"max_new_tokens": 64} | options))
    if settings.pad_token_id is None and settings.eos_token_id is not None:
        ends = settings.eos_token_id
        settings.pad_token_id = ends[0] if isinstance(ends, list) else ends
    times = max(settings.num_beams or 1, settings.num_return_sequences or 1)
    speaker: Any = _Speaker(backbone, repeat(prompt, times) if times > 1 else prompt, adapters)
    streamer = _Calls(stream) if callable(stream) else stream
    spoken = speaker.generate(
        inputs_embeds=prompt.hidden.unsqueeze(1),  # how many rows and where; what is read has been read
        past_key_values=speaker.memory,
        generation_config=settings,
        streamer=streamer,
        **extras,
    )
    assert isinstance(spoken, Tensor)
    return spoken


class _Memory:
    """The cache of the rows being spoken, as far as `generate` handles it."""

    is_compileable = False

    def __init__(self, backbone: CausalBackbone, prompt: Read) -> None:
        self.cache: Any = prompt.room.pop() if prompt.room else backbone.remember(prompt.past)

    def get_seq_length(self) -> int:
        return 0  # of what `generate` was given, nothing has been read

    def reorder_cache(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)


class _Speaker(GenerationMixin):
    """One conversation between `generate` and a backbone: its first step is answered from the prompt."""

    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, backbone: CausalBackbone, prompt: Read, adapters: Sequence[Adapter]) -> None:
        self.backbone, self.prompt, self.adapters = backbone, prompt, adapters
        self.memory = _Memory(backbone, prompt)
        self.spoken = 0
        self.config = backbone.model.config
        self.generation_config = GenerationConfig()
        self.device, self.dtype = prompt.hidden.device, prompt.hidden.dtype

    def __call__(self, **inputs: Any) -> CausalLMOutputWithPast:
        return self.forward(**inputs)

    def forward(
        self, input_ids: Tensor | None = None, past_key_values: Any = None, return_dict: bool = True, **_: Any
    ) -> CausalLMOutputWithPast:
        if input_ids is None:
            hidden = self.prompt.hidden.unsqueeze(1)
        else:
            rows = len(input_ids)
            self.spoken += 1
            new = torch.ones(rows, self.spoken, dtype=torch.bool, device=input_ids.device)
            mask = torch.cat([self.prompt.present, new], dim=1).unsqueeze(1)
            positions = (self.prompt.next + self.spoken - 1).unsqueeze(1)
            for adapter in self.adapters:
                adapter.see(self.prompt.sight)
            hidden = self.backbone.read(self.backbone.embed(input_ids), mask, positions, self.memory.cache)
        return CausalLMOutputWithPast(logits=self.backbone.logits(hidden), past_key_values=past_key_values)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        return {"input_ids": None if is_first_iteration else input_ids[:, -1:], "past_key_values": past_key_values}

    def can_generate(self) -> bool:
        return True

    def get_experts_implementation(self) -> None:
        """What `generate` would change for speed while it runs; the backbone's stays as it is."""


class _Calls(BaseStreamer):
    """A function as a streamer."""

    def __init__(self, call: Callable[[list[int]], None]) -> None:
        self.call = call

    def put(self, value: Tensor) -> None:
        if value.numel():  # the prompt has no ids
            self.call(value.flatten().tolist())

    def end(self) -> None:
        pass


def speak(
    backbone: CausalBackbone,
    embeddings: Tensor,
    present: Tensor,
    adapters: Sequence[Adapter] = (),
    sight: Sight = BLIND,
    **options: Any,
) -> Tensor:
    """`read` and `generate` at once, for a causal prompt that nothing comes before."""
    with torch.no_grad():
        prompt = read(backbone, embeddings, present, adapters=adapters, sight=replace(sight, present=present))
    return generate(backbone, prompt, adapters, **options)
