"""Episodes of simulated bodies, summed up; `python body_episodes.py fetch/push/7 ...` prints those of a new process."""

import hashlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[2]))

from envs.mujoco.adroit import Adroit  # noqa: E402
from envs.mujoco.aloha import Aloha  # noqa: E402
from envs.mujoco.fetch import Fetch  # noqa: E402
from envs.mujoco.kitchen import Kitchen  # noqa: E402
from envs.mujoco.maze import Maze  # noqa: E402
from envs.mujoco.mobile_arm import MobileArm  # noqa: E402
from envs.pusht import PushT  # noqa: E402

FAMILIES = {
    "fetch": Fetch,
    "maze": Maze,
    "kitchen": Kitchen,
    "adroit": Adroit,
    "aloha": Aloha,
    "mobile-arm": MobileArm,
    "pusht": PushT,
}
NAMES = [f"{family}/{task}" for family, kind in FAMILIES.items() for task in kind.instructions]


def make(name, **options):
    family, task = name.split("/")
    return FAMILIES[family](tasks=[task], **options)


def actions(env, seed, count):
    """Smooth random actions within bounds, (count, A)."""
    spec = env.embodiment.action
    random = np.random.default_rng(seed)
    low, high = np.array(spec.low), np.array(spec.high)
    ends = random.uniform(low, high, (2, len(low)))
    return [(ends[0] * (1 - t) + ends[1] * t).astype(np.float32) for t in np.linspace(0, 1, count)]


def fingerprint(env, seed, steps=8):
    """A hash of all that an episode of random actions shows."""
    total = hashlib.sha256()
    observation, _ = env.reset(seed=seed)
    for action in [*actions(env, seed, steps), None]:
        for key in sorted(observation):
            value = observation[key]
            total.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())
        if action is not None:
            observation, reward, *_ = env.step(action)
            total.update(np.float64(reward).tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    prints = {}
    for episode in sys.argv[1:]:
        name, _, seed = episode.rpartition("/")
        env = make(name, observe="both", height=24, width=32)
        prints[episode] = fingerprint(env, int(seed))
        env.close()
    print(json.dumps(prints))
