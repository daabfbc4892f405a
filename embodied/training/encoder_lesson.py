"""What an encoder is taught alone, before a language model reads it: an assistant, and a head that is thrown away."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embodied.assistant import Assistant
from embodied.lvlm.vision import Picture


class EncoderLesson(nn.Module, ABC):
    """An assistant whose encoder is being taught; `head` predicts from its features what the lesson is about.

    Args:
        assistant: its encoder learns; nothing else of it is used but its tokenizer.

    Raises:
        ValueError: the assistant sees nothing.
    """

    objective: ClassVar[str]
    """As a recipe's stage names it."""
    head: nn.Module

    def __init__(self, assistant: Assistant) -> None:
        super().__init__()
        if assistant.model.vision is None:
            raise ValueError(f"objective: {self.objective} teaches an encoder, and this model has none")
        self.assistant = assistant

    @classmethod
    @abstractmethod
    def of(cls, assistant: Assistant, answers: Iterable[str]) -> Self:
        """A lesson made for what is answered in the data.

        Raises:
            ValueError: there is nothing in it to learn.
        """

    @abstractmethod
    def loss(self, batch: Mapping[str, Any], generators: Any = None) -> dict[str, Tensor]:
        """`loss`, a scalar, of a batch of `Assistant.collate` whose samples have one picture each."""

    @property
    def vision(self) -> Any:
        return self.assistant.model.vision

    @property
    def encoder(self) -> Any:
        return self.vision.encoder

    def pictures(self, batch: Mapping[str, Any]) -> list[Picture]:
        """The one picture of each sample.

        Raises:
            ValueError: a sample has none, several, or a film.
        """
        for row in batch["pictures"]:
            if len(row) != 1 or not isinstance(row[0], Picture):
                raise ValueError(
                    f"objective: {self.objective} learns from samples of one picture, and one has {len(row)}"
                )
        return [row[0] for row in batch["pictures"]]

    def save_pretrained(self, folder: str | Path) -> None:
        """The assistant, and beside it the head, for going on."""
        self.assistant.save_pretrained(folder)
        save_file(self.head.state_dict(), str(Path(folder) / self._file()))

    def load_head(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it has no such head, or one for other words.
        """
        file = folder / self._file()
        if not file.is_file():
            raise ValueError(f"{folder} has no {file.name}: it is of another objective")
        try:
            self.head.load_state_dict(load_file(str(file)))
        except RuntimeError:
            raise ValueError(f"{file} predicts other words than this data has") from None

    def _file(self) -> str:
        return f"visual_{self.objective}.safetensors"
