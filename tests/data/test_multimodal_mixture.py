"""Which samples a step sees depends on seed and step alone, shares are exact, broken samples have fixed stand-ins."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.data.multimodal import BrokenSample, Sample, message
from embodied.data.multimodal.mixture import SampleMixture
from embodied.data.multimodal.readers.base import Reader


class Numbers(Reader):
    """So many samples, some of them broken."""

    def __init__(self, name, size, broken=()):
        super().__init__(name)
        self.size, self.broken = size, set(broken)

    def __len__(self):
        return self.size

    def read(self, index):
        if index in self.broken:
            raise BrokenSample("missing image", "the image is missing", f"{self.name}.json", index)
        return Sample(str(index), [message("user", f"{self.name} {index}")], self.name)


def mixture(sizes, weights=None, batch_size=4, seed=0, **kwargs):
    return SampleMixture({n: Numbers(n, size) for n, size in sizes.items()}, weights, batch_size, seed, **kwargs)


def seen(one, steps):
    return [(sample.source, sample.id) for step in steps for sample in one.samples(step)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(1, 9))
def test_any_step_is_the_same_for_whoever_starts_there(seed, step, batch_size):
    make = lambda: mixture({"a": 7, "b": 30}, {"a": 1, "b": 2.5}, batch_size, seed)  # noqa: E731
    through = make()
    for earlier in range(step):
        through.places(earlier)
    assert seen(make(), [step]) == seen(through, [step]) == [(n, str(i)) for n, i in make().places(step)]


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 20), st.integers(1, 9), st.integers(0, 99))
def test_each_dataset_has_its_share_of_the_rows_to_within_one(weight, batch_size, seed):
    counts = Counter(name for name, _ in seen(mixture({"a": 7, "b": 30}, {"a": weight}, batch_size, seed), range(20)))
    assert abs(counts["a"] - 20 * batch_size * weight / (weight + 1)) <= 1


def test_without_weights_every_sample_is_seen_equally_often():
    counts = Counter(seen(mixture({"a": 8, "b": 24}, batch_size=4), range(3 * 32 // 4)))
    assert len(counts) == 32 and set(counts.values()) == {3}


def test_another_seed_is_another_order():
    assert seen(mixture({"a": 50}), range(5)) != seen(mixture({"a": 50}, seed=1), range(5))


def test_rows_of_a_process_are_those_of_the_whole_batch():
    whole = mixture({"a": 7, "b": 30}, batch_size=6)
    assert whole.samples(3, [0, 2, 4]) + whole.samples(3, [1, 3, 5]) == [
        whole.samples(3)[r] for r in (0, 2, 4, 1, 3, 5)
    ]
    assert len(whole) == 37


def test_a_broken_sample_stops_the_run_or_has_the_same_stand_in_each_time():
    sources = {"a": Numbers("a", 6, broken={2, 3, 5})}
    with pytest.raises(BrokenSample, match=r"a\.json, sample '\d'"):
        seen(SampleMixture(sources, batch_size=6), [0])
    skipping = SampleMixture(sources, batch_size=6, on_error="skip")
    first = seen(skipping, [0, 1])
    assert Counter(first) == {("a", "4"): 6, ("a", "0"): 4, ("a", "1"): 2}  # 2 and 3 become 4, and 5 becomes 0
    assert skipping.faults.total == 3 and skipping.faults.files == {"a.json": 3}
    assert first == seen(SampleMixture(sources, batch_size=6, on_error="skip"), [0, 1])


def test_a_dataset_of_broken_samples_ends_in_one_line():
    broken = SampleMixture({"a": Numbers("a", 3, broken={0, 1, 2})}, on_error="skip")
    with pytest.raises(ValueError, match=r"no usable sample in 'a'.*3 missing image \(a\.json: 3\)"):
        broken.samples(0)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: mixture({}), "at least one source"),
        (lambda: mixture({"a": 0}), "'a' of the mixture has no samples"),
        (lambda: mixture({"llava": 3}, {"lava": 1}), "'lava', which is no source; did you mean 'llava'"),
        (lambda: mixture({"a": 3}, {"a": -1}), "must be positive"),
        (lambda: mixture({"a": 3}, batch_size=0), "batch_size must be at least 1"),
        (lambda: mixture({"a": 3}, on_error="drop"), "on_error is raise"),
    ],
)
def test_a_mistake_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
