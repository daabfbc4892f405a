"""Say actions in words, with the language model's own text tokens.

RT-2 (Brohan et al. 2023, arXiv 2307.15818) writes an action as text, `1 128 91 241 5 101 127`, so that a language model
says it as it says anything else. What words there are is `policies.heads.wording`; they are learned by next-token
prediction and read back by looking them up: nothing that a model says is ever evaluated.

RT-2 limits what is said to valid action tokens when the prompt is a robot's task. Here that is exact: at each step only
tokens are allowed that some valid text goes on with, so that every sentence can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from embodied.contracts import Generators, Prefix, Readout, Speller
from embodied.spec import ActionSpec
from policies.heads.categorical import check_indices
from policies.heads.pooling import Pooling
from policies.heads.speaking import SpeakingHead, choose
from policies.heads.wording import Form, make_wording

OPTIONS = {"form": "named", "bins": 201, "one_hot": ()}
"""Defaults of what decides the wording."""


class TextHead(SpeakingHead):
    """Chunks as text.

    Wants actions in [-1, 1]. Categorical actions are said by their names, whatever `form` is.

    Args:
        width, horizon, action_dim, readout_tokens, temperature, pooling: see `SpeakingHead`.
        action: the body's actions, whose names are said.
        tokenizer: the language model's.
        form: `integers` or `named` (`policies.heads.wording`).
        bins: how many values a number can have: any for `integers`, an odd number for `named`.
        one_hot: for `integers`, groups of dimensions that are one choice together.
        constrained: whether decoding is limited to tokens that lead to a valid text. Otherwise a text that cannot be
            read becomes NaN: an evaluation counts it among the actions that are not finite, and `unreadable` counts it
            here.

    Attributes:
        unreadable: how many texts so far could not be read.

    Raises:
        ValueError: an option is not possible; the tokenizer cannot spell an action, or so that one spelling could be
            two texts; when used: the language model has fewer token ids than the tokenizer.
    """

    kinds = ("continuous", "categorical")
    table: Tensor

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        *,
        action: ActionSpec,
        tokenizer: Speller,
        form: Form = "named",
        bins: int = 201,
        one_hot: Sequence[Sequence[int]] = (),
        constrained: bool = True,
        temperature: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, temperature, pooling)
        self.constrained, self.unreadable, self.tokenizer, self.end = constrained, 0, tokenizer, tokenizer.end
        self.wording = make_wording(form, action, bins, one_hot)
        self.slots = len(self.wording.phrases)
        self.names = action.dim if action.kind == "categorical" else None
        spelled = [[tokenizer.spell(phrase) for phrase in phrases] for phrases in self.wording.phrases]
        self.grammar = Grammar(spelled, horizon, self.end)
        options, longest = max(map(len, spelled)), max(len(ids) for phrases in spelled for ids in phrases)
        table = torch.full((self.slots, options, longest), -1)
        for slot, phrases in enumerate(spelled):
            for option, ids in enumerate(phrases):
                table[slot, option, : len(ids)] = torch.tensor(ids)
        self.register_buffer("table", table, persistent=False)
        self.highest = max(int(table.max()), self.end)

    @classmethod
    def phrases(cls, action: ActionSpec, node: Mapping[str, Any]) -> Sequence[str]:
        chosen = {key: node.get(key, default) for key, default in OPTIONS.items()}
        return [text for options in make_wording(action=action, **chosen).phrases for text in options]

    def fit(self, chunks: Tensor, mask: Tensor) -> None:
        """Nothing is learned; categorical actions are checked to be the index of a name."""
        if self.names is not None:
            check_indices(chunks[mask], self.names)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        """Surprise at the text per phrase: where every phrase is one token, that of a token."""
        prefix, opening = self._prefix(readout), self._opening(readout)
        choices = self.wording.encode(actions.masked_fill(~mask.unsqueeze(-1), 0.0))
        ids, steps = self._sentences(choices)
        spoken = prefix.embed(ids[:, :-1].clamp(min=0))
        hidden, _ = prefix.extend(torch.cat([opening, spoken], dim=1))
        logits = prefix.logits(hidden).float()
        counts = (ids >= 0) & mask.gather(1, steps)
        surprise = F.cross_entropy(logits.flatten(0, 1), ids.clamp(min=0).flatten(), reduction="none").view_as(ids)
        loss = surprise.masked_fill(~counts, 0.0).sum() / (mask.sum() * self.slots).clamp(min=1)
        with torch.no_grad():
            right = ((logits.argmax(-1) == ids) & counts).sum() / counts.sum().clamp(min=1)
            tokens = (ids >= 0).sum(dim=1).float().mean()
        return {"loss": loss, "token_accuracy": right, "chunk_tokens": tokens}

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        prefix, embeddings = self._prefix(readout), self._opening(readout)
        rows = len(embeddings)
        states, ended = [self.grammar.start] * rows, [False] * rows
        texts: list[list[int]] = [[] for _ in range(rows)]
        for _ in range(self.grammar.longest):
            hidden, prefix = prefix.extend(embeddings)
            logits = prefix.logits(hidden[:, -1]).float()
            if self.constrained:
                allowed = torch.full_like(logits, -torch.inf)
                for row, state in enumerate(states):
                    allowed[row, [self.end] if ended[row] else self.grammar.allowed(state)] = 0.0
                logits = logits + allowed
            ids = choose(logits, self.temperature, generators, ended)
            for row, token in enumerate(ids.tolist()):
                ended[row] = ended[row] or token == self.end
                if not ended[row]:
                    texts[row].append(token)
                    states[row] = self.grammar.after(states[row], token) if self.constrained else states[row]
            if all(ended):
                break
            embeddings = prefix.embed(ids.unsqueeze(1))
        chunks = [self._read(text) if done else None for text, done in zip(texts, ended, strict=True)]
        self.unreadable += sum(chunk is None for chunk in chunks)
        nothing = torch.full((self.horizon, self.action_dim), torch.nan)
        return torch.stack([nothing if chunk is None else chunk for chunk in chunks]).to(embeddings.device)

    def _sentences(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Choices (B, H, S) to token ids (B, N), -1 behind the end, and the step that each belongs to, (B, N)."""
        rows = len(choices)
        ids = self.table[torch.arange(self.slots, device=choices.device), choices].flatten(1)
        steps = torch.arange(self.horizon, device=ids.device).repeat_interleave(ids.shape[1] // self.horizon)
        ids = torch.cat([ids, ids.new_full((rows, 1), self.end)], dim=1)
        steps = torch.cat([steps, steps[-1:]]).expand(rows, -1)
        order = (ids < 0).to(torch.int8).argsort(dim=1, stable=True)[:, : int((ids >= 0).sum(dim=1).max())]
        return ids.gather(1, order), steps.gather(1, order)

    def _read(self, ids: Sequence[int]) -> Tensor | None:
        """The chunk (H, A) that token ids say; None where they say none."""
        choices = self.wording.read(self.tokenizer.read(ids), self.horizon)
        return None if choices is None else self.wording.decode(torch.tensor(choices))

    def _prefix(self, readout: Readout) -> Prefix:
        prefix = super()._prefix(readout)
        if self.highest >= prefix.vocabulary:
            raise ValueError(
                f"TextHead: the tokenizer spells actions with token {self.highest}, but the language model has only "
                f"{prefix.vocabulary}: its tokenizer is another one"
            )
        return prefix


State = tuple[int, int]
"""How many phrases were finished, and the node of the next one's tree that its tokens so far have led to."""


class Grammar:
    """Which tokens a valid text may go on with.

    Each slot's spellings make a tree of tokens. A text walks down the tree of its first slot; where a phrase may be
    complete it goes on with the next slot's tree, round and round for all steps, and then ends.

    Args:
        spelled: per slot and phrase the token ids.
        steps: H.
        end: the token that ends a text.

    Attributes:
        start: the state before anything was said.
        longest: the most tokens that a text has, its end included.

    Raises:
        ValueError: some tokens could be two texts.
    """

    start: State = (0, 0)

    def __init__(self, spelled: Sequence[Sequence[Sequence[int]]], steps: int, end: int) -> None:
        self.end, self.phrases = end, steps * len(spelled)
        self.longest = steps * sum(max(map(len, phrases)) for phrases in spelled) + 1
        self._trees = [_tree(phrases) for phrases in spelled]
        for slot, (children, complete) in enumerate(self._trees):
            behind = {end, *self._trees[(slot + 1) % len(spelled)][0][0]}
            for node in complete:
                if both := behind & children[node].keys():
                    raise ValueError(
                        f"TextHead: this tokenizer's token {min(both)} could end a phrase or go on with it"
                    )

    def allowed(self, state: State) -> list[int]:
        """The tokens that may come next."""
        finished, node = state
        children, complete = self._trees[finished % len(self._trees)]
        tokens = list(children[node])
        if node in complete:
            tokens += [self.end] if finished + 1 == self.phrases else self._root(finished + 1)
        return tokens

    def after(self, state: State, token: int) -> State:
        """The state behind one of the allowed tokens that is not the end."""
        finished, node = state
        children, _ = self._trees[finished % len(self._trees)]
        if token in children[node]:
            return finished, children[node][token]
        return finished + 1, self._trees[(finished + 1) % len(self._trees)][0][0][token]

    def _root(self, phrase: int) -> list[int]:
        return list(self._trees[phrase % len(self._trees)][0][0])


def _tree(phrases: Sequence[Sequence[int]]) -> tuple[list[dict[int, int]], set[int]]:
    """Per node its children by token, the root first, and the nodes at which a phrase is complete."""
    children: list[dict[int, int]] = [{}]
    complete: set[int] = set()
    for ids in phrases:
        node = 0
        for token in ids:
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
            node = children[node][token]
        if node == 0 or node in complete:
            raise ValueError("TextHead: this tokenizer spells two actions alike")
        complete.add(node)
    return children, complete
