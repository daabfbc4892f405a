"""From what the command line calls a policy to a model that answers questions."""

from __future__ import annotations

from pathlib import Path

from embodied.evaluation.tasks.base import Responder


def load_responder(spec: str, device: str = "auto") -> Responder:
    """The model in a folder, as a `Responder`.

    Args:
        spec: the folder of a run, a checkpoint or a model.
        device: `auto`, or torch's name of one.

    Raises:
        ValueError: there is no such folder, or what it holds answers no questions.
    """
    if not Path(spec).is_dir():
        raise ValueError(f"policy={spec}: there is no such folder")
    raise ValueError(f"policy={spec} holds no language model that answers questions about pictures")
