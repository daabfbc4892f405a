"""Fingerprints of panda-gym episodes. Run as a program, it prints them from a process that has done nothing else:

python panda_episodes.py <task> <seed> [<task> <seed> ...]
"""

import hashlib
import json
import sys

import numpy as np


def make(tasks=None, **more):
    from envs.pybullet.panda import PandaGym

    return PandaGym(tasks, **{"height": 32, "width": 40, "observe": "both", "stop_on_success": False, **more})


def fingerprint(env, task, seed, steps=12):
    """Every bit of what an episode shows, under actions that go for the object and touch it."""
    digest = hashlib.sha256()
    observation, info = env.reset(seed=seed, options={"task": task})
    random = np.random.default_rng(seed)
    for _ in range(steps):
        for key in sorted(observation):
            value = observation[key]
            digest.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())
        digest.update(bytes([info["success"]]))
        now = env.situation()
        aim = now.objects[0] if len(now.objects) else now.goals[0]
        towards = np.clip(100 * (aim - now.hand) + random.normal(0, 0.5, 3), -5, 5)
        observation, *_, info = env.step(np.append(towards, random.uniform(-1, 1)).astype(np.float32))
    return digest.hexdigest()


if __name__ == "__main__":
    words = sys.argv[1:]
    prints = {}
    for task, seed in zip(words[::2], map(int, words[1::2]), strict=True):  # a new environment for each
        env = make([task])
        prints[f"{task} {seed}"] = fingerprint(env, task, seed)
        env.close()
    print(json.dumps(prints))
