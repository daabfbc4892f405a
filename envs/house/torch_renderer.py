"""The same pictures in plain torch: every ray against every part. Slow on a CPU, made for batches on an accelerator,
and the independent statement of what the compiled renderer draws."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from envs.house.plan import GRID
from envs.house.renderer import OUTPUTS, check_camera, check_poses
from envs.house.scene import Scene, build_scene
from envs.house.spec import HouseSpec

NEAR = 0.01


class TorchRenderer:
    """`Renderer` on any torch device, with the same arguments and the same pictures: depth within 1e-3 m, colours
    within 2 of 255, except for pixels whose centre lies within rounding of an edge (below 0.5 % of an image).

    Args:
        house, height, width, field_of_view, outputs: see `Renderer`.
        device: where to render.
        chunk: rays at a time, which bounds memory at about 100 bytes for each pair of a ray and a part.
    """

    def __init__(
        self,
        house: HouseSpec | Scene,
        height: int = 128,
        width: int = 128,
        field_of_view: float = 90.0,
        outputs: tuple[str, ...] = OUTPUTS,
        device: str | torch.device = "cpu",
        chunk: int = 16384,
    ) -> None:
        self.scene = house if isinstance(house, Scene) else build_scene(house)
        self.focal = check_camera(height, width, field_of_view, tuple(outputs))
        self.height, self.width, self.outputs, self.chunk = height, width, tuple(outputs), chunk
        self.device = torch.device(device)

        def move(array: np.ndarray, kind: torch.dtype) -> Tensor:
            return torch.as_tensor(array.astype(np.float64)).to(self.device, kind)

        scene = self.scene
        self.bounds = move(scene.bounds, torch.float32)
        self.round = move(scene.round, torch.bool)
        self.colours, self.scale = move(scene.colours, torch.float32), move(scene.scale, torch.float32)
        self.pattern, self.semantic = move(scene.pattern, torch.int64), move(scene.semantic, torch.int64)
        self.instance, self.rooms = move(scene.instance, torch.int64), move(scene.rooms, torch.int64)

    @torch.no_grad()
    def render(self, cameras: np.ndarray) -> dict[str, np.ndarray]:
        """See `Renderer.render`."""
        origins, directions = self.rays(torch.as_tensor(check_poses(cameras)).to(self.device))
        pieces = [self.cast(o, d) for o, d in zip(origins.split(self.chunk), directions.split(self.chunk), strict=True)]
        shape = (len(cameras), self.height, self.width)
        kinds = {"rgb": np.uint8, "depth": np.float32, "semantic": np.uint8, "instance": np.uint16}
        return {
            name: torch.cat([piece[name] for piece in pieces])
            .cpu()
            .numpy()
            .astype(kinds[name])
            .reshape((*shape, 3) if name == "rgb" else shape)
            for name in self.outputs
        }

    def rays(self, cameras: Tensor) -> tuple[Tensor, Tensor]:
        """(B * H * W, 3) origins, and directions whose length along the optical axis is 1."""
        heading, pitch = cameras[:, 3, None, None], cameras[:, 4, None, None]
        half, middle = 0.5 * self.width - 0.5, 0.5 * self.height - 0.5
        u = ((torch.arange(self.width, device=self.device) - half) / self.focal)[None, None, :]
        v = ((middle - torch.arange(self.height, device=self.device)) / self.focal)[None, :, None]
        ahead, up = pitch.cos() - v * pitch.sin(), pitch.sin() + v * pitch.cos()
        x, y = ahead * heading.cos() + u * heading.sin(), ahead * heading.sin() - u * heading.cos()
        directions = torch.stack(torch.broadcast_tensors(x, y, up), -1)
        origins = cameras[:, None, None, :3].expand_as(directions)
        return origins.reshape(-1, 3), directions.reshape(-1, 3)

    def cast(self, origins: Tensor, directions: Tensor) -> dict[str, Tensor]:
        """Colour, depth and ids of rays."""
        low, high = self.bounds[:, :3], self.bounds[:, 3:]
        safe = torch.where(directions.abs() < 1e-7, 1e-7, directions)
        first = (low - origins[:, None]) / safe[:, None]
        second = (high - origins[:, None]) / safe[:, None]
        entry, leave = torch.minimum(first, second), torch.maximum(first, second)  # rays, parts, 3
        near, far = entry[..., :2].amax(-1), leave[..., :2].amin(-1)
        face = torch.where(
            entry[..., 0] > entry[..., 1],
            torch.where(directions[:, None, 0] > 0, 0, 1),
            torch.where(directions[:, None, 1] > 0, 2, 3),
        )
        if bool(self.round.any()):
            radius = 0.5 * (high - low)[self.round, 0]
            p = origins[:, None, :2] - (0.5 * (low + high))[self.round, :2]
            d = directions[:, None, :2]
            a, b, c = (d * d).sum(-1), (d * p).sum(-1), (p * p).sum(-1) - radius**2
            inside = b * b - a * c
            root = inside.clamp(min=0).sqrt()
            near[:, self.round] = torch.where(inside > 0, (-b - root) / a, 1.0)
            far[:, self.round] = torch.where(inside > 0, (-b + root) / a, 0.0)
            face[:, self.round] = 6
        flat = entry[..., 2] > near
        face = torch.where(flat, torch.where(directions[:, None, 2] > 0, 4, 5), face)
        near, far = torch.maximum(near, entry[..., 2]), torch.minimum(far, leave[..., 2])
        near = torch.where((near <= far) & (near >= NEAR), near, torch.inf)
        depth, part = near.min(1)
        face = face.gather(1, part[:, None])[:, 0]
        up = torch.where(directions[:, 2].abs() < 1e-6, -1e-6, directions[:, 2])
        plane = (torch.where(up > 0, self.scene.height, 0.0) - origins[:, 2]) / up
        is_plane = plane <= depth
        depth = torch.where(is_plane, plane, depth)
        return self.shade(origins + depth[:, None] * directions, depth, part, face, is_plane, up > 0)

    def shade(
        self, point: Tensor, depth: Tensor, part: Tensor, face: Tensor, is_plane: Tensor, is_up: Tensor
    ) -> dict[str, Tensor]:
        scene, n = self.scene, self.scene.parts
        count = (len(scene.colours) - n) // 2
        i = (point[:, 0] * GRID).long().clamp(0, self.rooms.shape[0] - 1)
        j = (point[:, 1] * GRID).long().clamp(0, self.rooms.shape[1] - 1)
        room = self.rooms[i, j].clamp(min=0)
        surface = torch.where(is_plane, n + room + torch.where(is_up, count, 0), part)
        a, b, c = (point - self.bounds[part, :3]).unbind(-1)
        z = point[:, 2]
        ground = (0.84 + 0.16 * (z * 2.5).clamp(max=1)) * (0.9 + 0.1 * ((scene.height - z) * 4).clamp(max=1))
        radius = 0.5 * (self.bounds[part, 3] - self.bounds[part, 0])
        nx, ny = (a - radius) / radius, (b - radius) / radius
        sides = torch.tensor([0.80, 0.88, 0.72, 0.78, 0.55, 1.0, 0.79], device=self.device)[face]
        sides = sides + torch.where(face == 6, 0.09 * nx * nx.abs() + 0.06 * ny * ny.abs(), 0.0)
        light = torch.where((face == 4) | (face == 5), sides, sides * ground)
        light = torch.where(is_plane, torch.where(is_up, 0.97, 0.94), light)
        s = torch.where(face < 2, b, torch.where(face == 6, a + b, a))
        t = torch.where((face == 4) | (face == 5), b, c)
        s, t = torch.where(is_plane, point[:, 0], s), torch.where(is_plane, point[:, 1], t)
        mix = blend(self.pattern[surface], s / self.scale[surface], t / self.scale[surface])
        light = light * (1 - (0.025 * depth).clamp(max=0.35))
        first, second = self.colours[surface, :3], self.colours[surface, 3:]
        rgb = ((first + mix[:, None] * (second - first)) * light[:, None] + 0.5).clamp(0, 255).floor()
        return {"rgb": rgb, "depth": depth, "semantic": self.semantic[surface], "instance": self.instance[surface]}


def noise(i: Tensor, j: Tensor) -> Tensor:
    n = (i * 1619 + j * 6971) & 0x7FFF
    return (((n * ((n * 15731) & 0x7FFF)) >> 7) & 0xFF) / 255


def blend(pattern: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """How much of the second colour each pattern has at (s, t), in its own periods."""
    fs, ft = s.floor(), t.floor()
    i, j = fs.long(), ft.long()
    row = (2 * t).floor()
    along = s + 0.5 * (row.long() & 1)
    mortar = (2 * t - row < 0.14) | (along - along.floor() < 0.07)
    options = [
        torch.zeros_like(s),
        ((i + j) & 1).float(),
        torch.where(t - ft < 0.06, 1.6, noise(j, (s * 0.16 + j * 0.37).floor().long())),
        (i & 1).float(),
        torch.where(mortar, 1.0, noise(along.floor().long(), row.long()) * 0.4),
        noise(i, j),
        torch.where((s - fs < 0.05) | (t - ft < 0.05), 1.0, noise(i, j) * 0.3),
        ((s - fs - 0.5) ** 2 + (t - ft - 0.5) ** 2 < 0.08).float(),
    ]
    return torch.stack(options).gather(0, pattern[None])[0]
