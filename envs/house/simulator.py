"""An agent in a house, in the manner of `habitat_sim.Simulator`: it moves by named actions and sees with one camera.

Positions are x, y in metres, headings and pitches radians (see `envs.house`). A picture's pose is a 4x4 matrix from the
camera's axes (x right, y down, z ahead, as OpenCV has them) to the world's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.house.houses import House
from envs.house.renderer import Renderer, check_camera
from envs.house.spec import VERSION

MOVES = ("move_forward", "turn_left", "turn_right")
LOOKS = ("look_up", "look_down")
MOST_PITCH = math.radians(60)


@dataclass(frozen=True)
class Body:
    """What an agent is: how it steps and turns, and its camera. The defaults are those of VLN-CE's R2R.

    Args:
        height, width: of its pictures, pixels.
        field_of_view: across the width, degrees.
        outputs: what its camera gives: `rgb`, and `depth`, `semantic`, `instance` where wanted.
        camera_height: metres above the floor.
        forward: metres of one `move_forward`.
        turn: degrees of one `turn_left` or `turn_right`.
        tilt: degrees of one `look_up` or `look_down`.
        look: whether it can look up and down.
        sliding: whether what is left of a blocked step goes along the obstacle, as Habitat has it by default.
        radius: of its body in metres; None: what the house was made for.
        tall: metres; what begins higher is no obstacle.

    Raises:
        ValueError: a size that no body has.
    """

    height: int = 96
    width: int = 96
    field_of_view: float = 90.0
    outputs: Sequence[str] = ("rgb", "depth")
    camera_height: float = 1.25
    forward: float = 0.25
    turn: float = 15.0
    tilt: float = 30.0
    look: bool = False
    sliding: bool = True
    radius: float | None = None
    tall: float = 1.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(self.outputs))
        check_camera(self.height, self.width, self.field_of_view, tuple(self.outputs))
        for name, low, high in (
            ("camera_height", 0.05, 2.4),
            ("forward", 0.01, 2.0),
            ("turn", 1.0, 120.0),
            ("tilt", 1.0, 60.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"Body: {name} is from {low:g} to {high:g}, got {getattr(self, name)}")

    @property
    def moves(self) -> tuple[str, ...]:
        """The names of its movements."""
        return MOVES + (LOOKS if self.look else ())

    @property
    def renderer(self) -> str:
        """The identity of its pictures (`embodied.spec.Camera.renderer`)."""
        return f"house:version={VERSION},fov={self.field_of_view:g},height={self.camera_height:g}"


@dataclass(frozen=True)
class AgentState:
    """Where an agent is: metres, and radians (heading counter-clockwise from +x, pitch positive upwards)."""

    x: float
    y: float
    heading: float = 0.0
    pitch: float = 0.0

    @property
    def position(self) -> np.ndarray:
        """(2,) metres."""
        return np.array([self.x, self.y])


class Simulator:
    """One agent in one house.

    Args:
        house: the house, loaded.
        body: what the agent is.

    Attributes:
        state: where the agent is.
        collided: whether its last `move_forward` met an obstacle (Habitat's `previous_step_collided`).
    """

    def __init__(self, house: House, body: Body) -> None:
        self.house, self.body = house, body
        self.finder = house.finder(body.radius, body.tall)
        self.renderer = Renderer(house.scene, body.height, body.width, body.field_of_view, tuple(body.outputs))
        self.state, self.collided = AgentState(*self.finder.snap(np.array(house.spec.bounds[:2]))), False

    def place(self, state: AgentState) -> None:
        """Put the agent somewhere.

        Raises:
            ValueError: it cannot stand there.
        """
        if not self.finder.is_navigable(state.position[None])[0]:
            raise ValueError(
                f"({state.x:.3f}, {state.y:.3f}) is not navigable in house {self.house.spec.seed}: "
                "snap gives the nearest point that is"
            )
        self.state, self.collided = state, False

    def step(self, action: str) -> bool:
        """Do one of `Body.moves`; whether an obstacle was met."""
        self.state, self.collided = self.after(self.state, action)
        return self.collided

    def after(self, state: AgentState, action: str) -> tuple[AgentState, bool]:
        """Where an action leads from somewhere, and whether an obstacle is met; the agent itself stays.

        Raises:
            ValueError: no such action.
        """
        body = self.body
        if action == "move_forward":
            ahead = body.forward * np.array([math.cos(state.heading), math.sin(state.heading)])
            end, hit = self.finder.step(state.position, state.position + ahead, body.sliding)
            return AgentState(float(end[0]), float(end[1]), state.heading, state.pitch), hit
        if action in ("turn_left", "turn_right"):
            turn = math.radians(body.turn) * (1 if action == "turn_left" else -1)
            return AgentState(state.x, state.y, wrap(state.heading + turn), state.pitch), False
        if action in LOOKS:
            pitch = state.pitch + math.radians(body.tilt) * (1 if action == "look_up" else -1)
            pitch = min(MOST_PITCH, max(-MOST_PITCH, pitch))
            return AgentState(state.x, state.y, state.heading, pitch), False
        raise ValueError(f"an agent in a house has no action '{action}'; there is {', '.join(MOVES + LOOKS)}")

    def observe(self) -> dict[str, np.ndarray]:
        """What the agent's camera gives, by output (see `Renderer.render`), without the batch's axis."""
        return {name: values[0] for name, values in self.observe_at([self.state]).items()}

    def observe_at(self, states: Sequence[AgentState]) -> dict[str, np.ndarray]:
        """The same from B states in one pass, (B, ...)."""
        height = self.body.camera_height
        cameras = np.array([[s.x, s.y, height, s.heading, s.pitch] for s in states], np.float32)
        return self.renderer.render(cameras)


def wrap(angle: float) -> float:
    """The same angle in (-pi, pi]."""
    return -((math.pi - angle) % (2 * math.pi) - math.pi)


def camera_pose(state: AgentState, camera_height: float, start: AgentState | None = None) -> np.ndarray:
    """(4, 4) float32 from the camera's axes (x right, y down, z ahead) to a frame, metres.

    The frame is the world's, or where `start` stood: on the floor, x ahead and y to the left of it, z up.
    """
    c, s, cp, sp = math.cos(state.heading), math.sin(state.heading), math.cos(state.pitch), math.sin(state.pitch)
    pose = np.eye(4)
    pose[:3, 0] = s, -c, 0
    pose[:3, 1] = c * sp, s * sp, -cp
    pose[:3, 2] = c * cp, s * cp, sp
    pose[:3, 3] = state.x, state.y, camera_height
    if start is not None:
        c, s = math.cos(start.heading), math.sin(start.heading)
        into = np.eye(4)
        into[:2, :2] = [[c, s], [-s, c]]
        into[:2, 3] = -into[:2, :2] @ start.position
        pose = into @ pose
    return pose.astype(np.float32)


def relative(point: np.ndarray, state: AgentState) -> np.ndarray:
    """Points (..., 2) as seen from a state: metres ahead and to the left."""
    c, s = math.cos(state.heading), math.sin(state.heading)
    away = np.asarray(point, float) - state.position
    return np.stack([c * away[..., 0] + s * away[..., 1], c * away[..., 1] - s * away[..., 0]], -1)
