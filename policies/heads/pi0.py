"""Weights of a pi-0 action expert, as transformers' PI0 names them, into our flow head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policies.heads.denoisers.expert import ActionExpert
from policies.heads.flow import FlowHead

NAMES = {
    "layers.": "model.dit.",
    "enter.": "embed_action_time.action_in_proj.",
    "state.": "embed_action_time.state_proj.",
    "mix_in.": "embed_action_time.action_time_mlp_in.",
    "mix_out.": "embed_action_time.action_time_mlp_out.",
    "leave.": "action_out_proj.",
}
"""Beginnings of our expert's names, and what they are called in PI0ForConditionalGeneration."""


def load_pi0_expert(head: FlowHead, weights: Mapping[str, Tensor]) -> None:
    """Copy a pi-0 expert into `head`.

    pi-0 fills actions and states up with zeros to 32 numbers. A head for fewer takes the weights of the first ones,
    which is where to fine-tune from; with as many the head is the same function.

    Args:
        head: a flow head with an `ActionExpert` of the same size, `state_token` and no `adaptive_norm`.
        weights: the state dict of a `transformers.PI0ForConditionalGeneration`.

    Raises:
        ValueError: the head is of another kind; a weight is missing or of another size, naming it.
    """
    expert = head.denoiser
    if not isinstance(expert, ActionExpert) or not expert.state_token or expert.adaptive_norm:
        raise ValueError("load_pi0_expert: the head needs an ActionExpert with state_token and without adaptive_norm")
    found = {}
    for name, own in expert.state_dict().items():
        begins = next(key for key in NAMES if name.startswith(key))
        theirs = NAMES[begins] + name.removeprefix(begins)
        if theirs not in weights:
            raise ValueError(f"load_pi0_expert: these are no weights of PI0: there is no '{theirs}'")
        weight = weights[theirs]
        if begins in ("enter.", "state.") and own.dim() == 2:
            weight = weight[:, : own.shape[1]]
        elif begins == "leave.":
            weight = weight[: own.shape[0]]
        if weight.shape != own.shape:
            sizes = f"{tuple(weight.shape)}, the head wants {tuple(own.shape)}"
            raise ValueError(f"load_pi0_expert: '{theirs}' is {sizes}")
        found[name] = weight
    with torch.no_grad():
        for name, own in expert.state_dict().items():
            own.copy_(found[name])
