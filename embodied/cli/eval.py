"""Evaluate a policy in an environment: success rate with its interval, per-episode outcomes, videos, a report.

    embodied-eval policy=runs/quickstart env=metaworld/button-press-topdown episodes=50 num_envs=2 seed=10000
    embodied-eval policy=runs/vlm task=pope data.root=data/scenes

Episode i of each task has seed `seed + i`. The second asks a model questions about pictures, which are scored by the
rules of `embodied-score`. The same command goes on with an evaluation that was interrupted.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.cli.app import command
from embodied.evaluation.policies import locate_policy, result_folder, split_name


def eval_folder(policy: Any, env: Any, task: str | None, seed: int) -> str:
    """Where the result goes unless told otherwise."""
    folder = result_folder(policy, task or split_name(env or {}), seed)
    return str(folder.with_name(folder.name.replace(f"{task}_{seed}", task, 1)) if task else folder)


OmegaConf.register_new_resolver("eval_folder", eval_folder, replace=True)


def work(config: DictConfig) -> dict[str, Any]:
    """Evaluate; `success`, its interval `low` and `high` (fractions), `n`, and `episodes_per_hour`.

    Of a task instead `score` with `low`, `high` and `n`, and each of its figures by name.
    """
    if config.get("task"):
        if config.get("rerun"):
            raise ValueError(f"rerun={config.rerun} records episodes in an environment, and task= has none")
        from embodied.evaluation.tasks.run import evaluate

        if "data" in config and OmegaConf.is_missing(config.data, "root"):
            raise ValueError("data.root is not given: add data.root=<the folder of the data set> to the command")
        return evaluate(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    if "name" not in (config.get("env") or {}):
        raise ValueError("env is not given: add env=metaworld/... or another environment, or task=... for a task")
    from embodied.evaluation.journal import Journal
    from embodied.evaluation.recording import Recording, check
    from embodied.evaluation.report import write_report
    from embodied.evaluation.results import EpisodeRecord, write_eval_info, write_rows
    from embodied.evaluation.rollout import Environments, rollout
    from embodied.files import only_one
    from embodied.progress import Progress

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    for key, least in {"episodes": 1, "num_envs": 1, "seed": 0, "videos": 0, "retries": 0, "timeout": 1}.items():
        if plain[key] < least:
            raise ValueError(f"{key} is {least} or more, got {key}={plain[key]}")
    if plain["rerun"]:
        check(plain["rerun"])
        if not plain["videos"]:
            raise ValueError(f"rerun={plain['rerun']} records the episodes that are filmed, and videos=0 films none")
    env, out = plain["env"] | {"name": split_name(plain["env"])}, Path(plain["out"])
    source = locate_policy(plain["policy"], source=plain["source"], settings=plain["settings"], config=plain)
    identity = {**source.identity(), "env": {"name": env["name"], "make": env["make"]}, "seed": plain["seed"]}
    if source.kind == "expert":
        identity["expert"] = env.get("expert")
    if plain["out_of_bounds"] != "clip":
        identity["out_of_bounds"] = plain["out_of_bounds"]
    execution = plain.get("execution")
    if execution:
        if source.kind != "agent":
            raise ValueError(f"policy={source.spec} predicts no chunks: execution= is for an agent")
        identity["execution"] = execution
    with only_one(out, "evaluation"), Environments(env, plain["num_envs"], source.kind == "expert") as environments:
        body = environments.embodiment if source.wants_body else None  # asking waits for it to be built
        policy: Any = source.load(body, plain["device"], plain["exact"])
        if execution:
            policy.execute_by(execution)
        seeds = range(plain["seed"], plain["seed"] + plain["episodes"])
        episodes = [(task, seed) for task in environments.tasks for seed in seeds]
        filmed = {(task, seed) for task in environments.tasks for seed in seeds[: plain["videos"]]}
        journal = Journal(out, identity, plain["resume"])
        finished = {(record.task, record.seed): record for record in journal.records}
        records = [finished[episode] for episode in episodes if episode in finished]
        todo = [episode for episode in episodes if episode not in finished]
        line = Progress(len(episodes), "episodes", done=len(records), stream=sys.stderr)
        begun = time.monotonic()

        def note(record: EpisodeRecord) -> None:
            records.append(record)
            journal.add(record, journal.seconds + time.monotonic() - begun)
            line.advance(1, _rate(records))

        group = env["name"].split("/")[0]
        limits = {key: plain[key] for key in ("retries", "timeout", "out_of_bounds")}
        with ExitStack() as stack:
            recording = None
            if plain["rerun"] and filmed.intersection(todo):
                recording = stack.enter_context(Recording(plain["rerun"], environments.embodiment))
            elif plain["rerun"]:
                print("rerun: the episodes to record were run before the interruption", file=sys.stderr)
            rollout(
                policy, environments, todo, group=group, videos=filmed, out=out, on_episode=note,
                recording=recording, **limits,
            )  # fmt: skip
        seconds = time.monotonic() - begun
        info = write_eval_info(
            out,
            records,
            policy=source.spec,
            env={"name": env["name"], "make": env["make"]},
            embodiment=environments.embodiment,
            config=plain,
            eval_s=journal.seconds + seconds,
            num_envs=plain["num_envs"],
            extra={"policy_identity": source.identity()},
        )
        write_rows(out, sorted(records, key=lambda record: (record.task, record.seed)))
    report = write_report(out)
    journal.end()
    hourly = 3600 * len(records) / max(journal.seconds + seconds, 1e-9)
    for text in [*_conclusions(info, records, hourly), *policy.remarks()]:
        print(text)
    print(report)
    low, high = info["overall"]["ci95"]
    success = info["overall"]["pc_success"] / 100
    return {"success": success, "low": low / 100, "high": high / 100, "n": len(records), "episodes_per_hour": hourly}


def _rate(records: list[Any]) -> str:
    won = sum(record.success for record in records)
    return f"success {won}/{len(records)} = {100 * won / len(records):.0f} %"


def _conclusions(info: dict[str, Any], records: list[Any], hourly: float) -> list[str]:
    def stated(summary: dict[str, Any]) -> str:
        low, high = summary["ci95"]
        count = f"{summary['n_success']}/{summary['n_episodes']} = {summary['pc_success']:.1f} %"
        return f"{count} (95 % interval {low:.1f} to {high:.1f})"

    tasks = info["per_task"]
    lines = [f"{task['task']}: {stated(task)}" for task in tasks] if len(tasks) > 1 else []
    what = f"{info['policy']} on {info['env']['name']}"
    lines.append(f"{what}: success {stated(info['overall'])}, {hourly:.0f} episodes/hour")
    measured = {k: v for k, v in info["overall"].get("measures", {}).items() if k != "success" and v is not None}
    if measured:
        lines.append("means: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
    unfinished = [record for record in records if record.error]
    if unfinished:
        first = unfinished[0]
        lines.append(f"{len(unfinished)} episodes count as failed: {first.task}, seed {first.seed}: {first.error}")
    clipped, steps = sum(r.clipped_actions for r in records), sum(r.length for r in records)
    if clipped:
        lines.append(f"{clipped} of {steps} actions left the bounds and were clipped")
    broken = sum(r.nan_actions for r in records)
    if broken:
        lines.append(f"{broken} episodes ended with an action that was not finite: the policy is numerically broken")
    died = sum(record.retries for record in records)
    if died:
        lines.append(f"{died} simulator processes died and were replaced, their episodes run again")
    return lines


main = command("eval", work)

if __name__ == "__main__":
    main()
