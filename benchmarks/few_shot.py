"""What a few demonstrations of a new body are worth: from a checkpoint of other bodies, and from nothing.

    python benchmarks/few_shot.py init=runs/cross data=data/new_body env=panda/push out=runs/few_shot \
        --demonstrations 10 50 --steps 500 --episodes 50

For each number of demonstrations it trains two agents of the checkpoint's architecture with the same data, seed, batch
size and number of steps: one as `experiment=finetune` does, one from new weights, all of them trained. Both are
evaluated on the same unseen seeds and compared in pairs. `--scratch-steps` gives the second more steps. Trainings that
are finished are not done again. Further `key=value` go to both trainings (`trainer.batch_size=16`), what follows
`--eval` to the evaluations.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

import conf  # noqa: F401 (registers the families of environments)
from embodied.cli.compare import work as compare
from embodied.cli.configs import compose
from embodied.cli.eval import work as evaluate
from embodied.cli.train import train
from embodied.evaluation.policies import locate_policy
from embodied.files import write_json
from embodied.training.run_folder import steps
from embodied.training.warm_start import config_of


def training(init: str, words: list[str], scratch: bool) -> DictConfig:
    """The config of a training from a checkpoint, or of one with its architecture and tokenizer and new weights."""
    config = compose("train", ["experiment=finetune", f"init={init}", *words])
    if scratch:
        folder = locate_policy(init, "init").folder
        if folder is None:
            raise SystemExit(f"init={init} is no checkpoint")
        with open_dict(config):
            config = OmegaConf.merge(config, {"freeze": [], "lora": {"match": None}})  # type: ignore[assignment]
            config.init, config.optimizer.rates = None, []
            for part, node in config_of(folder).items():
                config[part] = node
    return config


def finished(run: Path, last: int) -> bool:
    """Whether this run was trained to its end."""
    found = steps(run)
    return bool(found) and int(found[-1].name) >= last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", help="init=, data=, env=, out=, and keys of the trainings")
    parser.add_argument("--demonstrations", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--scratch-steps", type=int, default=None, help="--steps, unless given")
    parser.add_argument("--episodes", type=int, default=50, help="per task")
    parser.add_argument("--seed", type=int, default=10000, help="of the first episode")
    parser.add_argument("--num-envs", type=int, default=2)
    parser.add_argument("--eval", nargs="*", default=[], help="keys of the evaluations")
    options = parser.parse_args()
    given = {key: value for key, _, value in (word.partition("=") for word in options.words)}
    missing = [key for key in ("init", "data", "env", "out") if not given.get(key)]
    if missing:
        parser.error(f"{', '.join(f'{key}=...' for key in missing)} is not given")
    own = [word for word in options.words if word.partition("=")[0] not in ("init", "data", "env", "out")]
    out, rows = Path(given["out"]), []
    for count in options.demonstrations:
        results: dict[str, Path] = {}
        row: dict[str, Any] = {"demonstrations": count}
        for name, limit in (("scratch", options.scratch_steps or options.steps), ("tuned", options.steps)):
            run = out / f"{name}_{count}"
            words = [f"data.root={given['data']}", f"data.episodes={count}", f"out={run}", f"trainer.max_steps={limit}"]
            if not finished(run, limit):
                row[f"{name}_s"] = train(training(given["init"], [*words, "resume=true", *own], name == "scratch"))[
                    "seconds"
                ]
            results[name] = run / "eval" / "few_shot"
            words = [f"policy={run}", f"env={given['env']}", f"out={results[name]}", f"episodes={options.episodes}"]
            words += [f"seed={options.seed}", f"num_envs={options.num_envs}", *options.eval]
            row[name] = evaluate(compose("eval", words))
        both = [str(results["scratch"]), str(results["tuned"])]
        row["paired"] = compare(compose("compare", [f"results=[{','.join(both)}]", f"out={out / f'compare_{count}'}"]))
        rows.append(row)
    write_json(out / "few_shot.json", {"init": given["init"], "steps": options.steps, "rows": rows})
    print("\n| demonstrations | from nothing | from the checkpoint | difference, points | p |\n|---|---|---|---|---|")
    for row in rows:
        cells = [f"{r['success']:.1%} ({r['low']:.1%} to {r['high']:.1%})" for r in (row["scratch"], row["tuned"])]
        cells += [f"{row['paired']['difference']:+.1f}", f"{row['paired']['p']:.3g}"]
        print(f"| {row['demonstrations']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
