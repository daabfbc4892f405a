"""The text tokenizer: a checkpoint's own, or one trained on the instructions of the data.

A trained one is byte-level BPE, so words that no demonstration used still have a spelling. Either is saved with the
agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


class TextTokenizer:
    """Instructions to padded token ids.

    Args:
        tokenizer: a transformers tokenizer.
        template: how an instruction becomes a prompt; `{task}` stands for it.
        max_tokens: longer prompts are refused.

    Raises:
        ValueError: the template has no `{task}`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str = "{task}", max_tokens: int = 128) -> None:
        if "{task}" not in template:
            raise ValueError(f"TextTokenizer: the template {template!r} has no {{task}} in it")
        self.tokenizer, self.template, self.max_tokens = tokenizer, template, max_tokens

    @classmethod
    def train(
        cls, texts: Iterable[str], vocabulary: int = 1024, single_digits: bool = False, **options
    ) -> TextTokenizer:
        """Byte-level BPE learned from `texts`.

        Args:
            texts: to learn from.
            vocabulary: at most so many ids.
            single_digits: whether numbers are spelled digit by digit, as by Llama, Gemma and Qwen2, so that they can be
                compared by their first; otherwise frequent ones have an id of their own.
            options: of the tokenizer.
        """
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        if single_digits:
            digits = pre_tokenizers.Digits(individual_digits=True)
            bpe.pre_tokenizer = pre_tokenizers.Sequence([bpe.pre_tokenizer, digits])
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator(sorted(set(texts)), trainer)
        return cls(
            PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, bos_token=BOS, eos_token=EOS), **options
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options) -> TextTokenizer:
        """A tokenizer from a Hugging Face folder or an agent's.

        Raises:
            ValueError: there is none.
        """
        if not any((Path(folder) / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            raise ValueError(f"no tokenizer in {folder}: expected tokenizer.json")
        return cls(AutoTokenizer.from_pretrained(folder, local_files_only=True), **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Hugging Face's files, which `from_pretrained` reads."""
        self.tokenizer.save_pretrained(str(folder))

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B instructions to ids (B, N) and their mask (B, N), bool; padded on the right to the longest.

        Raises:
            ValueError: an instruction is longer than `max_tokens`.
        """
        prompts = [self.template.format(task=task) for task in tasks]
        rows = [ids or [self._filler] for ids in self.tokenizer(prompts)["input_ids"]]
        longest = max(map(len, rows))
        if longest > self.max_tokens:
            text = prompts[max(range(len(rows)), key=lambda i: len(rows[i]))]
            raise ValueError(
                f"the instruction {text[:40]!r}... has {longest} tokens; at most {self.max_tokens} are allowed"
            )
        ids = torch.full((len(rows), longest), self._filler)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = True
        return ids, mask

    @property
    def end(self) -> int:
        """The id that ends a text.

        Raises:
            ValueError: the tokenizer has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise ValueError("this tokenizer has no token that ends a text (eos_token), which speaking in words needs")
        return self.tokenizer.eos_token_id

    def spell(self, text: str) -> list[int]:
        """Ids of `text` behind other text, from which a space separates it.

        Tokenizers mark the beginning of a text in different ways, or not at all; behind other text they agree.

        Raises:
            ValueError: the text cannot be spelled so that `read` gives it back.
        """
        before, whole = (self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("a", f"a {text}"))
        if whole[: len(before)] != before or self.read(whole) != f"a {text}":
            raise ValueError(f"this tokenizer cannot spell {text!r}: it reads {self.read(whole)!r} back for 'a {text}'")
        return whole[len(before) :]

    def read(self, ids: Sequence[int]) -> str:
        """The text of ids, without the spaces around it; an id that is no word of the tokenizer's is marked in it."""
        known = [i for i in ids if i < len(self)]
        text = str(self.tokenizer.decode(known, skip_special_tokens=False, clean_up_tokenization_spaces=False)).strip()
        return text if len(known) == len(ids) else f"{text} \ufffd"

    @property
    def _filler(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, self.tokenizer.bos_token_id):
            if token is not None:
                return token
        return 0
