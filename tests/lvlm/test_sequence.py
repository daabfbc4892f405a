"""The mask of a packed sequence, against a plain double loop over its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.lvlm.sequence import Segment, pack

segment_lists = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(segment_lists, st.sampled_from(["bidirectional", "causal", "stepwise"]), st.integers(0, 10_000))
def test_the_mask_is_what_it_says(lengths, attention, seed):
    g = torch.Generator().manual_seed(seed)
    segments = [
        Segment(torch.randn(2, n, 3, generator=g), torch.rand(2, n, generator=g) > 0.3, step)
        for step, n in enumerate(lengths)
    ]
    packed = pack(segments, attention)
    steps = [step for step, n in enumerate(lengths) for _ in range(n)]
    present = torch.cat([s.present for s in segments], 1)
    for row in range(2):
        for i in range(len(steps)):
            assert packed.positions[row, i] == max(int(present[row, : i + 1].sum()) - 1, 0)
            for j in range(len(steps)):
                allowed = {"bidirectional": True, "causal": j <= i, "stepwise": steps[j] <= steps[i]}[attention]
                assert packed.mask[row, i, j] == (i == j or (allowed and bool(present[row, j])))


def test_a_history_out_of_order_is_refused():
    one, two = (Segment(torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), step) for step in (1, 0))
    with pytest.raises(ValueError, match="ordered by step"):
        pack([one, two], "stepwise")
