"""PointNet++: a point cloud as one vector, by the maxima of ever larger neighbourhoods.

Qi et al. 2017, "PointNet++" (NeurIPS), with the sampling and grouping written in plain torch. LEO's takes 1024 points
with colours; neighbourhoods of 32 points within 0.2 and 0.4, around 32 and 16 centres; layers of 64, 64, 128, then 128,
128, 256, then 256, 512, 768 over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def farthest_points(points: Tensor, present: Tensor, count: int) -> Tensor:
    """(B, count) points that are far from each other, of points (B, P, 3); the first is the first present one.

    Where fewer than `count` are present, some come twice.
    """
    nearest = torch.where(present, torch.inf, -1.0)
    chosen = present.to(torch.int8).argmax(1)
    picked = [chosen]
    for _ in range(count - 1):
        away = (points - points.gather(1, chosen.view(-1, 1, 1).expand(-1, 1, 3))).square().sum(-1)
        nearest = torch.where(present, torch.minimum(nearest, away), nearest)
        chosen = nearest.argmax(1)
        picked.append(chosen)
    return torch.stack(picked, dim=1)


def neighbourhoods(points: Tensor, present: Tensor, centres: Tensor, radius: float, count: int) -> Tensor:
    """(B, M, count) the nearest of points (B, P, 3) within `radius` of centres (B, M, 3), the nearest filling up."""
    away = torch.cdist(centres, points).masked_fill(~present.unsqueeze(1), torch.inf)
    near = away.topk(min(count, points.shape[1]), dim=2, largest=False)
    return torch.where(near.values <= radius, near.indices, near.indices[..., :1])


class SetAbstraction(nn.Module):
    """From points with features to fewer points, each with the maximum over its neighbourhood.

    Args:
        features: numbers per point besides its place.
        centres: how many points remain; 0: one, of all.
        radius, neighbours: of a neighbourhood; not looked at with 0 centres.
        layers: widths of the network that reads a neighbour.
    """

    def __init__(self, features: int, centres: int, radius: float, neighbours: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.centres, self.radius, self.neighbours = centres, radius, neighbours
        widths = [features + 3, *layers]
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
        self.read = nn.Sequential(*parts)

    def forward(self, points: Tensor, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points (B, P, 3), features (B, P, F) and which there are, to the same of the centres.

        LayerNorm stands for BatchNorm, so that objects of one batch don't change each other.
        """
        if not self.centres:
            read = self.read(torch.cat([points, features], dim=-1))
            most = read.masked_fill(~present.unsqueeze(-1), float("-inf")).amax(1, keepdim=True)
            most = torch.where(present.any(1).view(-1, 1, 1), most, torch.zeros_like(most))
            return points.new_zeros(len(points), 1, 3), most, present.any(1, keepdim=True)
        chosen = farthest_points(points, present, self.centres)
        centres = points.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 3))
        near = neighbourhoods(points, present, centres, self.radius, self.neighbours)
        flat = near.flatten(1).unsqueeze(-1)
        place = points.gather(1, flat.expand(-1, -1, 3)).unflatten(1, near.shape[1:]) - centres.unsqueeze(2)
        said = features.gather(1, flat.expand(-1, -1, features.shape[-1])).unflatten(1, near.shape[1:])
        there = present.any(1, keepdim=True).expand(-1, self.centres)
        return centres, self.read(torch.cat([place, said], dim=-1)).amax(2), there


class PointNet(nn.Module):
    """A cloud of points as one vector.

    Args:
        features: numbers per point besides its place.
        width: of the vector.
        centres, radii, neighbours: of the two neighbourhood layers.
        hidden: widths of the three networks' layers.
    """

    def __init__(
        self,
        features: int,
        width: int,
        centres: Sequence[int] = (32, 16),
        radii: Sequence[float] = (0.2, 0.4),
        neighbours: int = 32,
        hidden: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512)),
    ) -> None:
        super().__init__()
        layers = []
        for count, radius, widths in zip((*centres, 0), (*radii, 0.0), hidden, strict=True):
            layers.append(SetAbstraction(features, count, radius, neighbours, widths))
            features = widths[-1]
        self.layers, self.project = nn.ModuleList(layers), nn.Linear(features, width)

    def forward(self, points: Tensor, features: Tensor, present: Tensor) -> Tensor:
        """(B, width) of points (B, P, 3), features (B, P, F) and which there are (B, P); 0's projection of none."""
        for layer in self.layers:
            points, features, present = layer(points, features, present)
        return self.project(features.squeeze(1))
