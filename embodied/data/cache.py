"""Decode once: a dataset's images as plain uint8 files that are memory-mapped, and its numbers as arrays.

Decoding PNG or video for every window, again and again, is what makes training wait. Here every frame is decoded one
time:

    <folder>/columns/index.json, <column>.npy         everything that is no image, all episodes one after the other
    <folder>/top-96x96/index.json, frames.u8          (frames, 96, 96, 3) uint8 of camera `top`

Each of the two kinds of folder appears whole or not at all and carries a fingerprint of the dataset's files; when those
change, it is made anew. Cameras and sizes that nobody asked for are not decoded. By default it lies in `<root>/.cache`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
import torch
from torch.nn import functional as F

from embodied.data.lerobot.reader import LeRobotDataset
from embodied.files import atomic_folder, read_json, write_json
from embodied.progress import Progress

WIDE = 1024
"""Columns of more bytes per frame than this are read from the disk where they are needed."""

FORMAT = 1
"""Raised when what lies in a cache folder changes, so that older ones are made anew."""


class Cache:
    """A decoded dataset, made on first use.

    Args:
        dataset: what to decode.
        cameras: which of its cameras; all, unless given.
        size: (height, width) to scale the images to, as `embodied.processing.images.Resize` does; None keeps theirs.
        location: where to keep it; `<root>/.cache` unless given, or a folder below `~/.cache/embodied` where the
            dataset is read-only.
        processes: how many decode; 0 and 1 decode in this process.
        stream: where progress goes; None prints nothing.

    Attributes:
        folder: where it is kept.
        frames: per camera (frames, H, W, 3) uint8, memory-mapped by `map_camera`.
        columns: numeric columns over all frames, (frames, ...), in memory.
        episode_ends: (E,), the index one after each episode's last frame.

    Raises:
        ValueError: no such camera, a damaged file, or too little space: a line that names it.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        location: str | Path | None = None,
        processes: int = 0,
        stream: TextIO | None = sys.stderr,
    ) -> None:
        self.dataset = dataset
        self.cameras = tuple(dataset.cameras if cameras is None else cameras)
        self.shapes = {camera: _shape(dataset, camera, size) for camera in self.cameras}
        self.size, self._processes, self._stream = size, processes, stream
        self.folder = _writable(dataset, location, stream)
        self._fingerprint = fingerprint(dataset)
        with _locked(self.folder / ".lock"):
            self.columns = self._columns()
            for camera in self.cameras:
                if not self._fresh(self._camera_folder(camera)):
                    self._decode(camera)
        self.episode_ends = np.cumsum([episode.length for episode in dataset.episodes], dtype=np.int64)

    def camera_file(self, camera: str) -> Path:
        """The file of a camera's frames."""
        return self._camera_folder(camera) / "frames.u8"

    def _camera_folder(self, camera: str) -> Path:
        height, width = self.shapes[camera][:2]
        return self.folder / f"{camera}-{height}x{width}"

    def _fresh(self, folder: Path) -> bool:
        index = folder / "index.json"
        return index.is_file() and read_json(index).get("fingerprint") == self._fingerprint

    def _columns(self) -> dict[str, np.ndarray]:
        folder = self.folder / "columns"
        if not self._fresh(folder):
            dataset = self.dataset
            keys = [key for key in dataset.columns if dataset.features[key].dtype != "string"]
            with atomic_folder(folder) as temporary:
                _write_columns(dataset, keys, temporary)
                write_json(temporary / "index.json", {"fingerprint": self._fingerprint, "columns": keys})
        keys = read_json(folder / "index.json")["columns"]
        return {key: _load(folder / f"{key}.npy") for key in keys}

    def _decode(self, camera: str) -> None:
        dataset, shape = self.dataset, self.shapes[camera]
        needed = dataset.frames * int(np.prod(shape))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"the decoded images of camera '{camera}' need {needed / 2**30:.2f} GB in {self.folder}, which has "
                f"{free / 2**30:.2f} GB free: free space, or choose another place (data.cache) or a smaller size"
            )
        if self._stream is not None:
            print(f"decoding camera '{camera}' to {self.folder} ({needed / 2**30:.2f} GB), once", file=self._stream)
        progress = Progress(dataset.frames, "frames", stream=self._stream)
        starts = np.cumsum([0, *(episode.length for episode in dataset.episodes)])[:-1].tolist()
        with atomic_folder(self._camera_folder(camera)) as temporary:
            file = temporary / "frames.u8"
            _reserve(file, needed)
            if self._processes > 1:
                # spawned: a forked child would inherit locks of threads that it does not have
                with ProcessPoolExecutor(self._processes, mp_context=get_context("spawn")) as pool:
                    jobs = [
                        pool.submit(_decode_episode, dataset.root, number, camera, shape, file, start)
                        for number, start in enumerate(starts)
                    ]
                    try:
                        for job in as_completed(jobs):
                            progress.advance(job.result())
                    except BaseException:
                        pool.shutdown(cancel_futures=True)
                        raise
            else:
                for number, start in enumerate(starts):
                    progress.advance(_decode_episode(dataset, number, camera, shape, file, start))
            index = {"fingerprint": self._fingerprint, "camera": camera, "shape": [dataset.frames, *shape]}
            write_json(temporary / "index.json", index)


def fingerprint(dataset: LeRobotDataset) -> str:
    """Changes when a file of the dataset does: from the names, sizes and modification times of all its files."""
    files = {dataset.root / "meta/info.json", *(episode.data for episode in dataset.episodes)}
    files |= {file for episode in dataset.episodes for file, _ in episode.videos.values()}
    files |= {*(dataset.root / "meta/episodes").rglob("*.parquet"), *(dataset.root / "meta").glob("episodes.jsonl")}
    digest = hashlib.sha256(str(FORMAT).encode())
    for file in sorted(files):
        try:
            status = file.stat()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "missing file of the dataset", str(file)) from None
        digest.update(
            json.dumps([file.relative_to(dataset.root).as_posix(), status.st_size, status.st_mtime_ns]).encode()
        )
    return digest.hexdigest()


def _write_columns(dataset: LeRobotDataset, keys: Sequence[str], folder: Path) -> None:
    """Each column as an .npy file, one episode in memory at a time (depth pictures are many times the rest)."""
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        for number in range(len(dataset)):
            for key, values in dataset.low_dimensional(number, keys).items():
                if key not in files:
                    files[key] = stack.enter_context((folder / f"{key}.npy").open("wb"))
                    header = np.lib.format.header_data_from_array_1_0(values)
                    shape = (dataset.frames, *values.shape[1:])
                    np.lib.format.write_array_header_1_0(files[key], {**header, "fortran_order": False, "shape": shape})
                files[key].write(np.ascontiguousarray(values).data)


def _load(file: Path) -> np.ndarray:
    """One of our own arrays; pictures (depth, categories) stay on the disk."""
    # allow_pickle=False refuses anything but plain numbers, so that nothing can run
    mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    return mapped if mapped.nbytes > WIDE * len(mapped) else np.array(mapped)


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (N, H, W, 3) uint8 to (N, height, width, 3), antialiased bilinear."""
    if images.shape[1:3] == (height, width):
        return images
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    scaled = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def _decode_episode(
    source: LeRobotDataset | Path, number: int, camera: str, shape: tuple[int, int, int], file: Path, start: int
) -> int:
    """Decode an episode into its place in the file; returns how many frames that were."""
    dataset = source if isinstance(source, LeRobotDataset) else LeRobotDataset(source)
    size = int(np.prod(shape))
    handle = os.open(file, os.O_WRONLY)
    count = 0
    try:
        # pwrite and no memory map: a full disk is an error here, and would kill the process there
        for image in dataset.images(number, camera):
            scaled = resize(image[None], *shape[:2])[0]
            os.pwrite(handle, np.ascontiguousarray(scaled).data, (start + count) * size)
            count += 1
    finally:
        os.close(handle)
    return count


def _shape(dataset: LeRobotDataset, camera: str, size: tuple[int, int] | None) -> tuple[int, int, int]:
    height, width, channels = dataset.camera_feature(camera).shape
    if size is not None:
        height, width = size
        if height < 1 or width < 1:
            raise ValueError(f"images are cached at a height and width of at least 1, got {height} x {width}")
    return height, width, channels


def _reserve(file: Path, size: int) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        os.truncate(handle, size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.parent)) from None
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot reserve
            raise
    finally:
        os.close(handle)


def _writable(dataset: LeRobotDataset, location: str | Path | None, stream: TextIO | None) -> Path:
    """The cache's folder, made."""
    if location is not None:
        folder = Path(location)
        try:
            _try_writing(folder)
        except OSError as error:
            raise ValueError(
                f"the cache cannot be written to {folder} ({error.strerror}): choose another place"
            ) from None
        return folder
    folder = dataset.root / ".cache"
    try:
        _try_writing(folder)
        return folder
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        path = str(dataset.root.resolve())
        other = home / "embodied" / f"{dataset.root.name}-{hashlib.sha256(path.encode()).hexdigest()[:12]}"
        if stream is not None:
            print(f"{dataset.root} cannot be written ({error.strerror}): its images are cached in {other}", file=stream)
        _try_writing(other)
        return other


def _try_writing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{os.getpid()}"
    probe.touch()
    probe.unlink()


@contextmanager
def _locked(file: Path) -> Iterator[Any]:
    """One process at a time: of several that train together, one decodes and the others find it done."""
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: two may then decode the same, and the later one's is kept
            yield
            return
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
