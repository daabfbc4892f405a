"""The layer that maps of language-guided navigation share: ask the instruction, ask each other, think."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maps.base import Text


class CrossModalLayer(nn.Module):
    """Cross-attention to the text, self-attention, feed-forward, each with a residual and a LayerNorm behind (BERT's).

    The layer of DUET (`GraphLXRTXLayer`) and GridMM. Without a text the first part is left out.

    Args:
        width: D.
        heads: of both attentions.
        feed_forward: hidden width; BERT's is 4 D.
        dropout: after each part.

    Raises:
        ValueError: heads that don't divide the width.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float = 0.1) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.ask_text = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.ask_others = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.think = nn.Sequential(nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-12) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, present: Tensor, text: Text | None, bias: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) to tokens.

        Args:
            tokens: (B, N, D).
            present: (B, N), bool; the others are seen by nobody.
            text: what to ask first.
            bias: (B, N, N), added to the self-attention's logits.
        """
        if text is not None:
            answer = self.ask_text(tokens, text.tokens, text.tokens, key_padding_mask=~text.present, need_weights=False)
            tokens = self.norms[0](tokens + self.dropout(answer[0]))
        hidden = torch.zeros_like(tokens[..., :1]).transpose(1, 2).masked_fill(~present.unsqueeze(1), float("-inf"))
        mask = hidden.expand(-1, tokens.shape[1], -1) if bias is None else hidden + bias
        mask = mask.repeat_interleave(self.heads, dim=0)
        answer = self.ask_others(tokens, tokens, tokens, attn_mask=mask, need_weights=False)
        tokens = self.norms[1](tokens + self.dropout(answer[0]))
        return self.norms[2](tokens + self.dropout(self.think(tokens)))


def check_heads(width: int, heads: int) -> None:
    """Stop at heads that attention can't have.

    Raises:
        ValueError: they don't divide the width.
    """
    if heads < 1 or width % heads:
        raise ValueError(f"{heads} heads don't share a width of {width} evenly")
