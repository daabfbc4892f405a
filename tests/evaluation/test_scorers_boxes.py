"""Boxes are read from answers in every notation, and counted by their overlap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied.evaluation.scorers.base import Record
from embodied.evaluation.scorers.boxes import BoxAccuracy, intersection_over_union, read_box


@pytest.mark.parametrize(
    "said, box",
    [
        ("[10, 20, 30, 40]", (10, 20, 30, 40)),
        ("The box is [10,20,30,40].", (10, 20, 30, 40)),
        ("(10,20),(30,40)", (10, 20, 30, 40)),
        ("<box>(10,20),(30,40)</box>", (10, 20, 30, 40)),
        ("[[10, 20, 30, 40]]", (10, 20, 30, 40)),
        ("{<10><20><30><40>}", (10, 20, 30, 40)),
        ("10 20 30 40", (10, 20, 30, 40)),
        ("[0.1, 0.20, .3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("[30, 40, 10, 20]", (10, 20, 30, 40)),  # corners in the other order
        ("there are 2: [10, 20, 30, 40] and [1, 2, 3, 4]", (10, 20, 30, 40)),  # the first box counts
        ("2 things at 10 20 30 40", None),
        ("[10, 20, 30]", None),
        ("nowhere", None),
        ("", None),
    ],
)
def test_the_box_that_an_answer_gives(said, box):
    assert read_box(said) == box


@pytest.mark.parametrize(
    "a, b, overlap",
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (0, 0, 10, 5), 0.5),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_overlap_is_intersection_over_union(a, b, overlap):
    assert intersection_over_union(a, b) == pytest.approx(overlap)


edge = st.floats(0, 100, allow_nan=False)
boxes = st.tuples(edge, edge, edge, edge).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_a_fraction(a, b):
    assert 0 <= intersection_over_union(a, b) <= 1
    assert intersection_over_union(a, b) == intersection_over_union(b, a)


def one(said, box, scorer, **more):
    return scorer.score([Record("1", said, {"box": box, **more})]).samples[0]["iou"]


def test_numbers_mean_what_the_model_was_trained_to_give():
    box, size = [100, 50, 200, 100], {"width": 400, "height": 200}
    assert one("[100, 50, 200, 100]", box, BoxAccuracy("pixels"), **size) == pytest.approx(1)
    assert one("[250, 250, 500, 500]", box, BoxAccuracy("1000"), **size) == pytest.approx(1)
    assert one("[0.25, 0.25, 0.5, 0.5]", box, BoxAccuracy("1"), **size) == pytest.approx(1)
    assert one("[249.75, 249.75, 499.5, 499.5]", box, BoxAccuracy("999"), **size) == pytest.approx(1)
    assert one("[100, 50, 100, 50]", [100, 50, 100, 50], BoxAccuracy("pixels", form="xywh"), **size) == pytest.approx(0)
    assert one("[100, 50, 200, 100]", [100, 50, 100, 50], BoxAccuracy("pixels", form="xywh"), **size) == pytest.approx(
        1
    )


def test_half_an_overlap_counts_and_an_answer_without_a_box_is_wrong():
    box = [0, 0, 10, 10]
    said = ["[0,0,10,5]", "[0,0,10,4.9]", "no idea"]
    scores = BoxAccuracy("pixels").score([Record(str(i), text, {"box": box}) for i, text in enumerate(said)])
    assert [sample["score"] for sample in scores.samples] == [1, 0, 0]
    assert scores.headline[0] == "acc@0.5" and scores.headline[1].value == pytest.approx(1 / 3)
    assert scores.metrics["mean_iou"].value == pytest.approx((0.5 + 0.49 + 0) / 3)
    assert scores.notes == ["1 answers hold no box and count as wrong"]


@pytest.mark.parametrize(
    "reference, says",
    [
        ({"box": [1, 2, 3]}, "four numbers are needed"),
        ({"box": [1, 2, 3, "4"]}, "four numbers are needed"),
        ({"box": [1, 2, 3, 4]}, "no width and height"),
        ({}, "has no box"),
    ],
)
def test_a_reference_without_a_box_or_a_size_is_named(reference, says):
    with pytest.raises(ValueError, match=f"sample 1 .*{says}"):
        BoxAccuracy("999").score([Record("1", "[1,2,3,4]", reference)])


@pytest.mark.parametrize("wrong", [{"coordinates": "500"}, {"form": "yxyx"}, {"threshold": 0}])
def test_a_setting_that_does_not_exist_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BoxAccuracy(**wrong)
