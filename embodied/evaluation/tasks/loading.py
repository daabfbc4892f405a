"""From what the command line calls a policy to a model that answers questions."""

from __future__ import annotations

import torch

from embodied.agent import Agent
from embodied.assistant import Assistant, is_assistant
from embodied.evaluation.policies import locate_policy, newest_stage
from embodied.evaluation.tasks.base import Responder
from embodied.files import read_json


def load_responder(spec: str, device: str = "auto") -> Responder:
    """The model in a folder, as a `Responder`.

    Args:
        spec: the folder of a model, of a checkpoint, of a run, or of a recipe's runs, of which the last stage counts.
        device: `auto`, or torch's name of one.

    Raises:
        ValueError: there is no such folder, or what it holds answers no questions.
    """
    folder = locate_policy(str(newest_stage(spec) or spec)).folder
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if folder is not None and is_assistant(folder):
        return Assistant.from_pretrained(folder).to(device)
    if folder is not None and read_json(folder / "config.json").get("chat"):
        return Agent.from_pretrained(folder).to(device).assistant  # one that acts and talks
    raise ValueError(f"policy={spec} holds no language model that answers questions about pictures")
