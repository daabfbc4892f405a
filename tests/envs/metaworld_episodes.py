"""Fingerprints of Meta-World episodes. Run as a program, it prints them from a process that has done nothing else:

python metaworld_episodes.py state|both <task> <seed> [<task> <seed> ...]
"""

import hashlib
import json
import sys

import numpy as np

CAMERAS = ("corner2", "gripperPOV")


def make(observe, tasks=None, **more):
    from envs.mujoco.metaworld import MetaWorld

    size = {"height": 48, "width": 64, "cameras": CAMERAS} if observe != "state" else {}
    return MetaWorld(tasks, observe=observe, stop_on_success=False, **size, **more)


def actions(seed, steps):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 4)).astype(np.float32)


def fingerprint(env, task, seed, steps=8):
    """Every bit of the observations, rewards and successes of an episode under actions that the seed fixes."""
    digest = hashlib.sha256()
    observation, info = env.reset(seed=seed, options={"task": task})
    outcomes = [(observation, 0.0, info["success"])]
    for action in actions(seed, steps):
        observation, reward, _, _, info = env.step(action)
        outcomes.append((observation, reward, info["success"]))
    for observation, reward, success in outcomes:
        for key in sorted(observation):
            value = observation[key]
            digest.update(value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes())
        digest.update(np.float64(reward).tobytes() + bytes([success]))
    return digest.hexdigest()


if __name__ == "__main__":
    observe, *words = sys.argv[1:]
    wanted = list(zip(words[::2], map(int, words[1::2]), strict=True))
    prints = {}
    for task, seed in wanted:  # a new environment for each
        env = make(observe, [task])
        prints[f"{task} {seed}"] = fingerprint(env, task, seed)
        env.close()
    print(json.dumps(prints))
