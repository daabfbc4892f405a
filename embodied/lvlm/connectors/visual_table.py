"""Visual words: each feature is a distribution over a visual vocabulary, whose embeddings it averages.

Ovis (Lu et al. 2024, arXiv 2405.20797): text tokens are rows of an embedding table, so visual ones become the same, a
mixture of the rows of a table of their own. The last rows of the table are not for features but mark where a picture
begins and ends (`indicators`); they are put into the sequence by whoever lays it out.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.ovis2.modeling_ovis2 import Ovis2VisualEmbeddingTable, hard_softmax

from embodied.lvlm.connectors.checks import positive
from embodied.lvlm.connectors.projection import Projection
from embodied.lvlm.connectors.stages import PixelShuffle

Choice = Literal["softmax", "gumbel_argmax", "st_argmax"]


class VisualEmbeddingTable(Projection):
    """A head over a visual vocabulary and a table of its embeddings.

    Args:
        features, width: D_enc and D.
        vocabulary: rows of the table, indicators included; Ovis1.6 and 2: 65536, Ovis: 131072.
        indicators: rows at the table's end that no feature chooses.
        stride: side of the blocks of features that make one visual word, a grid continued with zeros where needed.
        choose: mixture of rows (`softmax`), or one row: the likeliest (`st_argmax`) or a random one
            (`gumbel_argmax`), with the mixture's gradients.

    Raises:
        ValueError: an unknown choice, or no vocabulary beside the indicators; when used: the features make no grid.
    """

    def __init__(
        self,
        features: int,
        width: int,
        vocabulary: int = 65536,
        indicators: int = 5,
        stride: int = 2,
        choose: Choice = "softmax",
    ) -> None:
        super().__init__(features, width, PixelShuffle(stride, pad=True) if stride != 1 else None)
        if choose not in get_args(Choice):
            raise ValueError(f"VisualEmbeddingTable: choose is one of {', '.join(get_args(Choice))}, got {choose!r}")
        if indicators < 0:
            raise ValueError(f"VisualEmbeddingTable: indicators must not be negative, got {indicators}")
        positive("VisualEmbeddingTable", **{"vocabulary beside the indicators": vocabulary - indicators})
        self.indicator_count, self.choose = indicators, choose
        self.head_linear = nn.Linear(self.entering, vocabulary - indicators, bias=False)
        self.head_norm = nn.LayerNorm(vocabulary - indicators)
        self.visual_embeddings_table = Ovis2VisualEmbeddingTable(vocabulary, width)

    def project(self, features: Tensor) -> Tensor:
        words = self.words(features)
        never = words.new_zeros(*words.shape[:-1], self.indicator_count)
        return self.visual_embeddings_table(torch.cat([words, never], dim=-1))

    def words(self, features: Tensor) -> Tensor:
        """Merged features (B, M, `entering`) to a distribution over the vocabulary, (B, M, vocabulary - indicators)."""
        logits = self.head_norm(self.head_linear(features))
        if self.choose == "gumbel_argmax":
            return F.gumbel_softmax(logits, dim=-1, hard=True)
        return hard_softmax(logits, dim=-1) if self.choose == "st_argmax" else logits.softmax(dim=-1)

    @property
    def indicators(self) -> Tensor:
        """(indicators, D): the tokens that mark a picture's parts, in the order of the table's last rows."""
        return self.visual_embeddings_table.weight[self.visual_embeddings_table.num_embeddings - self.indicator_count :]
