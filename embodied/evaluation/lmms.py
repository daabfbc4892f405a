"""The models of this project in lmms-eval, unmodified: `python -m lmms_eval --model embodied --model_args policy=...`.

lmms-eval finds this through the entry point group `lmms_eval.models` (see `manifest`), hands over conversations, and
gets answers. Model arguments: `policy` (a folder), `device`, `batch_size`; or `responder`, the dotted name of a class
of your own (its package in `EMBODIED_PLUGINS`), built with the arguments that are left.

Its declared requirements include torchvision and pin others, so it is installed without them, beside what it imports:
`pip install -e '.[lmms]' && pip install --no-deps lmms-eval==0.7.3`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from embodied.building import build
from embodied.evaluation.tasks.base import Conversation, Responder
from embodied.evaluation.tasks.loading import load_responder

MAX_NEW_TOKENS = 128
"""Where a task says nothing, as its other models do."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


class Embodied(lmms):
    """A `Responder` as lmms-eval's chat model.

    Args:
        policy: the folder of a run, a checkpoint or a model.
        device: `auto`, or torch's name of one.
        batch_size: conversations at once; what is answered does not depend on it.
        responder: instead of `policy`, a responder, or the dotted name of a class that is one.
        max_batch_size: lmms-eval's; not needed.
        more: arguments of that class.

    Raises:
        ValueError: neither or both of `policy` and `responder` are given; what they name is no model.
    """

    is_simple = False

    def __init__(
        self,
        policy: str | None = None,
        device: str = "auto",
        batch_size: int | str = 1,
        responder: Responder | str | None = None,
        max_batch_size: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__()
        if (policy is None) == (responder is None):
            raise ValueError("model_args: give policy=<folder>, or responder=<class>")
        if policy is not None and more:
            raise ValueError(f"model_args: there is no '{next(iter(more))}' for policy=; there is device, batch_size")
        self.size = int(batch_size) if str(batch_size).isdecimal() else 1
        if self.size < 1:
            raise ValueError(f"batch_size is 1 or more, got {batch_size}")
        made: Any = responder
        if policy is not None:
            made = load_responder(policy, device)
        elif isinstance(responder, str):
            made = build({"_target_": responder, **more})
        if not isinstance(made, Responder):
            raise ValueError(f"responder: {type(made).__name__} has not the methods of a Responder")
        self.responder: Responder = made
        self._media = tempfile.TemporaryDirectory(prefix="lmms-")

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """One answer per request."""
        return self._in_batches([self._asked(request) for request in requests])

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """The log-likelihood of each request's continuation, and whether greedy decoding says it.

        lmms-eval asks this of its simple models alone: run such tasks with `--force_simple`.
        """
        conversations, continuations = [], []
        for request in requests:
            context, target, *rest = request.args
            doc = self._doc(*rest[1:]) if rest else None
            conversations.append(self._turn(rest[0](doc) if rest else [], context))
            continuations.append(str(target(doc)) if callable(target) else str(target))
        found: list[tuple[float, bool]] = []
        for start in range(0, len(conversations), self.size):
            part = slice(start, start + self.size)
            found += self.responder.loglikelihood(conversations[part], continuations[part])
        return found

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[list[str]]:
        """All answers of each request; what a round shows the model, earlier answers included, is the task's to say."""
        found = []
        for request in requests:
            _, messages, settings, *place = request.args
            doc = self._doc(*place)
            answers: list[str] = []
            shown, known = messages(doc), None
            while shown is not None:
                answers += self.responder.respond([self._conversation(shown)], **_settings(settings))
                told = messages(doc, round_idx=len(answers), previous_output=list(answers), previous_round_info=known)
                if not (isinstance(told, tuple) and len(told) == 4):
                    break
                shown, last, _, known = told
                if last:
                    break
            found.append(answers)
        return found

    def _asked(self, request: Instance) -> tuple[Conversation, dict[str, Any]]:
        _, messages, settings, *place = request.args
        return self._conversation(messages(self._doc(*place))), _settings(settings)

    def _doc(self, number: int, task: str, split: str) -> Any:
        return self.task_dict[task][split][number]

    def _in_batches(self, asked: Sequence[tuple[Conversation, dict[str, Any]]]) -> list[str]:
        """Neighbours with the same settings go together."""
        found: list[str] = []
        start = 0
        while start < len(asked):
            stop = start + 1
            while stop < min(len(asked), start + self.size) and asked[stop][1] == asked[start][1]:
                stop += 1
            found += self.responder.respond([one for one, _ in asked[start:stop]], **asked[start][1])
            start = stop
        return found

    def _conversation(self, messages: Sequence[Mapping[str, Any]]) -> Conversation:
        """lmms-eval's messages as ours: its pictures and films stand under `url`."""
        turns = []
        for message in messages:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            turns.append({"role": message["role"], "content": [self._part(part) for part in parts]})
        return turns

    def _turn(self, visuals: Sequence[Any] | None, text: str) -> Conversation:
        """A conversation of one turn; a film is told from a picture by being a file of another kind."""
        parts = [
            {"type": "video" if isinstance(one, str) and not one.lower().endswith(PICTURES) else "image", "url": one}
            for one in visuals or []
        ]
        return self._conversation([{"role": "user", "content": [*parts, {"type": "text", "text": text}]}])

    def _part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        kind = part["type"]
        if kind == "text":
            return {"type": "text", "text": part["text"]}
        if kind not in ("image", "video"):
            raise ValueError(f"a task shows the model {kind}, which it cannot take: image, video or text is needed")
        return {"type": kind, kind: self._file(part.get("url", part.get(kind)))}

    def _file(self, media: Any) -> str:
        """The path of a picture or film; one that is held in memory is written once."""
        if isinstance(media, str | Path):
            return str(media)
        picture = media.convert("RGB")
        name = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
        file = Path(self._media.name) / f"{name}.png"
        if not file.exists():
            picture.save(file)
        return str(file)


class EmbodiedSimple(Embodied):
    """The same for tasks that are not in chat form: `--force_simple`."""

    is_simple = True

    def _asked(self, request: Instance) -> tuple[Conversation, dict[str, Any]]:
        context, settings, visuals, *place = request.args
        return self._turn(visuals(self._doc(*place)), context), _settings(settings)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[list[str]]:
        raise ValueError("tasks of several rounds are asked in chat form: leave out --force_simple")


def manifest() -> ModelManifest:
    """What the entry point gives lmms-eval: the model `embodied`."""
    paths = {"chat_class_path": f"{__name__}.Embodied", "simple_class_path": f"{__name__}.EmbodiedSimple"}
    return ModelManifest("embodied", **paths)


def _settings(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A task's `generation_kwargs` as a responder's settings; beams and the like are not taken."""
    sampled = asked.get("do_sample", float(asked.get("temperature") or 0) > 0)
    until = asked.get("until") or []
    return {
        "max_new_tokens": int(asked.get("max_new_tokens") or asked.get("max_gen_toks") or MAX_NEW_TOKENS),
        "temperature": float(asked.get("temperature") or (1.0 if sampled else 0.0)) if sampled else 0.0,
        "top_p": float(asked.get("top_p") or 1.0) or 1.0,
        "stop": [until] if isinstance(until, str) else list(until),
        "seed": int(asked.get("seed") or 0),
    }
