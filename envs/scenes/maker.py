"""A data set of scenes on disk: begun, gone on with, finished.

    scenes.json                  seed, counts, versions, words, balance of the answers: what this data set is
    images/000000.png            pictures; a picture's number is its id everywhere
    videos/000000.mp4            films, or a folder of frames each
    chat/<split>/<task>.jsonl    chat samples
    chat/<split>/all.jsonl       those of all tasks about pictures, picture by picture
    chat/<split>/listed.jsonl    those of vqa and refer, picture by picture, each asked after the things were listed
    chat/<split>/thought.jsonl   the same, with a thought before each answer
    chat/<split>/told.jsonl      the same, without the picture: about the list alone
    chat/<split>/again.jsonl     the list without the picture, and then the same list in other orders
    official/...                 the formats of official scorers, see `envs.scenes.exports`
    scenes/<split>.jsonl         what each picture shows; scenes/<split>_videos.jsonl what each film shows

Pictures are drawn in stretches, in any order and by any number of processes. Everything else is written when all are
there, from their records. `making.json` and `parts/` are there until then: whoever finds them goes on.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from embodied.files import atomic_folder, read_json, write_json
from envs.scenes.balance import MOST_OVER
from envs.scenes.exports import export, write_lines
from envs.scenes.language_only import language_only
from envs.scenes.painter import IMAGES, PARTS, VIDEOS, record_of
from envs.scenes.samples import TASKS, Picture, Written, combined, write_split
from envs.scenes.settings import Settings
from envs.scenes.visibility import DEPTH_MARGIN, LEAST_SHARE, LEAST_SHOWN, SIDE_MARGIN, Fact
from envs.scenes.vocabulary import UNSEEN

ABOUT, BEGUN = "scenes.json", "making.json"
FOLDERS = ("chat", "official", "scenes")
"""What is written when all pictures are there."""
STRETCH = {IMAGES: 40, VIDEOS: 5}
"""How many are drawn at a time."""
RULES = {
    "seen": f"a thing is asked about if it covers {LEAST_SHARE:.2%} of the pixels and {LEAST_SHOWN:.0%} of its outline "
    "shows; nothing is asked whose answer a thing that is not seen might change",
    "left, right": f"asked where middles are {SIDE_MARGIN:g} of the picture's width apart, as the camera sees them",
    "in front, behind": f"asked where things are {DEPTH_MARGIN:g} m apart along the table, as the camera sees them",
    "boxes": "of the pixels that show the thing; in text x1,y1,x2,y2 from 0 to 999; in meta pixels, of which x2 and y2 "
    "are the first beyond; in official/refs COCO's x, y, width, height",
    "balance": "yes and no come equally often within each form of question; of several answers none is more than "
    f"{MOST_OVER:g} times as frequent as their mean; 'which' and 'order' of films are left as they come",
}
"""What a reader of the data set has to know, as `scenes.json` says it."""
PACKAGES = ("embodied", "pybullet", "numpy", "pillow", "av", "scipy")


class SceneMaker:
    """Makes one data set.

    Args:
        settings: the fields of `Settings`.

    Attributes:
        painter: dotted name of the class that draws, in worker processes, with `settings` and the folder.

    Raises:
        ValueError: a setting that makes no sense.
    """

    painter = "envs.scenes.painter.Painter"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = Settings(**settings)
        self.settings = self._settings.as_dict()

    def begin(self, out: Path) -> tuple[list[tuple[str, int, int]], int]:
        """Make the folder ready.

        Returns:
            The stretches (`images` or `videos`, first number, first beyond) that are still to be drawn, and how many
            pictures and films there are in all.

        Raises:
            ValueError: the folder holds something else, or a data set with other settings.
        """
        total = self._settings.scenes + self._settings.videos
        for file in (ABOUT, BEGUN):
            if (out / file).exists():
                self._same(out, read_json(out / file))
                break
        else:
            there = sorted(path.name for path in out.iterdir())
            if there:
                raise ValueError(f"{out} holds {there[0]}, which is no data set of scenes: name an empty folder")
            write_json(out / BEGUN, {"settings": self.settings})
        self._sweep(out)
        if (out / ABOUT).exists():
            self._tidy(out)
            return [], total
        for name in (IMAGES, VIDEOS, PARTS):
            (out / name).mkdir(exist_ok=True)
        return [one for one in self._stretches() if not record_of(out, one[0], one[1]).exists()], total

    def finish(self, out: Path) -> dict[str, Any]:
        """Write all that is said about the pictures, when all are drawn; the content of `scenes.json`."""
        if (out / ABOUT).exists():
            return read_json(out / ABOUT)
        records = {kind: self._records(out, kind) for kind in (IMAGES, VIDEOS)}
        written: dict[str, Written] = {}
        images = self._settings.ranges(IMAGES)
        chat_folder, official_folder, scenes_folder = (out / name for name in FOLDERS)
        with atomic_folder(chat_folder) as chat, atomic_folder(official_folder) as official:
            for split in images:
                pictures = [_picture(row) for row in records[IMAGES] if row["split"] == split]
                films = [_picture(row) for row in records[VIDEOS] if row["split"] == split]
                written[split] = write_split(self._settings, split, pictures, films)
                (chat / split).mkdir()
                for task in TASKS:
                    write_lines(chat / split / f"{task}.jsonl", written[split].samples[task])
                seed, size = self._settings.seed, self._settings.size
                for name, rows in combined(written[split], seed, pictures, size).items():
                    write_lines(chat / split / f"{name}.jsonl", rows)
                export(official, self._settings, split, pictures, written[split])
        with atomic_folder(scenes_folder) as scenes:
            for split in images:
                for kind, name in ((IMAGES, f"{split}.jsonl"), (VIDEOS, f"{split}_videos.jsonl")):
                    write_lines(scenes / name, [row for row in records[kind] if row["split"] == split])
        about = self._about(records, written)
        write_json(out / ABOUT, about)
        self._tidy(out)
        return about

    def _stretches(self) -> list[tuple[str, int, int]]:
        totals = {IMAGES: self._settings.scenes, VIDEOS: self._settings.videos}
        return [
            (kind, start, min(start + STRETCH[kind], total))
            for kind, total in totals.items()
            for start in range(0, total, STRETCH[kind])
        ]

    def _records(self, out: Path, kind: str) -> list[dict[str, Any]]:
        files = [record_of(out, kind, start) for one, start, _ in self._stretches() if one == kind]
        return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]

    def _same(self, out: Path, found: Any) -> None:
        before = found.get("settings") if isinstance(found, dict) else None
        if not isinstance(before, dict):
            raise ValueError(f"{out} holds {ABOUT} of something else: name an empty folder")
        for key, value in self.settings.items():
            if before.get(key) != value:
                raise ValueError(
                    f"{out} holds scenes with {key}={before.get(key)}, not {key}={value}: name another folder"
                )

    @staticmethod
    def _sweep(out: Path) -> None:
        """Remove what was half written when an earlier making of this data set was killed."""
        for name in (ABOUT, BEGUN, *FOLDERS):
            for path in (*out.glob(f".{name}.*.tmp"), *out.glob(f".{name}.*.old")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @staticmethod
    def _tidy(out: Path) -> None:
        shutil.rmtree(out / PARTS, ignore_errors=True)
        (out / BEGUN).unlink(missing_ok=True)

    def _about(self, records: Mapping[str, list[dict[str, Any]]], written: Mapping[str, Written]) -> dict[str, Any]:
        settings, vocabulary = self._settings, self._settings.vocabulary()
        counts = {
            split: {kind: len(settings.ranges(kind).get(split, ())) for kind in (IMAGES, VIDEOS)}
            | {task: len(one.samples[task]) for task in TASKS}
            for split, one in written.items()
        }
        hidden = sum(not thing["seen"] for row in records[IMAGES] for thing in row["things"])
        return {
            "what": "Table-top scenes; captions, questions, referring expressions and films are true by construction",
            "settings": self.settings,
            "counts": counts,
            "words": vocabulary.words,
            "unseen_pairs": [f"{colour} {shape}" for shape, colour in vocabulary.pairs(UNSEEN)],
            "rules": RULES,
            "things_not_seen": hidden,
            "answers": {
                split: {task: _answers(asked) for task, asked in one.asked.items()} for split, one in written.items()
            },
            "language_only": self._blind(written),
            "versions": {package: _version(package) for package in PACKAGES},
        }

    @staticmethod
    def _blind(written: Mapping[str, Written]) -> dict[str, Any]:
        """What a model scores that never looks, where there is something to learn it from."""
        if "train" not in written:
            return {}
        known = written["train"].asked
        return {
            split: {task: language_only(known[task], asked) for task, asked in one.asked.items() if asked}
            for split, one in written.items()
            if split != "train"
        }


def _picture(row: Mapping[str, Any]) -> Picture:
    begin, end = ([Fact.from_dict(fact) for fact in row.get(key, [])] for key in ("things", "things_at_the_end"))
    return Picture(row["number"], row.get("image") or row["video"], begin, end, row.get("motions", []))


def _answers(asked: list[tuple[int, Any]]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for _, question in asked:
        if question.possible:
            found.setdefault(question.kind, Counter())[question.answer] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(found.items())}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
