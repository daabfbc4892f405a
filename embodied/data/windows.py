"""Windows over a cached dataset: past frames and the chunk of actions that follows, as raw batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from embodied.data.cache import Cache
from embodied.data.frames import MappedFrames
from embodied.spec import ACTION, IMAGES, STATE, TASK, Embodiment


class Windows:
    """One window per frame t: images and states of t - T + 1 ... t, actions of t ... t + H - 1, inside t's episode.

    Before an episode's first frame that frame is repeated, after its last the last action; `observation_is_pad` and
    `action_is_pad` mark those. With `every_step`, each of the T frames comes with its own chunk: actions (T, H, A) and
    `action_is_pad` (T, H), which is True for all of a frame that does not exist.

    Args:
        cache: the decoded dataset.
        cameras: which cameras; all that are cached, unless given.
        history: T.
        horizon: H.
        episodes: numbers of the episodes to draw from; all, unless given.
        observations: further columns to see beside the images; `observation.state` where the dataset has one, unless
            given.
        resident: bytes of images, per camera, that may be in this process's memory.
        every_step: whether a window holds the chunk of each of its frames, not of the latest alone.

    Attributes:
        columns: actions and the observed columns of the chosen episodes, (N, dims) float32: to take statistics of.
        episode_ends: (E,), the index in `columns` one after each episode's last frame.
        tasks: the instruction of each task index.
        fps: frames per second.

    Raises:
        ValueError: a camera that is not cached, a column or an episode that is not there, or a size that is not
            positive.
    """

    def __init__(
        self,
        cache: Cache,
        cameras: Sequence[str] | None = None,
        history: int = 1,
        horizon: int = 1,
        episodes: Sequence[int] | None = None,
        observations: Sequence[str] | None = None,
        resident: int = 128 * 2**20,
        every_step: bool = False,
    ) -> None:
        dataset = cache.dataset
        for name, size in {"history": history, "horizon": horizon}.items():
            if size < 1:
                raise ValueError(f"Windows: {name} must be at least 1, got {size}")
        cameras = tuple(cache.cameras if cameras is None else cameras)
        for camera in cameras:
            if camera not in cache.cameras:
                raise ValueError(f"camera '{camera}' is not among the cached ones: {', '.join(cache.cameras)}")
        chosen = _episodes(episodes, len(dataset), str(dataset.root))
        self.cache, self.history, self.horizon, self.episodes = cache, history, horizon, chosen
        self.every_step, self._further = every_step, tuple[str, ...]()
        self.tasks, self.fps, self.cameras = list(dataset.tasks), dataset.fps, cameras
        starts = np.concatenate([[0], cache.episode_ends])[:-1][chosen]
        lengths = cache.episode_ends[chosen] - starts
        self.episode_ends = np.cumsum(lengths)
        self._offset = np.repeat(starts - (self.episode_ends - lengths), lengths)  # from our rows to the cache's
        self._first = np.repeat(self.episode_ends - lengths, lengths)
        self._last = np.repeat(self.episode_ends - 1, lengths)
        rows = np.arange(len(self._offset)) + self._offset
        if observations is None:
            observations = (STATE,) if STATE in cache.columns else ()
        missing = [key for key in (*observations, ACTION) if key not in cache.columns]
        if missing:
            raise ValueError(f"{dataset.root} has no numeric column '{missing[0]}': it has {', '.join(cache.columns)}")
        self.observations = tuple(observations)
        self.columns = {key: _two_dimensional(cache.columns[key][rows]) for key in (*self.observations, ACTION)}
        self._tensors = {key: torch.from_numpy(values) for key, values in self.columns.items()}
        self._task = cache.columns["task_index"][rows]
        self._frames = {
            camera: MappedFrames(
                cache.camera_file(camera), (int(cache.episode_ends[-1]), *cache.shapes[camera]), resident
            )
            for camera in cameras
        }

    def __len__(self) -> int:
        return len(self._offset)

    @property
    def embodiment(self) -> Embodiment:
        """The body, seen through the chosen cameras at the dataset's own image size."""
        return self.cache.dataset.embodiment.with_cameras(self.cameras)

    def observe(self, keys: Iterable[str]) -> None:
        """From now on give these columns, too, as they are (depth, poses: what a map reads); they stay on disk.

        Raises:
            ValueError: a column that is not there.
        """
        wanted = tuple(key for key in keys if key not in self.observations)
        for key in wanted:
            if key not in self.cache.columns:
                have = ", ".join(key for key in self.cache.columns if key.startswith("observation."))
                raise ValueError(f"{self.cache.dataset.root} has no '{key}', which the model reads: it has {have}")
        self._further = wanted

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """The windows of frames `indices` (B,), stacked as `embodied.processing.base` lists it.

        Raises:
            ValueError: an index that is not there.
        """
        return self._gathered(self._checked(indices), self.history)

    def where(self, index: int) -> str:
        """Where a sample is found in the data."""
        episode = int(np.searchsorted(self.episode_ends, index, side="right"))
        frame = index - (self.episode_ends[episode - 1] if episode else 0)
        return f"{index} (episode {self.episodes[episode]}, frame {frame})"

    def _gathered(self, at: np.ndarray, history: int) -> dict[str, Any]:
        past, before = self._past(at, history)
        future, ended = self._future(at, past, before)
        batch: dict[str, Any] = self._images(past)
        batch |= {key: self._tensors[key][torch.from_numpy(past)] for key in self.observations}
        batch |= self._columns_at(past)
        batch["observation_is_pad"] = torch.from_numpy(before)
        batch[ACTION] = self._tensors[ACTION][torch.from_numpy(future)]
        batch["action_is_pad"] = torch.from_numpy(ended)
        batch[TASK] = [self.tasks[i] for i in self._task[at]]
        return batch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One window, without the batch axis. Where it needs no padding, images and numbers are views, not copies."""
        at = self._checked([index])
        past, before = self._past(at, self.history)
        first = int(past[0, 0])
        if before.any():
            item = self._images(past[0])
            item |= {key: self._tensors[key][torch.from_numpy(past[0])] for key in self.observations}
        else:
            start = first + int(self._offset[first])
            item = {
                IMAGES + camera: torch.from_numpy(frames.view(start, start + self.history))
                for camera, frames in self._frames.items()
            }
            item |= {key: self._tensors[key][first : index + 1] for key in self.observations}
        item |= self._columns_at(past[0])
        future, ended = self._future(at, past, before)
        item["observation_is_pad"] = torch.from_numpy(before[0])
        whole = not self.every_step and not ended.any()
        actions = self._tensors[ACTION]
        item[ACTION] = actions[index : index + self.horizon] if whole else actions[torch.from_numpy(future[0])]
        item["action_is_pad"] = torch.from_numpy(ended[0])
        item[TASK] = self.tasks[self._task[index]]
        return item

    def _images(self, rows: np.ndarray) -> dict[str, Any]:
        at = rows + self._offset[rows]
        return {IMAGES + camera: torch.from_numpy(frames.gather(at)) for camera, frames in self._frames.items()}

    def _columns_at(self, rows: np.ndarray) -> dict[str, Any]:
        at = rows + self._offset[rows]
        return {key: torch.from_numpy(np.asarray(self.cache.columns[key][at])) for key in self._further}

    def _past(self, at: np.ndarray, history: int) -> tuple[np.ndarray, np.ndarray]:
        past = at[:, None] + np.arange(1 - history, 1)
        first = self._first[at][:, None]
        return np.maximum(past, first), past < first

    def _future(self, at: np.ndarray, past: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the chunks' actions and which of them are padding: (B, H), or (B, T, H) with `every_step`."""
        start, missing = (past, before) if self.every_step else (at, np.zeros(len(at), bool))
        future = start[..., None] + np.arange(self.horizon)
        last = self._last[at].reshape(-1, *(1,) * (future.ndim - 1))
        return np.minimum(future, last), (future > last) | missing[..., None]

    def _checked(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        at = np.asarray(indices, np.int64)
        if at.ndim != 1 or (at < 0).any() or (at >= len(self)).any():
            raise ValueError(f"samples are numbered 0 to {len(self) - 1}, asked for {indices}")
        return at


def _episodes(chosen: Sequence[int] | None, count: int, root: str) -> np.ndarray:
    numbers = np.arange(count) if chosen is None else np.asarray(list(chosen), np.int64)
    if len(numbers) == 0 or (numbers < 0).any() or (numbers >= count).any():
        raise ValueError(f"{root} has episodes 0 to {count - 1}; asked for {numbers.tolist()}")
    if len(np.unique(numbers)) < len(numbers):
        raise ValueError(f"an episode is asked for twice: {numbers.tolist()}")
    return numbers


def _two_dimensional(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)
