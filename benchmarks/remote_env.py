"""What it costs that an environment is in another process: round trips per second, and megabytes per second.

    OMP_NUM_THREADS=1 python -m benchmarks.remote_env

Each size is a picture that a served environment gives at every step, beside the same environment called directly.
`--python` serves it from another interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from envs.remote.env import RemoteEnv

WORLD = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Pictures(gymnasium.Env):
    action_space = spaces.Discrete(2)

    def __init__(self, height, width):
        self.observation_space = spaces.Box(0, 255, (height, width, 3), np.uint8)
        self.picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        return self.picture, {}

    def step(self, action):
        return self.picture, 0.0, False, False, {}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 64, 128, 256, 512])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--python", help="the interpreter that serves; this one unless given")
    options = parser.parse_args()
    print("| picture | bytes | a step, ms (fastest turn to slowest) | steps/s | MB/s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.py"
        file.write_text(WORLD)
        for size in options.sizes:
            env = RemoteEnv(f"{file}:Pictures", {"height": size, "width": size}, python=options.python)
            env.reset(seed=0)
            turns = []
            for _ in range(options.turns + 1):
                started = time.perf_counter()
                for _ in range(options.steps):
                    env.step(0)
                turns.append((time.perf_counter() - started) / options.steps)
            env.close()
            turns, count = turns[1:], 3 * size * size  # the first one warms up
            median = statistics.median(turns)
            spread = f"{1e3 * median:.2f} ({1e3 * min(turns):.2f} to {1e3 * max(turns):.2f})"
            print(f"| {size} x {size} | {count} | {spread} | {1 / median:.0f} | {count / median / 1e6:.0f} |")


if __name__ == "__main__":
    main()
