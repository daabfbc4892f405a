"""Assistant = LVLM + tokenizer + chat template: what is talked to, trained on conversations, saved and loaded whole.

A folder of an assistant is an LVLM's (`embodied.lvlm.folder`) with a tokenizer, whose config.json also has the node of
the chat template under `chat`, the longest conversation under `max_tokens`, and under `video` which frames of a film
are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from embodied.building import build, find_class
from embodied.contracts import Generators
from embodied.data.multimodal.films import FilmSampling
from embodied.data.multimodal.media import load_image, shown
from embodied.data.multimodal.sample import BrokenSample, Sample
from embodied.files import read_json, write_json
from embodied.lvlm import folder as folders
from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.backbones.encoder_decoder import EncoderDecoderBackbone
from embodied.lvlm.backbones.generation import Read, generate, read, repeat
from embodied.lvlm.chat.conversation import ChatEncoder, Renders
from embodied.lvlm.chat.jinja import JinjaTemplate
from embodied.lvlm.chat.media import Film, Measured
from embodied.lvlm.chat.pieces import IGNORED, Encoded
from embodied.lvlm.chat.rows import Layout, pack
from embodied.lvlm.chat.segments import segmented
from embodied.lvlm.chat.template import Template
from embodied.lvlm.model import LVLM, Batch
from embodied.lvlm.vision import Clip, Picture

Conversation = Sequence[Mapping[str, Any]]
"""Chat messages as in `embodied.data.multimodal.sample`."""


@dataclass(frozen=True)
class Ready:
    """A conversation as the model will read it: token ids, labels and slots, and its pictures' and films' pixels.

    For an encoder-decoder, `encoded` is what the encoder reads and `answer` what the decoder says of it.
    """

    encoded: Encoded
    pictures: tuple[Picture | Clip, ...]
    answer: tuple[int, ...] = ()


class Assistant(nn.Module):
    """A language model that sees, and is talked to in words.

    Args:
        model: the LVLM.
        tokenizer: a fast one.
        chat: the node of the template (`conf/chat`).
        max_tokens: the longest conversation, pictures included; None: any.
        drop_turns: whether earlier turns without pictures are left out of conversations that are longer.
        batch_size: how many conversations are answered at once.
        video: which frames of films are looked at (`FilmSampling`); None: 8, evenly spread.

    Raises:
        ValueError: the chat node is no template; the tokenizer has no token that ends a text.
    """

    def __init__(
        self,
        model: LVLM,
        tokenizer: PreTrainedTokenizerBase,
        chat: Mapping[str, Any],
        max_tokens: int | None = None,
        drop_turns: bool = False,
        batch_size: int = 16,
        video: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        own = issubclass(find_class(str(chat.get("_target_", ""))), JinjaTemplate)
        template: Renders = build(dict(chat), (Template, JinjaTemplate), **({"tokenizer": tokenizer} if own else {}))
        self.model, self.tokenizer, self.chat, self.batch_size = model, tokenizer, dict(chat), batch_size
        self.max_tokens, self.drop_turns = max_tokens, drop_turns
        self.video = FilmSampling.from_dict(video)
        self.encode = ChatEncoder(tokenizer, template, max_tokens, drop_turns)
        if tokenizer.eos_token_id is None:
            raise ValueError("this tokenizer has no token that ends a text (eos_token), which answers need")

    # conversations to tensors

    def prepare(
        self,
        messages: Conversation,
        sample: str = "",
        prompt: bool = False,
        looked: dict[int, Picture | Clip] | None = None,
    ) -> Ready:
        """A conversation as ids and pixels; with `prompt`, one that ends with the user and is to be answered.

        Conversations about the same picture may share `looked`, where what has been read from disk is kept.

        Raises:
            BrokenSample: a picture or film is missing or damaged.
            ValueError: one line that names the sample (`ChatEncoder`).
        """
        looked = {} if looked is None else looked  # turns are measured again where some were left out
        seen: list[Picture | Clip] = []
        faults: list[BrokenSample] = []

        def measured(part: Mapping[str, Any]) -> Measured | Film:
            reference = part[part["type"]]
            if id(reference) not in looked:
                try:
                    looked[id(reference)] = self._look(part["type"], reference, sample)
                except BrokenSample as fault:
                    faults.append(fault)
                    raise
            seen.append(looked[id(reference)])
            return self._measured(seen[-1])

        answer: list[int] = []
        try:
            if self._decoder is not None and not prompt:
                encoded, answer = self.encode.pair(messages, measured, sample)
            else:
                encoded = self.encode(messages, measured, sample, prompt)
        except ValueError:
            if faults:
                raise faults[0] from None  # as it was: it names file, sample and the kind of fault
            raise
        # What was left out holds no pictures, and what is rendered twice, for a prompt and its answer, ends alike.
        return Ready(encoded, tuple(seen[-len(encoded.media) :] if encoded.media else ()), tuple(answer))

    def _look(self, kind: str, reference: Any, sample: str) -> Picture | Clip:
        """A picture or film as pixels."""
        if self.model.vision is None:
            raise ValueError("this language model has no encoder: its conversations cannot hold pictures")
        if kind == "image":
            return self.model.vision.prepare(load_image(reference, sample))
        frames, seconds = self.video.load(reference, sample)
        try:
            return self.model.vision.film(frames, seconds)
        except ValueError as error:
            raise BrokenSample("unfit video", str(error), shown(reference), sample) from None

    def _measured(self, seen: Picture | Clip) -> Measured | Film:
        assert self.model.vision is not None
        if self.model.placement == "inline":
            return self.model.vision.measured(seen)
        mark = Measured((1,))
        return mark if isinstance(seen, Picture) else Film((mark,), seen.seconds[:1])

    def lesson(self, sample: Sample) -> Ready:
        """A sample to learn from.

        Raises:
            BrokenSample: it cannot be used.
        """
        try:
            return self.prepare(sample.messages, sample.id)
        except BrokenSample:
            raise
        except ValueError as error:
            raise BrokenSample("not a conversation to learn from", str(error)) from None

    def batch(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Samples as a raw batch to learn from; see `collate`.

        Raises:
            BrokenSample: one cannot be used.
        """
        return self.collate([self.lesson(sample) for sample in samples])

    def collate(self, rows: Sequence[Ready], left: bool = False) -> dict[str, Any]:
        """Conversations as one batch: `ids`, `present`, `slots` and `labels`, (B, L), and `pictures`, per row.

        An encoder-decoder's labels are its answers, (B, T).

        Args:
            rows: B of them.
            left: whether padding comes before instead of behind.
        """
        longest = max(len(row.encoded) for row in rows)
        fill = {"ids": self.encode.placeholder, "labels": IGNORED, "slots": False, "present": False}
        kinds = {"ids": torch.long, "labels": torch.long, "slots": torch.bool, "present": torch.bool}
        columns: dict[str, Any] = {
            name: torch.full((len(rows), longest), value, dtype=kinds[name]) for name, value in fill.items()
        }
        for i, row in enumerate(rows):
            at = slice(longest - len(row.encoded), longest) if left else slice(0, len(row.encoded))
            for name in ("ids", "labels", "slots"):
                columns[name][i, at] = torch.tensor(getattr(row.encoded, name), dtype=kinds[name])
            columns["present"][i, at] = True
        if self._decoder is not None:
            answers = [torch.tensor(row.answer, dtype=torch.long) for row in rows]
            columns["labels"] = nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=IGNORED)
        else:
            columns["labels"][:, 0] = IGNORED  # nothing comes before it to tell it from
        return columns | {"pictures": [row.pictures for row in rows]}

    def _batch(self, raw: Mapping[str, Any]) -> Batch:
        pictures = [picture for row in raw["pictures"] for picture in row]
        tensors = {name: raw[name] for name in ("ids", "present", "slots")}
        extra = {name: raw[name] for name in ("labels", "mask", "positions") if name in raw}
        batch = Batch(**tensors, **extra, pictures=pictures)
        return self._instructed(batch, raw) if pictures and self._reads_instructions else batch

    @property
    def _reads_instructions(self) -> bool:
        vision = self.model.vision
        connectors = () if vision is None else (vision.connector, vision.video_connector)
        return any(bool(getattr(connector, "instructed", False)) for connector in connectors)

    def _instructed(self, batch: Batch, raw: Mapping[str, Any]) -> Batch:
        """With the words before each row's first answer, which instruction-aware connectors read."""
        texts = []
        for i, row in enumerate(raw["pictures"]):
            asked = batch.present[i] & ~batch.slots[i]
            if batch.labels is not None and self._decoder is None:
                asked &= (batch.labels[i] != IGNORED).cumsum(0) == 0
            texts += [batch.ids[i][asked]] * len(row)
        longest = max(len(text) for text in texts)
        ids = torch.stack([F.pad(text, (0, longest - len(text))) for text in texts])
        present = torch.stack([torch.arange(longest, device=text.device) < len(text) for text in texts])
        return Batch(**(vars(batch) | {"text": ids, "text_present": present}))

    # training

    def loss(self, batch: Mapping[str, Any], generators: Generators | None = None) -> dict[str, Tensor]:
        """Cross-entropy of what the assistant says in a raw batch, a mean over the tokens learned.

        Args:
            batch: of `collate`; with a `layout` (`embodied.lvlm.chat.rows`) several conversations are read in one row
                and know nothing of each other. The loss is the same.
            generators: none are needed.
        """
        read = self._batch(batch)
        layout: Layout | None = batch.get("layout")
        if layout is None:
            return self.model.loss(read)
        media = [len(row) for row in batch["pictures"]]
        packed, spans = pack(read, self.model.positions(read), layout, media)
        with segmented(None if any(layout.shared) else spans):
            return self.model.loss(packed)

    # talking

    @torch.no_grad()
    def respond(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[str]:
        """The assistant's next turn in each conversation (`embodied.evaluation.tasks.base.Responder`)."""
        self.eval()
        sampling: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {}
        )
        answers: list[str] = []
        size = 1 if sampling else self.batch_size  # what is drawn must not depend on who shares the batch
        for start in range(0, len(conversations), size):
            rows = [self.prepare(each, prompt=True) for each in conversations[start : start + size]]
            torch.manual_seed(seed)
            answers += [self.words(row, stop) for row in self._say(rows, max_new_tokens, **sampling).tolist()]
        return answers

    def _say(self, rows: Sequence[Ready], max_new_tokens: int, **options: Any) -> Tensor:
        """Token ids of the answers to prompts, (B, T)."""
        options |= {
            "max_new_tokens": max_new_tokens,
            "eos_token_id": self.tokenizer.eos_token_id,
            "pad_token_id": self.encode.placeholder,
        }
        if self._decoder is None:
            return generate(self._backbone, self.read(rows), self._adapters, **options)
        raw = self.collate(rows)
        embedded = self.model.embed(self._batch({name: raw[name] for name in raw if name != "labels"}))
        return self._decoder.generate(self.model.read(embedded), raw["present"].to(embedded.tokens.device), **options)

    def read(self, rows: Sequence[Ready], before: Read | None = None) -> Read:
        """Read prompts, padded on the left, from where `generate` speaks on; or read on behind `before`."""
        raw = self.collate(rows, left=True)
        embedded = self.model.embed(self._batch({name: raw[name] for name in raw if name != "labels"}))
        device = embedded.tokens.device
        if before is not None:
            return read(
                self._backbone, embedded.tokens, raw["present"].to(device), before=before,
                adapters=self._adapters, sight=before.sight,
            )  # fmt: skip
        return read(
            self._backbone, embedded.tokens, raw["present"].to(device), embedded.positions, embedded.mask,
            adapters=self._adapters, sight=embedded.sight,
        )  # fmt: skip

    @torch.no_grad()
    def ask(self, image: str, questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """Several questions about one picture, which is read once."""
        self.eval()
        conversations = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
            for question in questions
        ]
        looked: dict[int, Picture | Clip] = {}
        rows = [self.prepare(each, prompt=True, looked=looked) for each in conversations]
        shared = _shared([row.encoded for row in rows])
        if self._decoder is not None or shared <= max(i for i, slot in enumerate(rows[0].encoded.slots) if slot):
            return self.respond(conversations, max_new_tokens=max_new_tokens)  # the question comes first
        first = self.read([Ready(_cut(rows[0].encoded, 0, shared), rows[0].pictures)])
        rest = [Ready(_cut(row.encoded, shared, len(row.encoded)), ()) for row in rows]
        prompt = self.read(rest, repeat(first, len(rest)))
        ids = generate(
            self._backbone, prompt, self._adapters, max_new_tokens=max_new_tokens,
            eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.encode.placeholder,
        )  # fmt: skip
        return [self.words(row) for row in ids.tolist()]

    def words(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """What ids say up to the end of the text or a stopping text, without the spaces around it."""
        end = self.tokenizer.eos_token_id
        spoken = list(ids[: ids.index(end)] if end in ids else ids)
        text = str(self.tokenizer.decode(spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return min((text.partition(each)[0] for each in stop), key=len, default=text).strip()

    @torch.no_grad()
    def loglikelihood(
        self, conversations: Sequence[Conversation], continuations: Sequence[str]
    ) -> list[tuple[float, bool]]:
        """Of each continuation behind its conversation: its log-probability, and whether greedy decoding says it."""
        self.eval()
        results = []
        for conversation, said in zip(conversations, continuations, strict=True):
            answered = [*conversation, {"role": "assistant", "content": said}]
            batch = self._batch(self.collate([self.prepare(answered)]))
            assert batch.labels is not None
            logits = self.model(batch)[0].float().log_softmax(-1)
            labels = batch.labels[0].to(logits.device)
            if self._decoder is None:
                logits, labels = logits[:-1], labels[1:]
            spoken = (labels != IGNORED) & (labels != self.tokenizer.eos_token_id)
            picked = logits[spoken].gather(1, labels[spoken].unsqueeze(1))
            results.append((float(picked.sum()), bool((logits[spoken].argmax(-1) == labels[spoken]).all())))
        return results

    def describe(self) -> dict[str, Any]:
        """Which model this is, for results."""
        parameters = sum(p.numel() for p in self.parameters())
        return {"name": type(self).__name__, "parameters": parameters, "template": self.chat}

    @property
    def _decoder(self) -> EncoderDecoderBackbone | None:
        backbone = self.model.backbone
        return backbone if isinstance(backbone, EncoderDecoderBackbone) else None

    @property
    def _backbone(self) -> CausalBackbone:
        assert isinstance(self.model.backbone, CausalBackbone)
        return self.model.backbone

    @property
    def _adapters(self) -> list[Any]:
        return list(self.model.adapters)

    # folders

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the assistant's files into `folder`, which is made; a checkpoint makes that atomic as a whole."""
        folders.save(self.model, folder, self.tokenizer)
        config = read_json(Path(folder) / folders.CONFIG)
        write_json(
            Path(folder) / folders.CONFIG,
            config
            | {"chat": self.chat, "max_tokens": self.max_tokens, "drop_turns": self.drop_turns}
            | {"video": self.video.to_dict()},
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, chat: Mapping[str, Any] | None = None) -> Assistant:
        """Load an assistant, or a Hugging Face folder of a family that we compose, for which `chat` is the template.

        Raises:
            ValueError: the folder is none, or a file is damaged or does not fit; it has no tokenizer; no template.
        """
        folder = Path(folder)
        model = folders.load(folder)
        config = read_json(folder / folders.CONFIG)
        place = folder / folders.TOKENIZER if (folder / folders.TOKENIZER).is_dir() else folder
        if not (place / "tokenizer.json").is_file():
            raise ValueError(f"{folder} has no tokenizer.json: a model that is talked to needs one")
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        node = config.get("chat") if chat is None else chat
        if not isinstance(node, Mapping):
            raise ValueError(f"{folder} names no chat template: choose one with chat=<family>")
        own = config if config.get("format") == folders.FORMAT else {}
        longest, drop = own.get("max_tokens"), bool(own.get("drop_turns"))
        return cls(model, tokenizer, node, longest, drop, video=own.get("video")).eval()


def is_assistant(folder: str | Path) -> bool:
    """Whether a folder holds an assistant."""
    file = Path(folder) / folders.CONFIG
    if not file.is_file():
        return False
    config = read_json(file)
    return isinstance(config, dict) and config.get("format") == folders.FORMAT and "chat" in config


def _shared(rows: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with alike, at least one short of the shortest."""
    shortest = min(map(len, rows)) - 1
    alike = (len({(row.ids[i], row.slots[i]) for row in rows}) == 1 for i in range(shortest))
    return next((i for i, same in enumerate(alike) if not same), shortest)


def _cut(encoded: Encoded, start: int, end: int) -> Encoded:
    return Encoded(encoded.ids[start:end], encoded.labels[start:end], encoded.slots[start:end])
