"""A stand-in for habitat_sim: the part of its Python API that `envs.habitat.engine` uses, over the house simulator.

A scene `x.glb` is the house in `x.json`. The frame is Habitat's: y up, agents look along -z, quaternions x, y, z, w.
"""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from envs.house.pathfinder import PathFinder as HousePathFinder
from envs.house.renderer import Renderer
from envs.house.spec import HouseSpec


def outside(p):
    return np.array([p[0], p[2], -p[1]], np.float32)


def inside(p):
    return np.array([p[0], -p[2], p[1]], np.float64)


def turn(q, v):
    """A vector turned by a quaternion."""
    u, w = np.array([q.x, q.y, q.z]), q.w
    return v + 2 * np.cross(u, np.cross(u, v) + w * v)


def times(a, b):
    return SimpleNamespace(
        w=a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z,
        x=a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
        y=a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x,
        z=a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w,
    )


class SimulatorConfiguration:
    scene_id, gpu_device_id, allow_sliding, enable_physics, random_seed = "", 0, True, False, 0
    scene_dataset_config_file = "default"


class CameraSensorSpec:
    uuid, sensor_type, sensor_subtype, resolution, position, hfov, channels = "", "", "", [128, 128], [0, 1.5, 0], 90, 4


SensorType = SimpleNamespace(COLOR="rgb", DEPTH="depth", SEMANTIC="instance")
SensorSubType = SimpleNamespace(PINHOLE="pinhole")


class AgentState:
    def __init__(self):
        self.position, self.rotation = np.zeros(3), [0, 0, 0, 1]


class GreedyFollowerError(RuntimeError):
    pass


errors = SimpleNamespace(GreedyFollowerError=GreedyFollowerError)


class NavMeshSettings:
    def set_defaults(self):
        self.agent_radius, self.agent_height, self.cell_size = 0.1, 1.5, 0.05


class ShortestPath:
    requested_start = requested_end = None
    geodesic_distance, points = math.inf, ()


class MultiGoalShortestPath:
    requested_start, requested_ends = None, ()
    geodesic_distance, points = math.inf, ()


nav = SimpleNamespace(
    NavMeshSettings=NavMeshSettings, ShortestPath=ShortestPath, MultiGoalShortestPath=MultiGoalShortestPath
)
agent = SimpleNamespace(
    ActionSpec=lambda name, actuation: SimpleNamespace(name=name, actuation=actuation),
    ActuationSpec=lambda amount: SimpleNamespace(amount=amount),
    AgentConfiguration=SimpleNamespace,
)


def Configuration(sim_cfg, agents):
    return SimpleNamespace(sim_cfg=sim_cfg, agents=agents)


class PathFinder:
    is_loaded = False

    def build(self, house, radius, height):
        self.house = HousePathFinder(house, radius, height)
        self.is_loaded = True

    def seed(self, number):
        self.rng = np.random.default_rng(number)

    def _on_floor(self, point):
        return abs(float(point[1])) < 0.5

    def is_navigable(self, point, max_y_delta=0.5):
        return self._on_floor(point) and bool(self.house.is_navigable(inside(point)[None, :2])[0])

    def find_path(self, path):
        goals = [path.requested_end] if isinstance(path, ShortestPath) else path.requested_ends
        goals = [goal for goal in goals if self._on_floor(goal)]
        path.geodesic_distance = math.inf
        if goals:
            ends = np.array([inside(goal)[:2] for goal in goals])
            start = inside(path.requested_start)[None, :2]
            lengths = self.house.geodesics(start, ends)[0]
            path.geodesic_distance = float(lengths.min())
        if not math.isfinite(path.geodesic_distance):
            path.points = []
            return False
        way = self.house.path(start, ends[lengths.argmin()][None])
        path.points = [outside([x, y, 0.0]) for x, y in way]
        return True

    def _walk(self, start, end, sliding):
        a, b = inside(start), inside(end)
        reached, _ = self.house.step(a[:2], b[:2], sliding)
        return outside([*reached, a[2]])

    def try_step(self, start, end):
        return self._walk(start, end, True)

    def try_step_no_sliding(self, start, end):
        return self._walk(start, end, False)

    def distance_to_closest_obstacle(self, pt, max_search_radius=2.0):
        return min(max_search_radius, self.house.clearance(inside(pt)[:2]))

    def snap_point(self, point):
        if np.abs(point).max() > 100:
            return np.full(3, np.nan, np.float32)
        return outside([*self.house.snap(inside(point)[:2]), 0.0])

    def get_random_navigable_point(self):
        return outside([*self.house.random_point(self.rng), 0.0])

    def get_topdown_view(self, meters_per_pixel, height, eps=0.5):
        return self.house.top_down(meters_per_pixel).free

    def get_bounds(self):
        x0, y0, x1, y1 = self.house.house.bounds
        return np.array([x0, 0, -y1]), np.array([x1, 0, -y0])


class Agent:
    def __init__(self, simulator, config):
        self.simulator, self.config = simulator, config
        self.set_state(AgentState())

    def set_state(self, state, reset_sensors=True):
        x, y, z, w = state.rotation
        assert abs(x * x + y * y + z * z + w * w - 1) < 1e-5
        self.position, self.rotation = np.array(state.position, np.float32), SimpleNamespace(x=x, y=y, z=z, w=w)

    def get_state(self):
        return SimpleNamespace(position=self.position, rotation=self.rotation)

    def act(self, name):
        amount = self.config.action_space[name].actuation.amount
        if name == "move_forward":
            end = self.position + amount * turn(self.rotation, np.array([0, 0, -1.0]))
            sliding = self.simulator.config.sim_cfg.allow_sliding
            finder = self.simulator.pathfinder
            reached = (finder.try_step if sliding else finder.try_step_no_sliding)(self.position, end)
            moved = np.linalg.norm(reached - self.position)
            self.position = reached
            return bool(moved + 1e-5 < amount)
        half = math.radians(amount) / 2 * (1 if name == "turn_left" else -1)
        self.rotation = times(self.rotation, SimpleNamespace(x=0, y=math.sin(half), z=0, w=math.cos(half)))
        return False


class Simulator:
    def __init__(self, config):
        self.pathfinder = PathFinder()
        self.reconfigure(config)

    def reconfigure(self, config):
        self.config, (wanted,) = config, config.agents
        self.house = HouseSpec.load(Path(config.sim_cfg.scene_id).with_suffix(".json"))
        self.pathfinder.is_loaded = False
        self.agent = Agent(self, wanted)
        self.specs = wanted.sensor_specifications
        self.renderer = None
        if self.specs:
            first = self.specs[0]
            names = tuple(spec.sensor_type for spec in self.specs)
            self.renderer = Renderer(self.house, *first.resolution, first.hfov, names)

    def get_agent(self, number):
        assert number == 0
        return self.agent

    def recompute_navmesh(self, pathfinder, settings):
        pathfinder.build(self.house, settings.agent_radius, settings.agent_height)
        return True

    def get_sensor_observations(self):
        ahead = turn(self.agent.rotation, np.array([0, 0, -1.0]))
        x, y, z = inside(self.agent.position)
        pitch = math.asin(np.clip(ahead[1], -1, 1))
        heading = math.atan2(-ahead[2], ahead[0])
        seen = self.renderer.render(np.array([[x, y, z, heading, pitch]]))
        found = {spec.uuid: seen[spec.sensor_type][0] for spec in self.specs}
        if "rgb" in found:
            found["rgb"] = np.concatenate([found["rgb"], np.full((*found["rgb"].shape[:2], 1), 255, np.uint8)], 2)
        if "instance" in found:
            found["instance"] = found["instance"].astype(np.uint32)
        return found

    @property
    def semantic_scene(self):
        def item(number, name):
            return SimpleNamespace(semantic_id=number, category=SimpleNamespace(name=lambda: name))

        return SimpleNamespace(
            objects=[None] + [item(i, one.category) for i, one in enumerate(self.renderer.scene.instances) if i]
        )

    def make_greedy_follower(self, agent_id, goal_radius, *, stop_key=None):
        return SimpleNamespace(next_action_along=lambda goal: self._follow(goal, goal_radius, stop_key))

    def _follow(self, goal, radius, stop_key):
        path = ShortestPath()
        path.requested_start, path.requested_end = self.agent.position, goal
        if not self.pathfinder.find_path(path):
            raise GreedyFollowerError
        if path.geodesic_distance < radius:
            return stop_key
        away = inside(path.points[1]) - inside(path.points[0])
        ahead = inside(turn(self.agent.rotation, np.array([0, 0, -1.0])))
        off = math.atan2(away[1], away[0]) - math.atan2(ahead[1], ahead[0])
        off = (off + math.pi) % (2 * math.pi) - math.pi
        side = math.radians(self.agent.config.action_space["turn_left"].actuation.amount) / 2
        return "move_forward" if abs(off) <= side + 1e-6 else "turn_left" if off > 0 else "turn_right"

    def close(self):
        pass
