"""What an observation, an action and an embodiment are: the contract every room speaks.

A dataset, an environment and an agent each carry an `Embodiment`. Two that disagree on a convention (delta or absolute,
which quaternion order, which gripper sign, which renderer drew the pixels) would run without an error and simply fail,
so `pair` compares them field by field and stops with one line that names the field and both values.

Observations are flat dicts with LeRobot's keys:

| key | type | unit |
|---|---|---|
| `observation.images.<camera>` | uint8 (H, W, 3) | RGB |
| `observation.depth.<camera>` | float32 (H, W) | metres |
| `observation.state` | float32 (S,) | as `Embodiment.state` declares |
| `observation.environment_state` | float32 (E,) | simulator truth; absent from pixel policies |
| `observation.pose` | float32 (4, 4) | camera (x right, y down, z ahead) or base to world (z up), metres |
| `observation.semantic.<camera>`, `observation.instance.<camera>` | int64 (H, W) | category, object of each pixel |
| `observation.features.<camera>` | float32 (F, h, w) | an image encoder's features, as a picture |
| `task` | str | the instruction |

An action is float32 (A,) in the units `Embodiment.action` declares. Batches stack the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

IMAGES, DEPTH, STATE = "observation.images.", "observation.depth.", "observation.state"
ENVIRONMENT_STATE, POSE, TASK, ACTION = "observation.environment_state", "observation.pose", "task", "action"
SEMANTIC, INSTANCE, FEATURES = "observation.semantic.", "observation.instance.", "observation.features."

Kind = Literal["continuous", "categorical", "text", "gui"]
Control = Literal["absolute", "delta", "velocity", "force", "none"]
Space = Literal["cartesian", "joint", "base", "base_and_joint", "screen", "none"]
Rotation = Literal[
    "none", "euler_xyz", "axis_angle", "quaternion_xyzw", "quaternion_wxyz", "rot6d_rows", "rot6d_columns"
]
Frame = Literal["world", "base", "end_effector", "camera", "none"]


class ConventionMismatch(ValueError):
    """Two parts of an experiment disagree about what their numbers mean."""


@dataclass(frozen=True)
class Camera:
    """One camera as a policy sees it.

    Attributes:
        name: the `<camera>` of its observation keys.
        height, width: pixels.
        renderer: what drew the pixels, with every setting that changes them, as `engine:key=value,...`
            (`mujoco:shadow=0,reflection=0,offsamples=0`), or `real` for a physical camera.
        depth: whether `observation.depth.<name>` comes with it.
    """

    name: str
    height: int
    width: int
    renderer: str
    depth: bool = False


@dataclass(frozen=True)
class StateSpec:
    """What `observation.state` holds.

    Attributes:
        names: one name per component, in order.
        units: one unit per component (`m`, `rad`, `1`), in order.
        rotation: representation of any rotation among the components.
        frame: the frame that Cartesian components are given in.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    rotation: Rotation = "none"
    frame: Frame = "world"

    def __post_init__(self) -> None:
        _same_length("StateSpec", names=self.names, units=self.units)
        _known("StateSpec.rotation", self.rotation, Rotation)
        _known("StateSpec.frame", self.frame, Frame)

    @property
    def dim(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ActionSpec:
    """What `action` holds.

    Attributes:
        names, units, low, high: one entry per dimension; bounds in those units.
        kind: continuous numbers, an index into `names`, text, or a GUI command.
        control: whether a continuous action is a target, a change, a rate, or a force.
        space: what moves: the end effector, joints, a mobile base, a base (first) and joints, a pointer.
        rotation, frame: how rotations are written, and where Cartesian numbers live.
        gripper: the index of the open/close dimension; None where the body has none.
        gripper_closed: the sign (+1 or -1) that closes it.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    kind: Kind = "continuous"
    control: Control = "delta"
    space: Space = "cartesian"
    rotation: Rotation = "none"
    frame: Frame = "world"
    gripper: int | None = None
    gripper_closed: int = 1

    def __post_init__(self) -> None:
        _same_length("ActionSpec", names=self.names, units=self.units, low=self.low, high=self.high)
        for field, kind in (
            ("kind", Kind),
            ("control", Control),
            ("space", Space),
            ("rotation", Rotation),
            ("frame", Frame),
        ):
            _known(f"ActionSpec.{field}", getattr(self, field), kind)
        if self.gripper is not None and not 0 <= self.gripper < self.dim:
            raise ValueError(f"ActionSpec.gripper is {self.gripper}, but an action has dimensions 0 to {self.dim - 1}")
        if self.gripper_closed not in (-1, 1):
            raise ValueError(f"ActionSpec.gripper_closed is a sign, -1 or 1, got {self.gripper_closed}")

    @property
    def dim(self) -> int:
        return len(self.names)

    @property
    def width(self) -> int:
        """How many numbers one action is: one per name, but a categorical action is the index of one of its names."""
        return 1 if self.kind == "categorical" else self.dim


@dataclass(frozen=True)
class Embodiment:
    """A body: what it senses, how it moves, and the conventions of both.

    Attributes:
        name: the robot's name (LeRobot's `robot_type`).
        action: what it can be told to do.
        state: its proprioception; None where it has none.
        cameras: what it sees.
        rate: actions per second, Hz.
    """

    name: str
    action: ActionSpec
    state: StateSpec | None
    cameras: tuple[Camera, ...]
    rate: float

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"Embodiment.rate is in Hz and positive, got {self.rate}")

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    def with_cameras(self, names: Iterable[str]) -> Embodiment:
        """The same body seen through some of its cameras, in the order asked for.

        Raises:
            ValueError: a camera this body does not have.
        """
        have = {camera.name: camera for camera in self.cameras}
        names = list(names)
        for name in names:
            if name not in have:
                raise ValueError(f"no camera '{name}' on {self.name}: it has {', '.join(have) or 'none'}")
        return Embodiment(self.name, self.action, self.state, tuple(have[name] for name in names), self.rate)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` undoes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Embodiment:
        """Inverse of `to_dict`.

        Raises:
            ValueError: a field is missing or unknown.
        """
        try:
            state = record["state"]
            return cls(
                name=record["name"],
                action=ActionSpec(**_tuples(record["action"])),
                state=None if state is None else StateSpec(**_tuples(state)),
                cameras=tuple(Camera(**camera) for camera in record["cameras"]),
                rate=float(record["rate"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an embodiment record: {error}") from None


def pair(**sides: Embodiment) -> None:
    """Check that all sides mean the same by their numbers.

    The first side is the reader (an agent): the others must offer its cameras, and may have more. Everything else must
    be equal. Keyword names are used in the message: `pair(agent=..., env=...)`.

    Raises:
        ConventionMismatch: naming the field and both values.
    """
    (reader, wanted), *others = sides.items()
    for other, offered in others:
        for path, left, right in _differences(wanted, offered):
            raise ConventionMismatch(
                f"{reader} and {other} disagree on {path}: {left!r} ({reader}) against {right!r} ({other})"
            )


def _differences(a: Embodiment, b: Embodiment) -> Iterable[tuple[str, object, object]]:
    for part in ("action", "state"):
        left, right = getattr(a, part), getattr(b, part)
        if left is None or right is None:
            if left is not None:  # a reader without a state reads none: anything goes
                yield part, left.names, None
            continue
        for field in fields(left):
            x, y = getattr(left, field.name), getattr(right, field.name)
            if x != y:
                yield f"{part}.{field.name}", x, y
    if a.rate != b.rate:
        yield "rate", a.rate, b.rate
    seen = {camera.name: camera for camera in b.cameras}
    for camera in a.cameras:
        if camera.name not in seen:
            yield f"cameras.{camera.name}", "present", f"only {', '.join(seen) or 'none'}"
            continue
        for name in ("height", "width", "renderer"):
            x, y = getattr(camera, name), getattr(seen[camera.name], name)
            if x != y:
                yield f"cameras.{camera.name}.{name}", x, y
        if camera.depth and not seen[camera.name].depth:
            yield f"cameras.{camera.name}.depth", True, False


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in record.items()}


def _same_length(owner: str, **columns: tuple) -> None:
    first, *rest = columns.items()
    for name, values in rest:
        if len(values) != len(first[1]):
            raise ValueError(f"{owner}.{name} has {len(values)} entries, but {first[0]} has {len(first[1])}")


def _known(where: str, value: str, options: Any) -> None:
    if value not in get_args(options):
        raise ValueError(f"{where} is one of {', '.join(get_args(options))}, got {value!r}")
