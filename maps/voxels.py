"""A 3-D memory: what was seen of each voxel, averaged, for any image encoder's features.

Points are the pixels' places (`maps.geometry`), each with its feature bilinearly upsampled to the depth's pixels; a
voxel keeps the sum and the number of the features that fell into it (the fusion of ConceptFusion and 3D-LLM's
voxel-based reconstruction; with colours for features, a coloured point cloud). A dense table of numbers says where each
voxel's row is, so an update costs the new points, and only voxels that were seen have features: at most `capacity`,
later ones are not remembered and are counted in `lost`.

The tokens are blocks of the space around the agent, turned with it: a small network reads each voxel's mean feature
with its place in the block, and the block is the maximum over its voxels (PointNet). Reading costs the voxels kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied.interaction import Cloud
from maps.base import MapTokens, Memory, Text, allot
from maps.geometry import scatter_max, scatter_sum, to_egocentric
from maps.grid import Columns, PlacedMemory, pixel_features


class VoxelMap(PlacedMemory):
    """Voxels with features, read as egocentric blocks.

    Args:
        width: size D of a token.
        features: F of `observation.features.<camera>`.
        capacity: voxels per episode that are remembered.
        levels: blocks from the floor to the ceiling.
        hidden: width of the network that reads a voxel.
        surroundings: see `maps.grid.Surroundings`. A voxel's side is the resolution; blocks are `patch` voxels wide,
            and `window` voxels across lie around the agent.

    Raises:
        ValueError: a size that no map has.
    """

    needs = ("features",)

    def __init__(
        self,
        width: int,
        features: int,
        capacity: int = 16384,
        levels: int = 2,
        hidden: int = 64,
        surroundings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(width, surroundings)
        around = self.around
        for name, size in {"features": features, "capacity": capacity, "levels": levels, "hidden": hidden}.items():
            if size < 1:
                raise ValueError(f"VoxelMap: {name} must be at least 1, got {size}")
        if around.window % around.patch:
            raise ValueError(f"a window of {around.window} voxels should be a whole number of blocks of {around.patch}")
        self.features, self.capacity, self.levels = features, capacity, levels
        self.height = math.ceil(self.ceiling / around.resolution)  # voxels from the floor to the ceiling
        self.across = around.window // around.patch
        self.read_voxel = nn.Sequential(nn.Linear(features + 4, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.places = nn.Parameter(torch.randn(self.across**2 * levels, width) * 0.02)

    def columns(self) -> Columns:
        return {
            "row": ((self.grid.cells * self.height,), torch.int32, -1),
            "voxel": ((self.capacity,), torch.int64, -1),
            "sum": ((self.capacity, self.features), torch.float32, 0.0),
            "points": ((self.capacity,), torch.float32, 0.0),
            "used": ((), torch.int64, 0),
            "lost": ((), torch.int64, 0),
        }

    def update(
        self, memory: Memory, observation: Mapping[str, Any], slots: Sequence[int] | Tensor | None = None
    ) -> None:
        points = self.place(memory, observation, slots)
        level = torch.floor(points.heights / self.around.resolution).long().clamp(0, self.height - 1)
        seen = points.seen & (points.heights > -self.around.resolution)
        episode = points.rows.unsqueeze(1).expand_as(seen)[seen]
        voxel = (points.cells * self.height + level)[seen]
        total = self.grid.cells * self.height
        found, member = torch.unique(episode * total + voxel, return_inverse=True)
        rows = self._rows(memory, found // total, found % total)
        features = pixel_features(points.view)[seen]
        sums = scatter_sum(features, member, len(found))
        counts = scatter_sum(torch.ones_like(member, dtype=torch.float32), member, len(found))
        kept = rows >= 0
        at = (found // total)[kept], rows[kept]
        memory["sum"][at] = memory["sum"][at] + sums[kept]
        memory["points"][at] = memory["points"][at] + counts[kept]

    def _rows(self, memory: Memory, episode: Tensor, voxel: Tensor) -> Tensor:
        """Where distinct voxels (G,) of episodes (G,), which come one after the other, are kept; -1: nowhere."""
        rows = memory["row"][episode, voxel].long()
        fresh = rows < 0
        place = allot(memory["used"], episode, fresh, self.capacity)
        new = place >= 0
        memory["row"][episode[new], voxel[new]] = place[new].int()
        memory["voxel"][episode[new], place[new]] = voxel[new]
        memory["used"] += scatter_sum(new.long(), episode, memory.slots)
        memory["lost"] += scatter_sum((fresh & ~new).long(), episode, memory.slots)
        return torch.where(fresh, place, rows)

    def cloud(self, memory: Memory, slot: int) -> tuple[Tensor, Tensor]:
        """The places (N, 3) of an episode's voxels, metres from where it began and above the floor, and features."""
        used = int(memory["used"][slot])
        mean = memory["sum"][slot, :used] / memory["points"][slot, :used].unsqueeze(1)
        return self._centres(memory["voxel"][slot, :used]), mean

    def in_space(self, memory: Memory, slot: int) -> Cloud:
        from maps.pictures import cloud_of  # which knows this map

        return cloud_of(self, memory, slot)

    def _centres(self, voxel: Tensor) -> Tensor:
        high = (voxel % self.height + 0.5) * self.around.resolution
        return torch.cat([self.grid.centres(voxel // self.height), high.unsqueeze(-1)], dim=-1)

    def forward(
        self, memory: Memory, text: Text | None = None, slots: Sequence[int] | Tensor | None = None
    ) -> MapTokens:
        rows = memory.rows(slots)
        voxel, count = memory["voxel"][rows], memory["points"][rows]
        centres = self._centres(voxel.clamp(min=0))
        away = to_egocentric(centres[..., :2], memory["agent"][rows])
        side = self.around.patch * self.around.resolution
        spot = self.across / 2 - away / side  # farthest ahead and leftmost come first, as in EgocentricWindow
        at = torch.floor(spot)
        level = centres[..., 2] / self.ceiling * self.levels
        block = at[..., 0] * self.across + at[..., 1] + level.long().clamp(max=self.levels - 1) * self.across**2
        inside = (voxel >= 0) & ((at >= 0) & (at < self.across)).all(-1)
        shape = len(rows), self.across**2 * self.levels
        index = (block.long() + torch.arange(len(rows), device=rows.device).unsqueeze(1) * shape[1])[inside]
        mean = memory["sum"][rows] / count.clamp(min=1).unsqueeze(-1)
        within = torch.cat([spot - at - 0.5, centres[..., 2:], count.log1p().unsqueeze(-1)], dim=-1)
        said = self.read_voxel(torch.cat([mean, within], dim=-1)[inside])
        tokens = scatter_max(said, index, shape[0] * shape[1], nothing=0.0).unflatten(0, shape)
        present = scatter_sum(torch.ones_like(index), index, shape[0] * shape[1]).unflatten(0, shape) > 0
        return MapTokens(tokens + self.places, present)
