"""Ego2-Map: an image encoder learns from maps what a view says about the space around it.

Hong et al. 2023, "Learning Navigational Visual Representations with Semantic Map Supervision" (ICCV). No code was
released, so this follows the paper's description: views at the start and the end of a path, and the semantic map drawn
of what was seen along it. The pair's features, with the angle turned between them, and the map's features go through
non-linear heads; InfoNCE makes each pair find its map among the batch's, and each map its pair. Two auxiliary losses:
from both views, the angle turned between them (as sine and cosine), and from each view, how far one can walk straight
ahead. The trained view encoder is what is kept.

Paper: ViT-B/16 from CLIP for both encoders; on R2R-CE test 47 % success, 41 % SPL.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FARTHEST = 10.0
"""Metres that walkable distances are divided by, and cut at."""


class Ego2Map(nn.Module):
    """Contrastive pre-training of a view encoder.

    Args:
        views: image encoder of views, pictures (B, H, W, 3) to features (B, N, F), with `dim` F; it is trained.
        maps: image encoder of drawn maps.
        width: of the space where pairs and maps meet.
        temperature: of InfoNCE at the start; it is learned.
        angle_weight, distance_weight: of the auxiliary losses.

    Raises:
        ValueError: a width, temperature or weight that can't be.
    """

    def __init__(
        self,
        views: nn.Module,
        maps: nn.Module,
        width: int = 128,
        temperature: float = 0.07,
        angle_weight: float = 1.0,
        distance_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if width < 1 or temperature <= 0 or min(angle_weight, distance_weight) < 0:
            raise ValueError(
                f"Ego2Map: width={width} and temperature={temperature} should be positive, and the weights "
                f"{angle_weight} and {distance_weight} at least 0"
            )
        self.views, self.maps = views, maps
        seen, drawn = int(views.dim), int(maps.dim)  # type: ignore[arg-type]
        self.pair_head = nn.Sequential(nn.Linear(2 * seen + 2, width), nn.GELU(), nn.Linear(width, width))
        self.map_head = nn.Sequential(nn.Linear(drawn, width), nn.GELU(), nn.Linear(width, width))
        self.angle_head = nn.Sequential(nn.Linear(2 * seen, width), nn.GELU(), nn.Linear(width, 2))
        self.distance_head = nn.Sequential(nn.Linear(seen, width), nn.GELU(), nn.Linear(width, 1))
        self.scale = nn.Parameter(torch.tensor(1 / temperature).log())
        self.angle_weight, self.distance_weight = angle_weight, distance_weight

    def see(self, pictures: Tensor) -> Tensor:
        """(B, F) what views (B, H, W, 3) show: the mean of the encoder's features."""
        return self.views(pictures).mean(1)

    def forward(self, first: Tensor, last: Tensor, turned: Tensor, drawn: Tensor) -> Tensor:
        """(B, B) logits: how well each view pair (row) and each map (column) go together.

        Args:
            first, last: (B, H, W, 3) views at the start and at the end of a path.
            turned: (B,) radians between them, counter-clockwise.
            drawn: (B, H', W', 3) the path's semantic map as a picture.
        """
        return self._match(self.see(first), self.see(last), turned, drawn)

    def _match(self, start: Tensor, end: Tensor, turned: Tensor, drawn: Tensor) -> Tensor:
        angle = torch.stack([turned.sin(), turned.cos()], dim=-1)
        pair = nn.functional.normalize(self.pair_head(torch.cat([start, end, angle], dim=-1)), dim=-1)
        map_ = nn.functional.normalize(self.map_head(self.maps(drawn).mean(1)), dim=-1)
        return pair @ map_.T * self.scale.exp().clamp(max=100.0)

    def loss(self, first: Tensor, last: Tensor, turned: Tensor, drawn: Tensor, ahead: Tensor) -> dict[str, Tensor]:
        """What to minimise, and its parts.

        Args:
            first, last, turned, drawn: see `forward`.
            ahead: (B, 2) metres that one can walk straight ahead at the start and at the end.

        Returns:
            `loss`; detached `contrast`, `angle`, `distance`, and `accuracy`: how many pairs find their map.

        Raises:
            ValueError: a batch of one, in which there is nothing to tell apart.
        """
        if len(first) < 2:
            raise ValueError("Ego2Map tells maps of one batch apart: a batch should hold at least 2 paths")
        start, end = self.see(first), self.see(last)
        logits = self._match(start, end, turned, drawn)
        own = torch.arange(len(logits), device=logits.device)
        contrast = (nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)) / 2
        direction = torch.stack([turned.sin(), turned.cos()], dim=-1)
        angle = nn.functional.mse_loss(self.angle_head(torch.cat([start, end], dim=-1)), direction)
        said = self.distance_head(torch.stack([start, end], dim=1)).squeeze(-1)
        distance = nn.functional.smooth_l1_loss(said, ahead.clamp(max=FARTHEST) / FARTHEST)
        return {
            "loss": contrast + self.angle_weight * angle + self.distance_weight * distance,
            "contrast": contrast.detach(),
            "angle": angle.detach(),
            "distance": distance.detach(),
            "accuracy": (logits.argmax(1) == own).float().mean().detach(),
        }


PALETTE = torch.tensor([[(37 * k + 60) % 256, (91 * k + 130) % 256, (151 * k + 200) % 256] for k in range(256)])
"""A colour for each category, apart from each other for those that follow each other."""


def draw(categories: Tensor, free: Tensor) -> Tensor:
    """A semantic map as a picture (B, size, size, 3), uint8: unknown black, free white, categories in their colours.

    Args:
        categories: (B, size, size), int64; -1 for none.
        free: (B, size, size), bool.
    """
    colours = PALETTE.to(categories.device)[categories.clamp(min=0) % len(PALETTE)]
    ground = torch.where(free.unsqueeze(-1), 255, 0).expand_as(colours)
    return torch.where((categories >= 0).unsqueeze(-1), colours, ground).to(torch.uint8)
