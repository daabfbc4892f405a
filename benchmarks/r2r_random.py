"""The random agent of Room-to-Room (Anderson et al. 2018) on its own graphs, beside the published figures.

    python benchmarks/r2r_random.py --instructions R2R_val_unseen.json --connectivity connectivity/

Turn right from 0 to 11 times by 30 degrees, then go forward five times, turning right where nothing is ahead; stop. The
published figures of validation unseen: success 16.3 %, navigation error 9.23 m.
"""

from __future__ import annotations

import argparse

import numpy as np

from embodied.evaluation.statistics import wilson
from envs.house.tasks.graph_vln import RoomToRoom

STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instructions", required=True)
    parser.add_argument("--connectivity", required=True)
    parser.add_argument("--per-path", type=int, default=3, help="instructions of each path that count")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    env = RoomToRoom(options.instructions, options.connectivity, actions="low", max_steps=60)
    stop, forward, right = (env.embodiment.action.names.index(name) for name in ("stop", "forward", "right"))
    rng = np.random.default_rng(options.seed)
    found = []
    for place, (_, which) in enumerate(env.items):
        if which >= options.per_path:
            continue
        env.reset(seed=place)
        turns, ahead, over = int(rng.integers(12)), 0, False
        while not over:
            blocked = env._ahead(env.at, env.column, env.elevation + 1) is None
            go = turns == 0 and ahead < STEPS and not blocked
            action = right if turns or (blocked and ahead < STEPS) else forward if go else stop
            turns, ahead = max(0, turns - 1), ahead + go
            *_, ended, cut, info = env.step(action)
            over = ended or cut
        found.append(
            [info["measures"][name] for name in ("success", "distance_to_goal", "oracle_success", "path_length")]
        )
    table = np.array(found)
    low, high = wilson(int(table[:, 0].sum()), len(table))
    success, error, oracle, length = table.mean(0)
    print(f"{len(table)} instructions: success {100 * success:.1f} % ({100 * low:.1f} to {100 * high:.1f}), ", end="")
    print(f"navigation error {error:.2f} m, oracle success {100 * oracle:.1f} %, path length {length:.2f} m")


if __name__ == "__main__":
    main()
