"""Look at a LeRobot dataset (v3.0 or v2.1), check it, show an episode, or make new ones of old ones.

    embodied-dataset root=data/button                              # what is in it
    embodied-dataset action=check root=data/button                 # every file, frame, timestamp and statistic
    embodied-dataset action=render root=data/button episode=3 out=episode.mp4
    embodied-dataset action=finalize root=data/button              # make a dataset of an interrupted collection

    embodied-dataset action=convert root=lift.hdf5 conventions=panda.json instruction='lift the cube' out=data/lift
    embodied-dataset action=merge roots=[data/push,data/pull] out=data/both
    embodied-dataset action=split root=data/both 'parts={train:0.9,val:0.1}' seed=0 out=data/parts
    embodied-dataset action=filter root=data/both tasks=['push it'] success=true out=data/pushed
    embodied-dataset action=reencode root=data/both image_storage=video size=[96,96] out=data/small

    embodied-dataset action=clean multimodal=coco multimodal.file=captions.json multimodal.images=train2017 \\
        filters=web out=data/captions                              # samples.jsonl and report.json

`check` exits with status 1 where something is broken. What makes new datasets touches no source, and goes on where it
was interrupted when the same command is given again (`clean` begins anew).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from embodied.building import nearest
from embodied.cli.app import command
from embodied.progress import clock

NEEDS = {
    "convert": ("root", "out"),
    "merge": ("roots", "out"),
    "split": ("root", "parts", "out"),
    "filter": ("root", "out"),
    "reencode": ("root", "out"),
    "clean": ("multimodal", "out"),
}
"""What an action cannot do without; the others need `root`."""

KINDS: dict[str, tuple[Any, str]] = {
    "fps": (int | float, "a number"),
    "crf": (int, "a whole number"),
    "seed": (int, "a whole number"),
    "min_length": (int, "a whole number"),
    "max_length": (int, "a whole number"),
    "success": (bool, "true or false"),
    "parts": (dict, "{name: fraction, ...}"),
    "keys": (dict, "a group of keys"),
}
LISTS: dict[str, tuple[type, str]] = {
    "roots": (str, "[folder, folder, ...]"),
    "tasks": (str, "[instruction, ...]"),
    "episodes": (int, "[number, ...]"),
    "leave_out": (int, "[number, ...]"),
    "size": (int, "[height, width]"),
}
"""What each key holds, if anything."""


def work(config: DictConfig) -> Mapping[str, Any]:
    """Do what `action` says.

    Raises:
        ValueError: an unknown action, or the dataset cannot be read.
        SystemExit: status 1 where `check` found something broken.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    actions: dict[str, Callable[[dict[str, Any]], Mapping[str, Any]]] = {
        "info": info,
        "check": check,
        "render": render,
        "finalize": finalize,
        "convert": convert,
        "merge": merge,
        "split": split,
        "filter": select,
        "reencode": reencode,
        "clean": clean,
    }
    if plain["action"] not in actions:
        raise ValueError(f"embodied-dataset has no action '{plain['action']}'{nearest(plain['action'], actions)}")
    _needed(plain, *NEEDS.get(plain["action"], ("root",)))
    _of_their_kind(plain)
    return actions[plain["action"]](plain)


def info(config: dict[str, Any]) -> Mapping[str, Any]:
    """Print what is in a dataset."""
    from embodied.spec import IMAGES

    dataset = _open(config)
    size = sum(file.stat().st_size for file in dataset.root.rglob("*") if file.is_file() and ".cache" not in file.parts)
    lengths = [episode.length for episode in dataset.episodes]
    rows = [
        ("format", f"LeRobot {dataset.catalog.version}, {size / 1e6:.1f} MB"),
        ("robot", dataset.catalog.robot),
        ("episodes", f"{len(dataset)}, of {min(lengths, default=0)} to {max(lengths, default=0)} frames"),
        ("frames", f"{dataset.frames}, {clock(dataset.frames / dataset.fps)} at {dataset.fps:g} Hz"),
    ]
    succeeded = [record["success"] for record in dataset.records if "success" in record]
    if succeeded:
        rows.append(("successes", f"{sum(map(bool, succeeded))} of {len(succeeded)}"))
    for camera in dataset.cameras:
        feature = dataset.camera_feature(camera)
        rows.append(("camera", f"{IMAGES}{camera}: {feature.shape[0]} x {feature.shape[1]}, stored as {feature.dtype}"))
    for key in dataset.columns:
        feature = dataset.features[key]
        names = f": {', '.join(map(str, feature.names))}" if isinstance(feature.names, list) else ""
        rows.append(("column", f"{key}: {feature.dtype} {' x '.join(map(str, feature.shape))}{names}"))
    rows += [("task", f"{index}: {task}") for index, task in enumerate(dataset.tasks[:20])]
    if len(dataset.tasks) > 20:
        rows.append(("", f"... and {len(dataset.tasks) - 20} more"))
    try:
        action = dataset.embodiment.action
        more = ""
        if action.gripper is not None:
            more = f", {action.names[action.gripper]} {action.gripper_closed:+d} closes"
        if action.kind == "categorical":
            more = f", indices of {', '.join(action.names)}"
        words = f"{action.kind}, {action.control}, {action.space}, rotation {action.rotation}, frame {action.frame}"
        rows.append(("actions", words + more))
    except ValueError as error:
        rows.append(("actions", str(error)))
    print(dataset.root)
    for name, value in rows:
        print(f"  {name:<10} {value}")
    return {"episodes": len(dataset), "frames": dataset.frames, "tasks": len(dataset.tasks)}


def check(config: dict[str, Any]) -> Mapping[str, Any]:
    """Print every problem of a dataset; end with status 1 where something is broken."""
    from embodied.data import check as checking

    dataset = _open(config)
    problems = checking.check(dataset, decode=config["decode"], stream=sys.stderr)
    broken = [problem for problem in problems if problem.broken]
    for problem in problems:
        print(problem)
    bad = len({problem.episode for problem in broken if problem.episode is not None})
    verdict = f"{len(broken)} problems in {bad} episodes" if broken else "all as it should be"
    looked = "" if config["decode"] else " (images were not decoded)"
    print(f"{dataset.root}: {len(dataset)} episodes, {dataset.frames} frames: {verdict}{looked}")
    if broken:
        raise SystemExit(1)
    return {"episodes": len(dataset), "frames": dataset.frames, "notes": len(problems)}


def render(config: dict[str, Any]) -> Mapping[str, Any]:
    """Write an episode as a film."""
    from embodied.data import render as rendering

    dataset = _open(config)
    out = Path(config["out"] or f"episode_{config['episode']:06d}.mp4")
    print(rendering.render(dataset, config["episode"], out, config["cameras"]))
    return {"frames": dataset.episodes[config["episode"]].length}


def finalize(config: dict[str, Any]) -> Mapping[str, Any]:
    """Make a dataset of the episodes that an interrupted collection left."""
    from embodied.data import lerobot

    episodes = lerobot.finalize(config["root"], progress=True)
    print(f"{config['root']}: {episodes} episodes")
    return {"episodes": episodes}


def convert(config: dict[str, Any]) -> Mapping[str, Any]:
    """Make a LeRobot v3.0 dataset of one in another format."""
    from embodied.data.formats import ForeignDataset, Keys, guess_format, open_source
    from embodied.data.formats import convert as converting

    begun = time.monotonic()
    format = config["format"] or guess_format(config["root"])
    if format == "lerobot":
        told = [key for key in ("fps", "robot", "instruction", "subset", "leave_out") if config[key] is not None]
        told += [f"keys.{key}" for key, value in config["keys"].items() if value is not None]
        if told:
            raise ValueError(f"a LeRobot dataset tells this itself: leave out {', '.join(told)}")
        return reencode(config)
    dataset = ForeignDataset(
        open_source(config["root"], format, config["subset"]),
        Keys.from_dict(config["keys"]),
        config["fps"],
        config["robot"],
        config["instruction"],
        config["conventions"],
        config["leave_out"] or (),
        sys.stderr,
    )
    converting(dataset, config["out"], config["image_storage"] or "image", sys.stderr)
    return _made(config["out"], begun)


def merge(config: dict[str, Any]) -> Mapping[str, Any]:
    """Make one dataset of several; `conventions` are for those that don't tell their own."""
    from embodied.data import edit
    from embodied.data.lerobot.format import EMBODIMENT

    begun = time.monotonic()
    told = [(Path(root) / EMBODIMENT).is_file() for root in config["roots"]]
    asked = [
        {**config, "root": root, **({"conventions": None} if own else {})}
        for root, own in zip(config["roots"], told, strict=True)
    ]
    edit.merge([_open(one) for one in asked], config["out"], sys.stderr)
    return _made(config["out"], begun)


def split(config: dict[str, Any]) -> Mapping[str, Any]:
    """Make several datasets of one."""
    from embodied.data import edit

    begun = time.monotonic()
    made = edit.split(_open(config), config["out"], config["parts"], config["seed"], sys.stderr)
    return {name: _made(Path(config["out"]) / name, begun)["episodes"] for name in made}


def select(config: dict[str, Any]) -> Mapping[str, Any]:
    """Make a dataset of some episodes of another."""
    from embodied.data import edit

    begun = time.monotonic()
    filters = {key: config[key] for key in ("tasks", "episodes", "min_length", "max_length", "success")}
    edit.select(_open(config), config["out"], **filters, stream=sys.stderr)
    return _made(config["out"], begun)


def reencode(config: dict[str, Any]) -> Mapping[str, Any]:
    """Make a dataset whose images are stored or scaled anew."""
    from embodied.data import edit
    from embodied.data.edit.copying import Images

    begun = time.monotonic()
    size = tuple(config["size"]) if config["size"] else None
    images = Images(config["image_storage"], size, config["codec"], config["crf"])
    edit.reencode(_open(config), config["out"], images, sys.stderr)
    return _made(config["out"], begun)


def clean(config: dict[str, Any]) -> Mapping[str, Any]:
    """Make a multi-modal dataset of those samples of another that filters keep."""
    from embodied.building import build
    from embodied.data.multimodal.filters import clean as cleaning
    from embodied.data.multimodal.filters.base import Filter
    from embodied.data.multimodal.readers.base import Reader

    reader = build(config["multimodal"], (Reader,))
    settings = {key: config[key] for key in ("multimodal", "filters")}
    report = cleaning.clean(reader, build(config["filters"], (Filter,)), config["out"], settings, sys.stderr)
    print(report)
    if reader.faults.total:
        print(f"unreadable: {reader.faults}")
    print(f"{config['out']}: {report.kept} samples")
    return {"seen": report.seen, "kept": report.kept}


def _made(out: Any, begun: float) -> dict[str, Any]:
    from embodied.data.lerobot import LeRobotDataset

    dataset, seconds = LeRobotDataset(out), time.monotonic() - begun
    rate = f"{dataset.frames / max(seconds, 1e-9):.0f} frames/s"
    print(f"{out}: {len(dataset)} episodes, {dataset.frames} frames, {len(dataset.tasks)} tasks ({rate})")
    return {"episodes": len(dataset), "frames": dataset.frames, "tasks": len(dataset.tasks)}


def _needed(config: dict[str, Any], *keys: str) -> None:
    for key in keys:
        if not config.get(key):
            raise ValueError(f"{key} is not given: action={config['action']} needs {', '.join(f'{k}=' for k in keys)}")


def _of_their_kind(config: dict[str, Any]) -> None:
    for key, (kind, meaning) in KINDS.items():
        value = config[key]
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise ValueError(f"{key} is {meaning}, got {value!r}")
    for key, (kind, meaning) in LISTS.items():
        value = config[key]
        if value is not None and not (isinstance(value, list) and all(type(item) is kind for item in value)):
            raise ValueError(f"{key} is {meaning}, got {value!r}")


def _open(config: dict[str, Any]) -> Any:
    from embodied.data.lerobot import LeRobotDataset

    return LeRobotDataset(config["root"], config["conventions"])


main = command("dataset", work)

if __name__ == "__main__":
    main()
