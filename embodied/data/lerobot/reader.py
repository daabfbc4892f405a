"""Read a LeRobot dataset, v3.0 or v2.1, episode by episode, under the keys of `embodied.spec`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embodied.building import nearest
from embodied.data.lerobot.catalog import Episode, load_catalog
from embodied.data.lerobot.conventions import embodiment_of
from embodied.data.lerobot.format import STATS, Feature, from_column
from embodied.data.lerobot.images import decode_png
from embodied.data.lerobot.staging import committed_records
from embodied.data.lerobot.stats import Stats, from_json
from embodied.data.lerobot.video import read_frames
from embodied.files import read_json
from embodied.spec import IMAGES, TASK, Embodiment


class LeRobotDataset:
    """The episodes of a dataset on disk; nothing is kept in memory but its description.

    Args:
        root: its folder.
        conventions: for a dataset without `meta/embodiment.json`: an Embodiment, a mapping (see `conventions`), or a
            JSON file of either. Ignored by nobody: it is an error to give one that contradicts the dataset's own.

    Attributes:
        root, fps, features: as `info.json` has them.
        tasks: the instruction of each `task_index`.
        episodes: where each episode lies.
        cameras: `<camera>` names, of LeRobot's keys `observation.images.<camera>`; `observation.image` is camera
            `image`.

    Raises:
        ValueError: see `load_catalog`.
        FileNotFoundError: see `load_catalog`.
    """

    def __init__(
        self, root: str | Path, conventions: Embodiment | Mapping[str, Any] | str | Path | None = None
    ) -> None:
        self.catalog = load_catalog(root)
        self.root, self.fps, self.features = self.catalog.root, self.catalog.fps, self.catalog.features
        self.tasks, self.episodes = list(self.catalog.tasks), self.catalog.episodes
        self._conventions = conventions
        self._keys = {camera_name(key): key for key, feature in self.features.items() if feature.visual}
        self.cameras = tuple(self._keys)
        self._open: tuple[Path, pq.ParquetFile] | None = None

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.episodes)

    @property
    def frames(self) -> int:
        """How many frames all episodes have."""
        return self.catalog.frames

    @cached_property
    def embodiment(self) -> Embodiment:
        """What the numbers mean.

        Raises:
            ValueError: the dataset does not say and no conventions were given; the line names what is missing.
        """
        return embodiment_of(
            self.catalog, {name: self.features[key] for name, key in self._keys.items()}, self._conventions
        )

    @cached_property
    def stats(self) -> Stats:
        """`meta/stats.json`; empty where there is none. What LeRobot wrote there is approximate (see `stats`)."""
        return from_json(read_json(self.root / STATS)) if (self.root / STATS).is_file() else {}

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """What was recorded of each episode (seed, success, ...), in order; empty dicts where nothing was."""
        rows = {
            row["episode_index"]: {"number": row["number"], **row["record"]} for row in committed_records(self.root)
        }
        return [rows.get(episode.index, {}) for episode in self.episodes]

    @property
    def columns(self) -> tuple[str, ...]:
        """Keys of everything that is no image."""
        return tuple(key for key, feature in self.features.items() if not feature.visual)

    def camera_key(self, camera: str) -> str:
        """The dataset's key of a camera's images.

        Raises:
            ValueError: there is no such camera; the nearest is named.
        """
        if camera not in self._keys:
            raise ValueError(f"{self.root} has no camera '{camera}'{nearest(camera, self.cameras)}")
        return self._keys[camera]

    def camera_feature(self, camera: str) -> Feature:
        """Shape and storage of a camera's images; errors as `camera_key`."""
        return self.features[self.camera_key(camera)]

    def episode(self, number: int, cameras: Sequence[str] | None = None) -> dict[str, Any]:
        """One episode: low-dimensional columns, images of `cameras` (all, unless given), and `task`.

        Returns:
            Arrays (N, ...), `observation.images.<camera>` (N, H, W, 3) uint8, `task` a str.

        Raises:
            ValueError: no such episode or camera; a file is damaged.
            FileNotFoundError: a file is missing.
        """
        data: dict[str, Any] = self.low_dimensional(number)
        for camera in self.cameras if cameras is None else cameras:
            data[IMAGES + camera] = np.stack(list(self.images(number, camera)))
        first = int(data["task_index"][0]) if "task_index" in data else -1
        data[TASK] = self.tasks[first] if 0 <= first < len(self.tasks) else " ".join(self._find(number).tasks[:1])
        return data

    def low_dimensional(self, number: int, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The columns of an episode that are no images, each (N, *shape), or (N,) for single numbers."""
        episode = self._find(number)
        keys = list(self.columns if keys is None else keys)
        table = self._rows(episode, keys)
        result = {}
        for key in keys:
            try:
                result[key] = from_column(table[key], self.features[key])
            except (ValueError, pa.ArrowException) as error:
                raise ValueError(f"{episode.data}: column {key} of episode {number} is damaged ({error})") from None
        return result

    def table(self, number: int, keys: Sequence[str]) -> pa.Table:
        """Columns of an episode as they are stored, a row per frame; errors as `low_dimensional`."""
        return self._rows(self._find(number), list(keys))

    def images(self, number: int, camera: str) -> Iterator[np.ndarray]:
        """The images (H, W, 3) uint8 that a camera saw in an episode, one at a time."""
        feature, key, episode = self.camera_feature(camera), self.camera_key(camera), self._find(number)
        decoded = self._from_video(episode, key) if feature.dtype == "video" else self._from_png(episode, key)
        count = 0
        for count, image in enumerate(decoded, start=1):
            if image.shape != feature.shape:
                raise ValueError(
                    f"{self.root}: {key} of episode {number}, frame {count - 1} is {image.shape}, not {feature.shape}"
                )
            yield image

    def _from_video(self, episode: Episode, key: str) -> Iterator[np.ndarray]:
        file, start = episode.videos[key]
        times = self._rows(episode, ["timestamp"])["timestamp"].to_numpy().astype(np.float64)
        try:
            yield from read_frames(file, (start + times).tolist())
        except ValueError as error:
            raise ValueError(f"episode {episode.index}: {error}") from None

    def _from_png(self, episode: Episode, key: str) -> Iterator[np.ndarray]:
        column = self._rows(episode, [key])[key]
        for frame, image in enumerate(column):
            record = image.as_py()
            data = record["bytes"]
            where = f"{episode.data}, episode {episode.index}, frame {frame}, {key}"
            if data is None:
                file = self.root / (record["path"] or "")
                if not file.is_file():
                    raise ValueError(f"{where}: the image is neither in the file nor at {file}")
                data = file.read_bytes()
            yield decode_png(data, where)

    def _rows(self, episode: Episode, keys: list[str]) -> pa.Table:
        """The rows of an episode; only its row groups are read."""
        try:
            file = self._file(episode.data)
            groups, skip, before, stop = [], 0, 0, episode.first_row + episode.length
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if before + rows > episode.first_row and before < stop:
                    groups.append(group)
                    skip = skip if len(groups) > 1 else episode.first_row - before
                before += rows
            missing = [key for key in keys if key not in file.schema_arrow.names]
            if missing:
                raise ValueError(
                    f"{episode.data} has no column '{missing[0]}'{nearest(missing[0], file.schema_arrow.names)}"
                )
            wanted = list(dict.fromkeys([*keys, "episode_index"]))
            table = file.read_row_groups(groups, columns=wanted, use_threads=False).slice(skip, episode.length)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            problem = str(error).splitlines()[0]
            raise ValueError(
                f"{episode.data} is damaged at episode {episode.index} or was cut short ({problem})"
            ) from None
        if table.num_rows != episode.length or (table["episode_index"].to_numpy() != episode.index).any():
            raise ValueError(
                f"{episode.data} does not hold episode {episode.index}'s {episode.length} frames "
                f"from row {episode.first_row} on, as the dataset's description says"
            )
        return table

    def _file(self, path: Path) -> pq.ParquetFile:
        if self._open is None or self._open[0] != path:
            if not path.is_file():
                raise FileNotFoundError(2, "missing file of the dataset", str(path))
            self._open = (path, pq.ParquetFile(path, memory_map=False))
        return self._open[1]

    def _find(self, number: int) -> Episode:
        if not 0 <= number < len(self.episodes):
            raise ValueError(f"{self.root} has episodes 0 to {len(self.episodes) - 1}, not {number}")
        return self.episodes[number]


def camera_name(key: str) -> str:
    """`observation.images.top` is seen by camera `top`, `observation.image` by `image`."""
    return key.removeprefix(IMAGES).removeprefix("observation.")
