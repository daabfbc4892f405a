"""Bodies that live in MuJoCo: pictures of their scene, cameras that a model lacks, and a way back to its beginning."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from envs.base import SimulatedBody
from envs.mujoco.appearance import dress
from envs.mujoco.opengl import load_mujoco
from envs.mujoco.rendering import Quality, Renderer, Solid, place_cameras, views_of
from envs.perturbations import SHAPES

BIG = 1 << 16
"""Model arrays of more bytes are geometry and textures, which no episode changes."""


@dataclass(frozen=True)
class Viewpoint:
    """A camera that looks at a point, as MuJoCo's free camera does.

    Attributes:
        lookat: the point, metres, world frame.
        distance: from it, metres.
        azimuth: direction of looking around the vertical, degrees; 0 looks along +x.
        elevation: degrees; negative looks down.
        fovy: vertical field of view, degrees.
    """

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float
    fovy: float = 45.0

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in metres and orientation (4,) as a quaternion, w first."""
        a, e = np.radians([self.azimuth, self.elevation])
        forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([np.sin(a), -np.cos(a), 0.0])
        matrix = np.stack([right, np.cross(right, forward), -forward], axis=1)
        quaternion = np.zeros(4)
        load_mujoco().mju_mat2Quat(quaternion, matrix.ravel())
        return np.asarray(self.lookat) - self.distance * forward, quaternion


@contextlib.contextmanager
def cameras_added(cameras: Mapping[str, Viewpoint]) -> Iterator[None]:
    """While it lasts, whatever model is compiled from a file in this process also has these cameras.

    Third-party environments compile their own file and offer no place to add a camera. Physics is not touched by it.
    """
    mujoco = load_mujoco()
    original = mujoco.MjModel.from_xml_path

    def with_cameras(path: str, *unused: Any) -> Any:
        spec = mujoco.MjSpec.from_file(str(path))
        for name, viewpoint in cameras.items():
            position, quaternion = viewpoint.pose()
            spec.worldbody.add_camera(name=name, pos=position, quat=quaternion, fovy=viewpoint.fovy)
        return spec.compile()

    mujoco.MjModel.from_xml_path = with_cameras
    try:
        yield
    finally:
        mujoco.MjModel.from_xml_path = original


class Pristine:
    """A model's numbers as they are now, to come back to before each episode.

    Resetting MuJoCo's data leaves what an episode wrote into the model: a goal marker's place, a door's, colours.
    """

    def __init__(self, model: Any) -> None:
        names = [name for name in dir(model) if not name.startswith("_")]
        arrays = [getattr(model, name) for name in names if _is_array(model, name)]
        headlight = model.vis.headlight
        arrays += [headlight.ambient, headlight.diffuse, headlight.specular]
        self._arrays = [(array, array.copy()) for array in arrays if 0 < array.nbytes <= BIG]

    def restore(self) -> None:
        for array, content in self._arrays:
            array[...] = content


class Snapshot:
    """The whole state of a model and its data, to come back to before each episode."""

    def __init__(self, model: Any, data: Any) -> None:
        self._mujoco = load_mujoco()
        self._model, self._data = model, data
        self._what = int(self._mujoco.mjtState.mjSTATE_INTEGRATION)
        self._saved = np.empty(self._mujoco.mj_stateSize(model, self._what))
        self._mujoco.mj_getState(model, data, self._saved, self._what)
        self._pristine = Pristine(model)

    def restore(self) -> None:
        self._pristine.restore()
        self._mujoco.mj_resetData(self._model, self._data)
        self._mujoco.mj_setState(self._model, self._data, self._saved, self._what)
        self._mujoco.mj_forward(self._model, self._data)  # places bodies, and moves the solver's warm start, so:
        self._mujoco.mj_setState(self._model, self._data, self._saved, self._what)


def _is_array(model: Any, name: str) -> bool:
    with contextlib.suppress(Exception):
        return isinstance(getattr(model, name), np.ndarray)
    return False


@dataclass(frozen=True)
class Ground:
    """A level place where things may lie about.

    Attributes:
        low, high: its corners (x, y), metres, world frame.
        height: of its surface, metres.
        clear: places (x, y, ...) to keep away from.
        gap: by how much, metres.
        shapes: that they may have; not that of a thing that an instruction names.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    height: float
    clear: Sequence[np.ndarray] = ()
    gap: float = 0.1
    shapes: tuple[str, ...] = SHAPES


class MujocoBody(SimulatedBody):
    """A `SimulatedBody` whose scene is a MuJoCo model.

    Args:
        tasks, observe, max_steps, stop_on_success, out_of_bounds, perturb, render_mode: see `SimulatedBody`.
        cameras: of `camera_names`, in order.
        height, width: pixels of each picture.
        camera_positions: put a camera elsewhere, metres.
        shadows, reflections, samples: see `envs.mujoco.rendering.Quality`.
    """

    camera_names: ClassVar[tuple[str, ...]]
    """Cameras that every task's model has."""
    upside_down: ClassVar[tuple[str, ...]] = ()
    """Those whose pictures are turned by 180 degrees."""
    perturbable: ClassVar[tuple[str, ...]] = ("camera", "lighting", "colour", "instruction")
    surroundings: ClassVar[tuple[str, ...]] = ()
    """Materials, or bodies of geometries without a material, that are floor, table or wall."""
    named_by_colour: ClassVar[tuple[str, ...]] = ()
    """Bodies that an instruction names by their colour, which therefore keep it."""

    def __init__(
        self,
        tasks: Sequence[str] | None = None,
        cameras: Sequence[str] | None = None,
        height: int = 96,
        width: int = 96,
        observe: str = "pixels",
        max_steps: int | None = None,
        stop_on_success: bool = True,
        out_of_bounds: str = "clip",
        camera_positions: Mapping[str, Sequence[float]] | None = None,
        shadows: bool = False,
        reflections: bool = False,
        samples: int = 0,
        perturb: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        wanted = self.camera_names[:1] if cameras is None else cameras
        known = self.camera_names
        self._views = views_of(wanted, known, height, width, self.upside_down, camera_positions)
        quality = Quality(shadows, reflections, samples)
        self._renderer = Renderer(self._views, quality, keep=len(self.instructions))
        self._extras: list[Solid] = []
        seen = [quality.camera(view) for view in self._views]
        super().__init__(tasks, seen, observe, max_steps, stop_on_success, out_of_bounds, perturb, render_mode)

    @abstractmethod
    def scene(self) -> tuple[Any, Any]:
        """The present episode's `MjModel` and `MjData`."""

    def place(self, model: Any) -> None:
        """Move the cameras for which a position was given; once per compiled model."""
        place_cameras(model, self._views)

    def ground(self) -> Ground:
        """Where things may lie about in the present episode; asked of those that take distractors."""
        raise NotImplementedError

    def dress(self) -> None:
        model, data = self.scene()
        cameras = [view.name for view in self._views]
        dress(model, self.drawn, cameras, self.surroundings, self.named_by_colour)
        load_mujoco().mj_camlight(model, data)
        self._extras = []
        if "distractors" in self.drawn.levels:
            at = self.ground()
            for x in self.drawn.distractors(at.low, at.high, at.clear, at.gap):
                shape = x.shape if x.shape in at.shapes else at.shapes[0]
                self._extras.append(Solid(shape, x.size, x.colour, (*x.place, at.height + x.size)))

    def pictures(self) -> dict[str, np.ndarray]:
        return self._renderer.render(*self.scene(), self._extras)

    def close(self) -> None:
        super().close()
        self._renderer.close()
