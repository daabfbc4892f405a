"""Collect demonstrations: an environment's expert -> a LeRobot v3.0 dataset.

    embodied-collect env=metaworld/button-press-topdown episodes=50 seed=0 out=data/button

With policy=runs/x the agent acts and the expert's actions are stored (DAgger); embodied-dataset action=merge puts
rounds together. With stored=policy they are its own: policy=explorer teaches how one searches.

The same command continues what was interrupted, and extends a dataset when `episodes` is larger than before.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.cli.app import command
from embodied.progress import clock


def work(config: DictConfig) -> dict[str, Any]:
    """Collect; `episodes`, `failures` (seeds left out) and `seconds`."""
    from embodied.collection import collect
    from embodied.evaluation.policies import locate_policy

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    policy = None
    if plain["policy"] is not None:
        policy = locate_policy(plain["policy"], settings=plain["settings"], config=plain)
    begun = time.monotonic()
    summary = collect(
        plain["env"],
        plain["out"],
        plain["episodes"],
        seed=plain["seed"],
        num_workers=plain["num_workers"],
        noise=plain["noise"],
        images=plain["image_storage"],
        only_success=plain["only_success"],
        progress=sys.stderr,
        policy=policy,
        mix=plain["mix"],
        stored=plain["stored"],
    )
    seconds = time.monotonic() - begun
    left_out = f"; the expert failed on {summary.failures} seeds, which were left out" if summary.failures else ""
    print(f"{summary.out}: {summary.episodes} episodes, {summary.new} of them new, in {clock(seconds)}{left_out}")
    if summary.clipped:
        print(f"{summary.clipped} of {summary.steps} of the expert's actions left the body's bounds and were clipped")
    return {"episodes": summary.episodes, "failures": summary.failures, "seconds": seconds}


main = command("collect", work)

if __name__ == "__main__":
    main()
