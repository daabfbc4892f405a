"""How well a view fits a text, by a model that matches pictures and texts: what VLFM's value map is filled with.

Yokoyama et al. 2024, "VLFM" (ICRA), and its official code (`vlfm/vlm/blip2itm.py`, `vlfm/policy/itm_policy.py`): the
cosine of BLIP-2's picture and text embeddings, the best of its queries, for "Seems like there is a chair ahead.".
Two-tower models (CLIP, SigLIP) give theirs alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, Blip2ForImageTextRetrieval

from embodied.interaction import Observation
from embodied.spec import IMAGES
from policies.navigation.goals import NamedGoals

TARGET = "{target}"


class ImageTextMatcher:
    """Cosines between views and prompts about what is looked for.

    Args:
        folder: of a BLIP-2 with its retrieval heads, a CLIP or a SigLIP, as Hugging Face saves them.
        goals: finds in an instruction what is looked for.
        camera: whose pictures are scored.
        prompts: C of them; `{target}` stands for what is looked for.
        device: torch's name of one.

    Raises:
        ValueError: no such folder, a model that matches no texts or lacks weights for it (a BLIP-2 that was saved to
            write captions), or a prompt without `{target}`.
    """

    def __init__(
        self,
        folder: str,
        goals: NamedGoals,
        camera: str = "front",
        prompts: Sequence[str] = ("Seems like there is a {target} ahead.",),
        device: str = "cpu",
    ) -> None:
        if not Path(folder).is_dir():
            raise ValueError(
                f"the matcher's folder={folder} is not there: it is a Hugging Face folder of BLIP-2 or CLIP"
            )
        if not prompts or any(TARGET not in prompt for prompt in prompts):
            raise ValueError(f"the matcher's prompts each have a {TARGET} in them, got {list(prompts)}")
        self.goals, self.camera, self.prompts = goals, camera, list(prompts)
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        maker: Any = Blip2ForImageTextRetrieval if kind == "blip-2" else AutoModel
        model, found = maker.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        if not {"text_projection", "text_model"} & set(dict(model.named_children())):
            raise ValueError(f"the matcher's {folder} is a {kind}, which does not compare pictures with texts")
        if found["missing_keys"]:
            lacks = sorted(found["missing_keys"])[0]
            raise ValueError(f"the matcher's {folder} is a {kind} saved without {lacks}: it cannot compare")
        self.model = model.to(device).eval()
        longest = getattr(model.config.text_config, "max_position_embeddings", None)
        # SigLIP learned texts of full length only
        self.padding = {"padding": "max_length", "max_length": longest} if kind == "siglip" else {"padding": True}
        self.pictures = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def score(self, observations: Observation, texts: Sequence[str]) -> np.ndarray:
        """Cosines (B, C) of B views with the C prompts about what B instructions name.

        Raises:
            ValueError: there are no pictures of the camera, or an instruction names nothing that is known.
        """
        key = IMAGES + self.camera
        if key not in observations:
            raise ValueError(f"the matcher scores {key}; the observation has {', '.join(sorted(observations))}")
        targets = [self.goals.find(text).replace("_", " ") for text in texts]
        asked = [prompt.replace(TARGET, target) for target in targets for prompt in self.prompts]
        different = sorted(set(asked))
        inputs = dict(self.pictures(list(observations[key]), return_tensors="pt"))
        inputs |= dict(self.tokenizer(different, return_tensors="pt", **self.padding))
        found = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
        views = found.image_embeds if found.image_embeds.ndim == 3 else found.image_embeds.unsqueeze(1)
        cosines = torch.einsum("bqd,td->bqt", views, found.text_embeds).amax(1)
        own = torch.tensor([different.index(one) for one in asked]).view(len(texts), -1)
        return cosines.cpu().gather(1, own).float().numpy()
