"""Filters that leave out what was there before: exactly, by how pictures look, or by the words that texts share.

Each remembers so many samples at most, and forgets the oldest: memory is bounded, and duplicates are found within that
many samples of each other.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict, defaultdict
from typing import Any, Literal, get_args

from embodied.data.multimodal.filters.base import Filter, Opened, check_said
from embodied.data.multimodal.filters.text import words_of
from embodied.data.multimodal.media import read_bytes

Of = Literal["text", "images", "both"]
Hash = Literal["phash", "dhash", "average_hash"]


class ExactDuplicates(Filter):
    """Leaves out samples that are the same as an earlier one: a digest of 16 bytes is kept of each.

    Args:
        of: what has to be the same: the messages' `text`, the `images` (the bytes of their files), or `both`.
        remember: how many samples.

    Raises:
        ValueError: a setting that does not exist.
    """

    def __init__(self, of: Of = "both", remember: int = 10_000_000) -> None:
        if of not in get_args(Of):
            raise ValueError(f"ExactDuplicates: of is one of {', '.join(get_args(Of))}, got {of!r}")
        self.of, self._seen = of, _Window(remember, "ExactDuplicates")

    def refuse(self, opened: Opened) -> str | None:
        if self.of == "images" and not opened.sample.images():
            return None
        return "exact duplicate" if self._digest(opened) in self._seen else None

    def remember(self, opened: Opened) -> None:
        self._seen.add(self._digest(opened))

    def _digest(self, opened: Opened) -> bytes:
        found = hashlib.blake2b(digest_size=16)
        for message in opened.sample.messages:
            for part in message["content"]:
                if part["type"] == "text" and self.of != "images":
                    found.update(f"\0{message['role']}\0{part['text'].strip()}".encode())
                if part["type"] == "image" and self.of != "text":
                    found.update(b"\0image\0" + hashlib.blake2b(read_bytes(part["image"])).digest())
                if part["type"] == "video" and self.of != "text":
                    found.update(f"\0video\0{part['video']}".encode())
        return found.digest()


class ImageNearDuplicates(Filter):
    """Leaves out samples all of whose pictures look like earlier ones (perceptual hashes by `imagehash`).

    Two pictures look alike if their hashes of size^2 bits differ in at most `distance` bits. Candidates are found
    without comparing all pairs: of distance + 1 bands of a hash, at least one is equal.

    Args:
        distance: bits.
        hash: `phash` (by cosine transform), `dhash` (by gradients), `average_hash`.
        size: side of the hash, in bits.
        several_per_image: whether the very same file may come again, as with several questions about one picture.
        remember: how many pictures.

    Raises:
        ValueError: a setting that does not exist, or a distance that no band could tell.
    """

    def __init__(
        self,
        distance: int = 4,
        hash: Hash = "phash",
        size: int = 8,
        several_per_image: bool = True,
        remember: int = 1_000_000,
    ) -> None:
        if hash not in get_args(Hash):
            raise ValueError(f"ImageNearDuplicates: hash is one of {', '.join(get_args(Hash))}, got {hash!r}")
        if not 0 <= distance < size * size:
            raise ValueError(f"ImageNearDuplicates: distance is 0 to {size * size - 1} bits, got {distance}")
        self.distance, self.hash, self.size, self.several = distance, hash, size, several_per_image
        self._kept: OrderedDict[bytes, int] = OrderedDict()  # the reference's digest -> hash
        self._bands: list[dict[int, set[bytes]]] = [defaultdict(set) for _ in range(distance + 1)]
        self._most = _positive(remember, "ImageNearDuplicates")

    def refuse(self, opened: Opened) -> str | None:
        if not opened.sample.images():
            return None
        codes = [self._code(image) for image in opened.images()]
        references = [_digest(reference) for reference in opened.sample.images()]
        alike = all(self._known(code, own) for code, own in zip(codes, references, strict=True))
        return "similar image" if alike else None

    def remember(self, opened: Opened) -> None:
        for reference, image in zip(opened.sample.images(), opened.images(), strict=True):
            key = _digest(reference)
            if key not in self._kept:
                self._kept[key] = code = self._code(image)
                for band, value in zip(self._bands, self._parts(code), strict=True):
                    band[value].add(key)
        while len(self._kept) > self._most:
            key, code = self._kept.popitem(last=False)
            for band, value in zip(self._bands, self._parts(code), strict=True):
                band[value].discard(key)
                if not band[value]:
                    del band[value]

    def _known(self, code: int, own: bytes) -> bool:
        if own in self._kept:
            return not self.several
        near = {key for band, v in zip(self._bands, self._parts(code), strict=True) for key in band.get(v, ())}
        return any((self._kept[key] ^ code).bit_count() <= self.distance for key in near)

    def _code(self, image: Any) -> int:
        import imagehash

        return int(str(getattr(imagehash, self.hash)(image, hash_size=self.size)), 16)

    def _parts(self, code: int) -> list[int]:
        bits, bands = self.size * self.size, self.distance + 1
        edges = [bits * i // bands for i in range(bands + 1)]
        return [code >> low & ((1 << high - low) - 1) for low, high in itertools.pairwise(edges)]


class TextNearDuplicates(Filter):
    """Leaves out samples whose text shares most of its runs of words with an earlier one (MinHash LSH, `datasketch`).

    Args:
        threshold: of the estimated Jaccard similarity of the sets of runs.
        length: words in a run.
        permutations: of a MinHash: more are more exact and take more memory (8 bytes each per sample).
        of: what is compared: the assistant's `answer`s, or `all` text.
        remember: how many samples.
        seed: of the permutations.

    Raises:
        ValueError: a threshold that is none, or too few permutations to estimate by.
    """

    def __init__(
        self,
        threshold: float = 0.8,
        length: int = 5,
        permutations: int = 128,
        of: str = "all",
        remember: int = 1_000_000,
        seed: int = 1,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"TextNearDuplicates: threshold is above 0 and at most 1, got {threshold}")
        if length < 1:
            raise ValueError(f"TextNearDuplicates: length is at least 1, got {length}")
        if permutations < 32:
            raise ValueError(f"TextNearDuplicates: permutations is at least 32, got {permutations}")
        from datasketch import MinHashLSH

        self.threshold, self.length, self.permutations, self.seed = threshold, length, permutations, seed
        self.of, self._most = check_said(of, "TextNearDuplicates"), _positive(remember, "TextNearDuplicates")
        # The index only finds candidates. Above this threshold it has a single band, which datasketch refuses.
        self._index = MinHashLSH(threshold=min(threshold, 0.9), num_perm=permutations)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._next = 0
        self._last: tuple[str, Any] = ("", None)

    def refuse(self, opened: Opened) -> str | None:
        sketch = self._sketch(opened)
        near = self._index.query(sketch)
        return "similar text" if any(self._kept[k].jaccard(sketch) >= self.threshold for k in near) else None

    def remember(self, opened: Opened) -> None:
        sketch = self._sketch(opened)
        self._index.insert(self._next, sketch)
        self._kept[self._next] = sketch
        self._next += 1
        while len(self._kept) > self._most:
            self._index.remove(self._kept.popitem(last=False)[0])

    def _sketch(self, opened: Opened) -> Any:
        from datasketch import MinHash

        text = opened.said(self.of)
        if self._last[1] is None or self._last[0] != text:
            words = words_of(text)
            runs = {" ".join(words[i : i + self.length]) for i in range(max(len(words) - self.length + 1, 1))}
            sketch = MinHash(num_perm=self.permutations, seed=self.seed)
            sketch.update_batch([run.encode() for run in sorted(runs)])
            self._last = (text, sketch)
        return self._last[1]


class _Window:
    """The last so many of some keys."""

    def __init__(self, most: int, where: str) -> None:
        self._most, self._keys = _positive(most, where), OrderedDict[bytes, None]()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def add(self, key: bytes) -> None:
        self._keys[key] = None
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)


def _digest(reference: str) -> bytes:
    return hashlib.blake2b(reference.encode(), digest_size=16).digest()


def _positive(remember: int, where: str) -> int:
    if remember < 1:
        raise ValueError(f"{where}: remember is at least 1 sample, got {remember}")
    return remember
