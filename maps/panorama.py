"""What an agent on a navigation graph observes at a viewpoint, and its panorama as tokens (DUET's `ImageEmbeddings`).

Besides `observation.pose` (B, 4, 4), where the agent stands and looks:

| key | shape | what |
|---|---|---|
| `observation.node` | (B,) | the viewpoint's number, from 0 |
| `observation.neighbours` | (B, C) | numbers of the viewpoints that can be gone to; -1 fills up |
| `observation.neighbours.places` | (B, C, 3) | where they are, in the pose's frame, metres |
| `observation.features` | (B, V, F) | an image encoder's features of each view of the panorama |
| `observation.angles` | (B, V, 2) | heading and elevation of each view in the pose's frame, radians |
| `observation.neighbours.views` | (B, C) | which view shows each neighbour; left out: the nearest in direction |

Where each view is a camera of its own, its `observation.features.<camera>` (B, F, h, w) are read instead, and averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embodied.spec import POSE
from maps.base import FEATURES
from maps.geometry import heading_of

NODE, NEIGHBOURS, PLACES = "observation.node", "observation.neighbours", "observation.neighbours.places"
VIEWS, ANGLES = "observation.features", "observation.angles"


@dataclass(frozen=True)
class Visit:
    """B agents at viewpoints; see the module's table.

    Attributes:
        node: (B,); near: (B, C), -1 for none; shown: (B, C), 0 for none.
        place: (B, 3); places: (B, C, 3); heading: (B,).
        views: (B, V, F); angles: (B, V, 2).
    """

    node: Tensor
    near: Tensor
    shown: Tensor
    place: Tensor
    places: Tensor
    heading: Tensor
    views: Tensor
    angles: Tensor

    @classmethod
    def of(cls, observation: Mapping[str, Any], device: torch.device, cameras: Sequence[str] = ()) -> Visit:
        """Find a visit in an observation.

        Args:
            observation: as the module's table says.
            device: where to.
            cameras: those of the views, in the order of the angles; none: `observation.features` has them all.

        Raises:
            ValueError: something is missing or has the wrong shape.
        """
        ranks = {NODE: 1, NEIGHBOURS: 2, PLACES: 3, ANGLES: 3, POSE: 3}
        ranks |= {FEATURES + camera: 4 for camera in cameras} or {VIEWS: 3}
        if NEIGHBOURS + ".views" in observation:
            ranks[NEIGHBOURS + ".views"] = 2
        found: dict[str, Tensor] = {}
        for key, rank in ranks.items():
            if key not in observation:
                have = ", ".join(sorted(map(str, observation)))
                raise ValueError(f"a map of a navigation graph needs {key}; the observation has {have}")
            found[key] = torch.as_tensor(observation[key]).to(device)
            if found[key].ndim != rank or len(found[key]) != len(found[NODE]):
                shape = tuple(found[key].shape)
                raise ValueError(f"{key} of shape {shape} should have {rank} axes, the first of {len(found[NODE])}")
        if cameras:
            found[VIEWS] = torch.stack([found[FEATURES + camera].float().mean((2, 3)) for camera in cameras], dim=1)
        if found[VIEWS].shape[1] != found[ANGLES].shape[1]:
            raise ValueError(f"there are {found[VIEWS].shape[1]} views, but {ANGLES} of {found[ANGLES].shape[1]}")
        near, pose, angles_ = found[NEIGHBOURS].long(), found[POSE].float(), found[ANGLES].float()
        heading, place, places = heading_of(pose), pose[:, :3, 3], found[PLACES].float()
        views = found[VIEWS].shape[1]
        if NEIGHBOURS + ".views" in found:
            shown = found[NEIGHBOURS + ".views"].long()
            if ((shown < 0) | (shown >= views))[near >= 0].any():
                raise ValueError(f"{NEIGHBOURS}.views should number one of the {views} views")
        else:
            there, up, _ = directions(place, torch.zeros_like(heading), places)
            shown = (unit(there, up) @ unit(*angles_.unbind(-1)).transpose(1, 2)).argmax(-1)
        return cls(
            node=found[NODE].long(),
            near=near,
            shown=shown.clamp(0, views - 1),
            place=place,
            places=places,
            heading=heading,
            views=found[VIEWS].float(),
            angles=angles_,
        )


def directions(here: Tensor, heading: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How places (B, N, 3) lie from `here` (B, 3): heading relative to `heading` (B,), elevation, distance: (B, N)."""
    away = places - here.unsqueeze(1)
    flat, distance = away[..., :2].norm(dim=-1), away.norm(dim=-1)
    relative = torch.atan2(away[..., 1], away[..., 0]) - heading.unsqueeze(1)
    relative = torch.where(flat > 1e-6, relative, torch.zeros_like(relative))
    return relative, torch.atan2(away[..., 2], flat.clamp(min=1e-8)), distance


def angles(heading: Tensor, elevation: Tensor) -> Tensor:
    """(..., 4): sine and cosine of a heading and an elevation (...)."""
    return torch.stack([heading.sin(), heading.cos(), elevation.sin(), elevation.cos()], dim=-1)


def unit(heading: Tensor, elevation: Tensor) -> Tensor:
    """(..., 3): the direction of a heading and an elevation (...)."""
    flat = elevation.cos()
    return torch.stack([flat * heading.cos(), flat * heading.sin(), elevation.sin()], dim=-1)


class PanoramaEncoder(nn.Module):
    """Neighbours first, each with the view that shows it, then the views that show none; then self-attention.

    Args:
        width: D.
        features: F.
        layers, heads, feed_forward, dropout: of the transformer; 0 layers: none. DUET: 2 layers, 12 heads, 3072.
    """

    def __init__(self, width: int, features: int, layers: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.see = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width, eps=1e-12))
        self.turn = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width, eps=1e-12))
        self.kind = nn.Embedding(2, width)  # a view, or one that can be gone to
        self.last = nn.Sequential(nn.LayerNorm(width, eps=1e-12), nn.Dropout(dropout))
        layer = nn.TransformerEncoderLayer(
            width, heads, feed_forward, dropout, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False) if layers else None

    def forward(self, visit: Visit) -> tuple[Tensor, Tensor]:
        """(B, C + V, D) and which of them there are, (B, C + V).

        Raises:
            ValueError: features of another width.
        """
        if visit.views.shape[-1] != self.features:
            raise ValueError(f"{VIEWS} has {visit.views.shape[-1]} features, but this map was made for {self.features}")
        candidate = visit.near >= 0
        shown = visit.views.gather(1, visit.shown.unsqueeze(-1).expand(-1, -1, self.features))
        heading, elevation, _ = directions(visit.place, visit.heading, visit.places)
        there = angles(heading, elevation)
        around = angles(visit.angles[..., 0] - visit.heading.unsqueeze(1), visit.angles[..., 1])
        used = torch.zeros(visit.views.shape[:2], device=candidate.device).scatter_add(
            1, visit.shown, candidate.float()
        )
        present = torch.cat([candidate, used == 0], dim=1)
        kinds = torch.cat([torch.ones_like(visit.near), torch.zeros_like(used, dtype=torch.long)], dim=1)
        tokens = self.see(torch.cat([shown, visit.views], dim=1)) + self.turn(torch.cat([there, around], dim=1))
        tokens = self.last(tokens + self.kind(kinds))
        if self.layers is not None:
            shown_to_others = present | ~present.any(1, keepdim=True)
            tokens = self.layers(tokens, src_key_padding_mask=~shown_to_others)
        return tokens, present
