"""habitat-sim itself: one file, on its own, that needs habitat_sim, numpy and Python 3.9 or later.

It runs in the interpreter that has habitat-sim, in this process or behind `envs.remote.server`, which serves what
`Engine.remote_methods` lists. Everything is plain numpy in the frame of `envs.house`: z up, metres, and a heading that
is counter-clockwise from +x; a state is x, y, z of the floor under the agent, heading and pitch.
"""

from __future__ import annotations

import importlib
import math
import os
from typing import Any

import numpy as np

SENSORS = {"rgb": "COLOR", "depth": "DEPTH", "instance": "SEMANTIC"}
FAR = 1000.0
FLAT = 1e-5
"""habitat-sim's own tolerance for having moved less than asked for."""


def to_habitat(points):
    """(..., 3) points with y up."""
    points = np.asarray(points, np.float64)
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1).astype(np.float32)


def from_habitat(points):
    """(..., 3) points with z up; the inverse of `to_habitat`."""
    points = np.asarray(points, np.float64)
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


def rotation_of(heading, pitch=0.0):
    """The quaternion x, y, z, w of an agent that looks along -z and turns about y."""
    yaw = heading - math.pi / 2
    c, s, cp, sp = math.cos(yaw / 2), math.sin(yaw / 2), math.cos(pitch / 2), math.sin(pitch / 2)
    return np.array([c * sp, s * cp, -s * sp, c * cp])


def heading_of(rotation):
    """The heading of a quaternion x, y, z, w; what it pitches and rolls is left out."""
    x, y, z, w = (float(value) for value in rotation)
    ahead_x, ahead_z = -2 * (x * z + w * y), -(1 - 2 * (x * x + y * y))
    return math.atan2(-ahead_z, ahead_x)


class Engine:
    """A `habitat_sim.Simulator` with one agent.

    Args:
        scene: a scene's file: .glb, .ply, or a .stage_config.json.
        height, width, field_of_view: of pictures, pixels and degrees across the width.
        outputs: of `rgb`, `depth`, `instance`.
        forward, turn: metres and degrees of an action.
        sliding: whether what is left of a blocked step goes along the obstacle.
        radius, tall: of the agent, metres.
        device: the GPU to draw with; -1 draws on the CPU.
        dataset: a .scene_dataset_config.json, where the scene belongs to one.
        navmesh: `file`: the one beside the scene where there is one; `compute`: always for this agent.
        cell: metres of the voxels that a computed navigation mesh is made of.
        seed: of random points.

    Raises:
        ValueError: no such scene; habitat-sim cannot load it, or finds nowhere to walk in it.
    """

    remote_methods = (
        "load", "act", "observe_at", "is_navigable", "geodesics", "path", "step", "clearance", "snap", "random_point",
        "top_down", "follow", "objects", "bounds",
    )  # fmt: skip

    def __init__(
        self,
        scene,
        height=128,
        width=128,
        field_of_view=90.0,
        outputs=("rgb", "depth"),
        forward=0.25,
        turn=15.0,
        sliding=True,
        radius=0.2,
        tall=1.5,
        device=-1,
        dataset=None,
        navmesh="file",
        cell=0.05,
        seed=0,
    ):
        if navmesh not in ("file", "compute"):
            raise ValueError("navmesh is one of file, compute, got %s" % navmesh)  # noqa: UP031
        self.habitat = importlib.import_module("habitat_sim")
        self.size, self.field_of_view, self.outputs = (int(height), int(width)), float(field_of_view), tuple(outputs)
        self.forward, self.turn, self.sliding = float(forward), float(turn), bool(sliding)
        self.radius, self.tall, self.device = float(radius), float(tall), int(device)
        self.dataset, self.navmesh, self.cell, self.seed = dataset, navmesh, float(cell), int(seed)
        self.sim: Any = None
        self.load(scene)

    def load(self, scene):
        """Go to another scene; the simulator is reconfigured, as habitat-lab does it."""
        if not os.path.exists(scene):  # noqa: PTH110
            raise ValueError(f"there is no scene {scene}")
        config = self._config(str(scene))
        try:
            if self.sim is None:
                self.sim = self.habitat.Simulator(config)
            else:
                self.sim.reconfigure(config)
        except Exception as error:
            raise ValueError(f"habitat-sim cannot load {scene}: {error}") from None
        self.scene, self.followers = str(scene), {}
        self.agent, self.finder = self.sim.get_agent(0), self.sim.pathfinder
        if self.navmesh == "compute" or not self.finder.is_loaded:
            settings = self.habitat.nav.NavMeshSettings()
            settings.set_defaults()
            settings.agent_radius, settings.agent_height = self.radius, self.tall
            settings.cell_size = self.cell
            if not self.sim.recompute_navmesh(self.finder, settings) or not self.finder.is_loaded:
                raise ValueError(
                    f"there is nowhere to walk in {scene}: is its stage config beside it, which says what is up?"
                )
        self.finder.seed(self.seed)

    def _config(self, scene):
        sim = self.habitat.SimulatorConfiguration()
        sim.scene_id, sim.gpu_device_id = scene, self.device
        sim.allow_sliding, sim.enable_physics, sim.random_seed = self.sliding, False, self.seed
        if self.dataset:
            sim.scene_dataset_config_file = self.dataset
        sensors = []
        for name in self.outputs:
            spec = self.habitat.CameraSensorSpec()
            spec.uuid, spec.sensor_type = name, getattr(self.habitat.SensorType, SENSORS[name])
            spec.sensor_subtype = self.habitat.SensorSubType.PINHOLE
            spec.resolution, spec.position, spec.hfov = list(self.size), [0.0, 0.0, 0.0], self.field_of_view
            spec.near, spec.far = 0.01, FAR
            if name != "rgb":
                spec.channels = 1
            sensors.append(spec)
        action, amount = self.habitat.agent.ActionSpec, self.habitat.agent.ActuationSpec
        agent = self.habitat.agent.AgentConfiguration(
            height=self.tall,
            radius=self.radius,
            sensor_specifications=sensors,
            action_space={
                "move_forward": action("move_forward", amount(amount=self.forward)),
                "turn_left": action("turn_left", amount(amount=self.turn)),
                "turn_right": action("turn_right", amount(amount=self.turn)),
            },
        )
        return self.habitat.Configuration(sim, [agent])

    def _put(self, position, rotation):
        state = self.habitat.AgentState()
        state.position, state.rotation = to_habitat(position), [float(value) for value in rotation]
        self.agent.set_state(state, True)

    def act(self, state, action):
        """Where an action of habitat-sim's own agent leads from a state (5,), and whether it was blocked."""
        x, y, z, heading, pitch = (float(value) for value in state)
        self._put([x, y, z], rotation_of(heading))
        collided = bool(self.agent.act(action))
        after = self.agent.get_state()
        x, y, z = from_habitat(after.position)
        turned = after.rotation  # numpy-quaternion: w, x, y, z by name
        heading = heading_of([turned.x, turned.y, turned.z, turned.w])
        return np.array([x, y, z, heading, pitch]), collided

    def observe_at(self, states, camera_height):
        """Pictures from (B, 5) states, (B, H, W, ...), by output; depth is metres along the optical axis."""
        found: dict[str, list] = {name: [] for name in self.outputs}
        for x, y, z, heading, pitch in np.asarray(states, np.float64):
            self._put([x, y, z + camera_height], rotation_of(heading, pitch))
            seen = self.sim.get_sensor_observations()
            for name in self.outputs:
                found[name].append(np.array(seen[name]))
        types = {"rgb": np.uint8, "depth": np.float32, "instance": np.uint16}
        pictures = {name: np.stack(images).astype(types[name]) for name, images in found.items()}
        if "rgb" in pictures:
            pictures["rgb"] = np.ascontiguousarray(pictures["rgb"][..., :3])
        return pictures

    def is_navigable(self, points):
        """(P,) for (P, 3)."""
        return np.array([bool(self.finder.is_navigable(point)) for point in to_habitat(points)], bool)

    def geodesics(self, starts, goals, nearest=False):
        """(S, G) metres; with `nearest` (S,), to the nearest goal. Infinity where there is no way."""
        starts, goals = to_habitat(starts), to_habitat(goals)
        if nearest:
            path = self.habitat.nav.MultiGoalShortestPath()
            path.requested_ends = list(goals)
            return np.array([self._length(path, start) for start in starts])
        path = self.habitat.nav.ShortestPath()
        lengths = np.empty((len(starts), len(goals)))
        for column, goal in enumerate(goals):
            path.requested_end = goal
            lengths[:, column] = [self._length(path, start) for start in starts]
        return lengths

    def _length(self, path, start):
        path.requested_start = start
        found = self.finder.find_path(path)
        length = float(path.geodesic_distance)
        return length if found and math.isfinite(length) else math.inf

    def path(self, start, goal):
        """(K, 3) the points of the shortest path; (0, 3) where there is none."""
        path = self.habitat.nav.ShortestPath()
        path.requested_start, path.requested_end = to_habitat(start), to_habitat(goal)
        if not self.finder.find_path(path):
            return np.zeros((0, 3))
        return from_habitat(np.array([list(point) for point in path.points], np.float64).reshape(-1, 3))

    def step(self, start, end, sliding):
        """Walk from a point towards another: where that ends, and whether something was in the way."""
        a, b = to_habitat(start), to_habitat(end)
        reached = np.array(list((self.finder.try_step if sliding else self.finder.try_step_no_sliding)(a, b)))
        blocked = np.linalg.norm(reached - a) + FLAT < np.linalg.norm(b - a)
        return from_habitat(reached), bool(blocked)

    def clearance(self, point, most=2.0):
        """Metres to the nearest obstacle, at most `most`."""
        return min(float(most), float(self.finder.distance_to_closest_obstacle(to_habitat(point), most)))

    def snap(self, point):
        """The nearest navigable point (3,); NaN where there is none near."""
        return from_habitat(np.array(list(self.finder.snap_point(to_habitat(point))), np.float64))

    def random_point(self, seed):
        """A navigable point (3,), uniform over the navigation mesh."""
        self.finder.seed(int(seed))
        return from_habitat(np.array(list(self.finder.get_random_navigable_point()), np.float64))

    def top_down(self, resolution, z):
        """(H, W) where one can walk at about a height, north (high y) up; and x of the left and y of the top edge."""
        free = np.array(self.finder.get_topdown_view(float(resolution), float(z)), bool)
        low, _ = self.finder.get_bounds()
        return free, [float(low[0]), -float(low[2])]

    def bounds(self):
        """(2, 3) the low and high corners of the navigation mesh."""
        corners = from_habitat(np.array([list(corner) for corner in self.finder.get_bounds()]))
        return np.stack([corners.min(0), corners.max(0)])

    def follow(self, state, goal, goal_radius):
        """What habitat-sim's greedy geodesic follower does at a state: an action's name or `stop`; None: no way."""
        x, y, z, heading, _ = (float(value) for value in state)
        self._put([x, y, z], rotation_of(heading))
        radius = float(goal_radius)
        if radius not in self.followers:
            self.followers[radius] = self.sim.make_greedy_follower(0, radius, stop_key="stop")
        try:
            return self.followers[radius].next_action_along(to_habitat(goal))
        except self.habitat.errors.GreedyFollowerError:
            return None

    def objects(self):
        """What instance pictures hold: (number, category's name) of each annotated object."""
        found = []
        for item in self.sim.semantic_scene.objects:
            if item is not None and item.category is not None:
                found.append([int(item.semantic_id), str(item.category.name())])
        return found

    def close(self):
        if self.sim is not None:
            self.sim.close()
            self.sim = None
