"""Queries that talk to each other and ask the features: BLIP-2's querying transformer and its relatives.

BLIP-2's Q-Former (Li et al. 2023, arXiv 2301.12597) is a BERT whose every second layer also attends to the features.
InstructBLIP (Dai et al. 2023, arXiv 2305.06500) lets the queries read the instruction first, so that they ask for what
the question needs. BLIVA (Hu et al. 2023, arXiv 2308.09936) passes the features on beside the queries' answers. With
windows (GraniteSpeech, arXiv 2505.08699) each run of features is asked by queries of its own, so that the number of
tokens grows with the number of features. The transformers are transformers' own classes and load released weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel, InstructBlipQFormerConfig, InstructBlipQFormerModel

from embodied.lvlm.connectors.base import NOTHING, Context
from embodied.lvlm.connectors.checks import divides, per_frame, positive
from embodied.lvlm.connectors.queries import QueryConnector


class QFormer(QueryConnector):
    """A querying transformer and a linear map to the language model.

    Args:
        features, width: D_enc and D.
        queries: tokens per picture, or per window.
        hidden: width of the transformer.
        layers: its depth.
        heads: attention heads; they divide `hidden`.
        intermediate: width inside its feed-forward nets.
        frequency: every how many layers, from the first on, the features are asked.
        instructed: whether the queries read the instruction (`Context.text`), which is then needed.
        vocabulary: ids of the instruction's tokens, BERT's and one more in InstructBLIP.
        positions: longest instruction, in tokens.
        window: how many features a set of queries asks, the last window filled up with zeros; None: all of them.
        per_frame: whether each frame of a video is asked by itself (InstructBLIP-Video), instead of all together.
        patches: whether the features follow the answers, each through a linear map (BLIVA).
        dropout: while training.

    Raises:
        ValueError: `heads` does not divide `hidden`; another size is not positive; both windows and frames; when used:
            no instruction where one is needed, or one too long.
    """

    def __init__(
        self,
        features: int,
        width: int,
        queries: int = 32,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        intermediate: int = 3072,
        frequency: int = 2,
        instructed: bool = False,
        vocabulary: int = 30523,
        positions: int = 512,
        window: int | None = None,
        per_frame: bool = False,
        patches: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(features, width)
        owner = type(self).__name__
        divides(owner, "heads", heads, "hidden", hidden)
        positive(owner, queries=queries, layers=layers, intermediate=intermediate, frequency=frequency)
        positive(owner, vocabulary=vocabulary, positions=positions, window=1 if window is None else window)
        if window is not None and per_frame:
            raise ValueError(f"{owner}: a frame is a window already; set either window or per_frame")
        sizes: dict[str, Any] = {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": intermediate,
            "cross_attention_frequency": frequency,
            "encoder_hidden_size": features,
            "vocab_size": vocabulary,
            "max_position_embeddings": positions,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
        }
        self.instructed, self.window, self.per_frame, self.positions = instructed, window, per_frame, positions
        self.query_tokens = nn.Parameter(torch.randn(1, queries, hidden) * 0.02)
        self.qformer: Blip2QFormerModel | InstructBlipQFormerModel
        if instructed:
            self.qformer = InstructBlipQFormerModel(InstructBlipQFormerConfig(**sizes))
        else:
            self.qformer = Blip2QFormerModel(Blip2QFormerConfig(**sizes))
        self.language_projection = nn.Linear(hidden, width)
        self.vision_project = nn.Linear(features, width) if patches else None

    def forward(self, features: Tensor, context: Context = NOTHING) -> Tensor:
        answers = self.language_projection(self._answers(features, context))
        return answers if self.vision_project is None else torch.cat([answers, self.vision_project(features)], dim=1)

    def tokens(self, features: int, context: Context = NOTHING) -> int:
        patches = 0 if self.vision_project is None else features
        return self._windows(features, context) * self.query_tokens.shape[1] + patches

    def _answers(self, features: Tensor, context: Context) -> Tensor:
        """(B, W x Q, hidden)."""
        windows = self._windows(features.shape[1], context)
        if windows == 1:
            return self._ask(features, context.present, context)
        if context.present is not None and not context.present.all():
            raise ValueError(f"{type(self).__name__}: with windows, pictures of different sizes must come one by one")
        size = self._size(features.shape[1], context)
        filled = F.pad(features, (0, 0, 0, windows * size - features.shape[1]))
        answers = self._ask(filled.unflatten(1, (windows, size)).flatten(0, 1), None, context)
        return answers.unflatten(0, (-1, windows)).flatten(1, 2)

    def _size(self, features: int, context: Context) -> int:
        if self.per_frame:
            return per_frame(type(self).__name__, features, context)
        return features if self.window is None else self.window

    def _windows(self, features: int, context: Context) -> int:
        return -(-features // self._size(features, context))

    def _ask(self, features: Tensor, present: Tensor | None, context: Context) -> Tensor:
        """(W x B, N, D_enc) to (W x B, Q, hidden)."""
        rows = len(features)
        queries = self.query_tokens.expand(rows, -1, -1)
        given = {"encoder_hidden_states": features, "encoder_attention_mask": present}
        if not self.instructed:
            return self.qformer(query_embeds=queries, **given).last_hidden_state
        text = context.text
        if text is None:
            raise ValueError(f"{type(self).__name__}: instructed queries need the instruction (Context.text)")
        if text.shape[1] > self.positions:
            raise ValueError(
                f"{type(self).__name__}: an instruction of {text.shape[1]} tokens; at most {self.positions} are read"
            )
        read = torch.ones_like(text, dtype=torch.bool) if context.text_present is None else context.text_present
        text, read = (x.repeat_interleave(rows // len(x), dim=0) for x in (text, read))
        asked = torch.cat([torch.ones(queries.shape[:2], dtype=torch.bool, device=read.device), read], dim=1)
        hidden = self.qformer(input_ids=text, attention_mask=asked, query_embeds=queries, **given).last_hidden_state
        return hidden[:, : queries.shape[1]]
