"""Episodes as one Rerun recording (`.rrd`): cameras, depth, the way, and maps in space, step by step.

Open it with `rerun <file>`; the extra `look` brings the viewer. Of each episode, below `<task>/<seed>`:

| entity | |
|---|---|
| `world` | metres, z up, in the frame that `observation.pose` leads to |
| `world/path` | where the camera was |
| `world/camera/<name>` | its pose, lens, picture and depth |
| `world/seen` | what the depth pictures showed so far, as coloured voxels |
| `world/memory` | what the policy remembers (`Policy.cloud`) |
| `cameras/<name>` | pictures of cameras whose place is not known |
| `drawings/<name>`, `drawings/believed_<name>` | maps of the environment, and of the policy |
| `instruction`, `outcome` | text |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from embodied.evaluation.results import EpisodeRecord
from embodied.files import atomic_file
from embodied.interaction import Cloud, Drawings
from embodied.spec import DEPTH, IMAGES, POSE, TASK, Camera, Embodiment

SUFFIX = ".rrd"
VOXEL, FAR = 0.05, 10.0
"""Metres of a side of the voxels of what was seen; what is farther away than `FAR` is left out."""
GROWTH = 0.03
"""What was seen is written again when it has grown by this share: it is the largest part of the file."""
QUALITY = 90
WAY, MEMORY_RADIUS = (37, 84, 199), 0.04


class Recording:
    """Writes a recording, which appears when the block ends well.

        with Recording("look.rrd", embodiment) as recording:
            recording.step(("pointnav", 3), observation, drawings, cloud)  # each step
            recording.end(record)

    Args:
        path: the file.
        embodiment: the body whose cameras are recorded. A camera is placed in space where the pose is its own (the only
            camera with depth, or the only one) and its renderer tells its field of view (`fov=<degrees across>`).

    Raises:
        ValueError: `path` does not end in .rrd, or rerun-sdk is not installed.
    """

    def __init__(self, path: str | Path, embodiment: Embodiment) -> None:
        self.path = Path(path)
        check(path)
        self._cameras = {camera.name: camera for camera in embodiment.cameras}
        self._episodes: dict[tuple[str, int], _Episode] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        import rerun

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rerun = rerun
        temporary = self._stack.enter_context(atomic_file(self.path))
        self._stream = rerun.RecordingStream("embodied", recording_id=self.path.stem)
        self._stream.save(temporary)
        return self

    def step(
        self, episode: tuple[str, int], observation: Mapping[str, Any], drawings: Drawings, cloud: Cloud | None = None
    ) -> None:
        """One more step of an episode.

        Args:
            episode: task and seed.
            observation: what the policy saw.
            drawings: of the environment and of the policy, by name.
            cloud: what the policy remembers.
        """
        rerun, root = self._rerun, _root(*episode)
        if episode not in self._episodes:
            self._episodes[episode] = _Episode()
            self._log(f"{root}/world", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
            self._log(f"{root}/instruction", rerun.TextDocument(str(observation.get(TASK, ""))), static=True)
        mine = self._episodes[episode]
        self._stream.set_time("step", sequence=mine.steps)
        mine.steps += 1
        placed = self._placed(observation)
        for name, camera in self._cameras.items():
            picture = observation.get(IMAGES + name)
            place = f"{root}/world/camera/{name}" if name == placed else f"{root}/cameras/{name}"
            mine.views.setdefault(place)
            if name == placed:
                self._place(place, camera, observation[POSE], observation.get(DEPTH + name))
            if picture is not None:
                self._log(f"{place}/picture", rerun.Image(np.asarray(picture)).compress(jpeg_quality=QUALITY))
        if placed is not None:
            pose = np.asarray(observation[POSE], np.float64)
            mine.way.append(pose[:3, 3])
            self._log(f"{root}/world/path", rerun.LineStrips3D([np.array(mine.way)], colors=[WAY], radii=0.02))
            if DEPTH + placed in observation and IMAGES + placed in observation:
                lens = _field_of_view(self._cameras[placed])
                assert lens is not None
                mine.see(observation[DEPTH + placed], observation[IMAGES + placed], pose, lens)
                if mine.grown():
                    places, colours = mine.cloud()
                    points = rerun.Points3D(places, colors=colours, radii=VOXEL / 2)
                    self._log(f"{root}/world/seen", points)
        if cloud is not None:
            points = rerun.Points3D(cloud.places, colors=cloud.colours, radii=MEMORY_RADIUS)
            self._log(f"{root}/world/memory", points)
        for name, drawing in drawings.items():
            mine.views.setdefault(f"{root}/drawings/{name}")
            self._log(f"{root}/drawings/{name}", rerun.Image(np.asarray(drawing)).compress(jpeg_quality=QUALITY))

    def begin(self, episode: tuple[str, int]) -> None:
        """An episode starts, perhaps again: its steps are then counted from the first one once more."""
        self._episodes.pop(episode, None)

    def end(self, record: EpisodeRecord) -> None:
        """How an episode ended."""
        episode = (record.task, record.seed)
        if episode in self._episodes:
            words = "success" if record.success else "failed"
            measures = "".join(f"\n{name}: {value:.3f}" for name, value in record.measures.items())
            text = f"{words} after {record.length} steps{measures}"
            self._log(f"{_root(*episode)}/outcome", self._rerun.TextDocument(text), static=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._episodes:
                self._stream.send_blueprint(self._blueprint())
            self._stream.flush()
            self._stream.disconnect()
        finally:
            self._stack.__exit__(kind, error, trace)

    def _log(self, path: str, what: Any, static: bool = False) -> None:
        self._stream.log(path, what, static=static)

    def _place(self, path: str, camera: Camera, pose: Any, depth: Any) -> None:
        rerun, pose, lens = self._rerun, np.asarray(pose, np.float64), _field_of_view(camera)
        assert lens is not None
        self._log(path, rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        focal = camera.width / 2 / math.tan(lens / 2)
        self._log(
            path,
            rerun.Pinhole(
                focal_length=focal, width=camera.width, height=camera.height, camera_xyz=rerun.ViewCoordinates.RDF,
                image_plane_distance=0.4,
            ),
        )  # fmt: skip
        if depth is not None:
            self._log(f"{path}/depth", rerun.DepthImage(np.asarray(depth, np.float32), meter=1.0))

    def _placed(self, observation: Mapping[str, Any]) -> str | None:
        """The camera that the pose is of."""
        if POSE not in observation:
            return None
        deep = [name for name in self._cameras if DEPTH + name in observation] or list(self._cameras)
        return deep[0] if len(deep) == 1 and _field_of_view(self._cameras[deep[0]]) else None

    def _blueprint(self) -> Any:
        """A tab per episode: the world, and beside it cameras and maps."""
        from rerun import blueprint

        tabs = []
        for (task, seed), mine in self._episodes.items():
            root = _root(task, seed)
            flat = [blueprint.Spatial2DView(origin=path, name=path.rsplit("/", 1)[1]) for path in mine.views]
            notes = [
                blueprint.TextDocumentView(origin=f"{root}/{what}", name=what) for what in ("instruction", "outcome")
            ]
            beside = blueprint.Vertical(*flat, blueprint.Horizontal(*notes), row_shares=[3] * len(flat) + [1])
            parts = [blueprint.Spatial3DView(origin=f"{root}/world", name="world"), beside] if mine.way else [beside]
            shares = [3, 2][: len(parts)]
            tabs.append(blueprint.Horizontal(*parts, column_shares=shares, name=f"{task}, seed {seed}"))
        return blueprint.Blueprint(blueprint.Tabs(*tabs), collapse_panels=True)


class _Episode:
    """What is kept of an episode while it is recorded."""

    def __init__(self) -> None:
        self.steps = 0
        self.way: list[np.ndarray] = []
        self.views: dict[str, None] = {}
        self._voxels = np.zeros((0, 3), np.int64)
        self._sums = np.zeros((0, 4))
        self._written = 0

    def see(self, depth: Any, picture: Any, pose: np.ndarray, lens: float) -> None:
        """Add a depth picture's points: an average colour for each voxel."""
        depth, colours = np.asarray(depth, np.float64), np.asarray(picture, np.float64).reshape(-1, 3)
        height, width = depth.shape
        focal = width / 2 / math.tan(lens / 2)
        down, right = np.mgrid[:height, :width].astype(np.float64)
        rays = np.stack([(right - (width - 1) / 2) / focal, (down - (height - 1) / 2) / focal, np.ones_like(right)], -1)
        points = (rays * depth[..., None]).reshape(-1, 3)
        good = np.isfinite(points).all(1) & (points[:, 2] > 0) & (points[:, 2] < FAR)
        if len(colours) != len(points):
            return  # a picture of another size than the depth tells no colours
        places = points[good] @ pose[:3, :3].T + pose[:3, 3]
        counted = np.concatenate([colours[good], np.ones((int(good.sum()), 1))], 1)
        every = np.concatenate([self._voxels, np.floor(places / VOXEL).astype(np.int64)])
        self._voxels, member = np.unique(every, axis=0, return_inverse=True)
        sums = np.zeros((len(self._voxels), 4))
        np.add.at(sums, member.reshape(-1), np.concatenate([self._sums, counted]))
        self._sums = sums

    def grown(self) -> bool:
        """Whether so much is new that it should be written."""
        if len(self._voxels) <= self._written * (1 + GROWTH):
            return False
        self._written = len(self._voxels)
        return True

    def cloud(self) -> Cloud:
        colours = self._sums[:, :3] / self._sums[:, 3:]
        return Cloud(((self._voxels + 0.5) * VOXEL).astype(np.float32), np.round(colours).astype(np.uint8))


def check(path: str | Path) -> None:
    """Stop where no recording can be made.

    Raises:
        ValueError: `path` does not end in .rrd, or rerun-sdk is not installed.
    """
    if Path(path).suffix != SUFFIX:
        raise ValueError(f"rerun={path}: a recording is a file that ends in {SUFFIX}")
    try:
        import rerun  # noqa: F401
    except ImportError:
        raise ValueError(f"rerun={path} needs the package rerun-sdk: pip install -e '.[look]'") from None


def _root(task: str, seed: int) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', task)}/{seed}"


def _field_of_view(camera: Camera) -> float | None:
    """Radians across the width, where the renderer's identity tells."""
    found = re.search(r"\bfov=([0-9.]+)", camera.renderer)
    return math.radians(float(found.group(1))) if found and 0 < float(found.group(1)) < 180 else None
