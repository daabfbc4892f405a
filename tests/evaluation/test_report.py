"""The report is one page that says what was measured, cannot be broken by what it shows, and needs nothing else."""

import re
from html.parser import HTMLParser

import pytest

from embodied.evaluation.page import duration, histogram, number, ranges
from embodied.evaluation.report import report, warnings, write_report
from embodied.evaluation.results import EpisodeRecord, write_eval_info
from embodied.spec import ActionSpec, Camera, Embodiment, StateSpec

ARM = Embodiment(
    "arm",
    ActionSpec(("x", "grip"), ("m", "1"), (-1.0, -1.0), (1.0, 1.0), gripper=1, gripper_closed=-1),
    StateSpec(("x",), ("m",)),
    (Camera("front", 96, 96, "mujoco:shadow=0"),),
    20.0,
)
EVIL = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Elements and text of a page; refuses one whose tags do not match."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "line", "rect", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data + " "

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def info_of(tmp_path, records, **changes):
    known = {"policy": "runs/a", "env": {"name": "lab/push"}, "embodiment": ARM, "config": {"seed": 3}, "eval_s": 75.0}
    return write_eval_info(tmp_path, records, **(known | changes))


def episodes(n=20, task="push", failed=(3, 7), **more):
    return [EpisodeRecord(task, 100 + i, i not in failed, 1.5 * i, 1.0, 40 + i, "lab", **more) for i in range(n)]


def test_the_page_says_what_was_measured(tmp_path):
    info_of(tmp_path, episodes(), command="embodied-eval policy=runs/a episodes=20", num_envs=2)
    page = Page(write_report(tmp_path).read_text())
    for expected in (
        "90.0 % ",
        "18 of 20 episodes",
        "100–119",
        "embodied-eval policy=runs/a episodes=20",
        "1 min 15 s",
    ):
        assert expected in re.sub(r"\s+", " ", page.text), expected
    assert "grip: -1 closes" in page.text and "mujoco:shadow=0" in page.text and '"seed": 3' in page.text


def test_there_is_a_tile_per_episode_and_a_row_per_failure(tmp_path):
    page = Page(report(info_of(tmp_path, episodes())))
    tiles = [e for e in page.all("span") if "ep" in e.get("class", "").split()]
    assert len(tiles) == 20 and sum("fail" in e["class"] for e in tiles) == 2
    assert page.text.count("out of steps") + page.text.count("ended early") == 2


def test_videos_are_referenced_beside_the_page(tmp_path):
    records = episodes(2, failed=(), video="videos/odd name #1?.mp4")
    sources = [v["src"] for v in Page(report(info_of(tmp_path, records))).all("video")]
    assert sources == ["./videos/odd%20name%20%231%3F.mp4#t=0.01"] * 2
    hostile = episodes(1, failed=(), video="javascript:alert(1)")
    for attrs in Page(report(info_of(tmp_path, hostile))).all("a"):
        assert attrs["href"].startswith("./")


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    source = report(info_of(tmp_path, [*episodes(), *episodes(task="pull", video="videos/a.mp4")]))
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|url\(|@import""", source)
    assert not Page(source).all("link") and not Page(source).all("iframe")


def test_text_from_a_result_never_becomes_part_of_the_page(tmp_path):
    body = Embodiment(EVIL, ARM.action, ARM.state, (Camera(EVIL, 1, 1, EVIL),), 1.0)
    records = episodes(3, EVIL, failed=(0,), instruction=EVIL, video=f"videos/{EVIL}.mp4", error=EVIL)
    records += episodes(3, "$body ${title}", failed=(0,))
    info = info_of(
        tmp_path, records, policy=EVIL, env={"name": EVIL}, embodiment=body, config={EVIL: EVIL}, command=EVIL
    )
    source = report(info)
    assert len(Page(source).all("script")) == 1 and "alert(1)</script>" not in source
    assert "$body ${title}" in Page(source).text


def test_several_tasks_are_charted_best_first(tmp_path):
    records = [
        *episodes(10, "push", failed=(1, 2, 3)),
        *episodes(10, "pull", failed=()),
        *episodes(10, "turn", failed=(1,)),
    ]
    source = report(info_of(tmp_path, records))
    names = re.findall(r'<span class="name">(\w+)</span>', source)
    assert names == ["pull", "turn", "push"]
    assert "Mean over tasks, each weighing the same: 86.7 %" in Page(source).text


@pytest.mark.parametrize("n", [1, 5, 1000])
def test_any_number_of_episodes_makes_a_page(tmp_path, n):
    source = report(info_of(tmp_path, [EpisodeRecord("push", i, i % 2 == 0, 0.0, 0.0, 10, "lab") for i in range(n)]))
    assert Page(source).text and len(source) < 500_000


def test_a_result_without_embodiment_or_finite_rewards_makes_a_page(tmp_path):
    records = [EpisodeRecord("push", 0, True, float("nan"), float("nan"), 0)]
    assert Page(report(info_of(tmp_path, records, embodiment=None, config={}, command=None))).text


def test_the_reader_is_warned(tmp_path):
    def said(records):
        return " ".join(warnings(info_of(tmp_path, records)))

    assert "between 57 and 100 %" in said(episodes(5, failed=()))
    assert warnings(info_of(tmp_path, episodes(200, failed=()))) == []
    assert "not finite" in said(episodes(200, nan_actions=1))
    assert "clipped" in said(episodes(200, clipped_actions=30))
    assert "clipped" not in said(episodes(200, clipped_actions=0))
    assert "could not be finished" in said(episodes(200, error="the simulator broke"))
    assert "died" in said(episodes(200, retries=1))


def test_clipped_and_broken_actions_are_shown_however_few(tmp_path):
    records = [*episodes(9), EpisodeRecord("push", 99, False, 0.0, 0.0, 10, "lab", clipped_actions=1, nan_actions=1)]
    info = info_of(tmp_path, records)
    for summary in (info["overall"], next(iter(info["per_group"].values())), info["per_task"][0]):
        assert (summary["clipped_actions"], summary["nan_actions"]) == (1, 1)
    steps = sum(record.length for record in records)
    said = " ".join(Page(report(info)).text.split())
    assert f"Actions clipped 1 of {steps}" in said and "Actions not finite 1" in said


def test_figures_read_well():
    assert [number(x) for x in (1234.5, 2.0, 0.0, None)] == ["1,234.5", "2", "0", "–"]
    assert number(1000, 0) == "1,000"
    assert [duration(s) for s in (0.4, 59.0, 75.0, 3725.0, None)] == ["0.4 s", "59 s", "1 min 15 s", "1 h 2 min", "–"]
    assert ranges([3, 1, 2, 7, 9, 10]) == "1–3, 7, 9–10"
    assert ranges(range(0, 20, 2), most=2) == "0, 2 and 8 more ranges"


def test_a_histogram_counts_every_episode_once():
    source = histogram("Length", [1, 2, 2, 3], [9, 10], "steps")
    heights = [float(h) for h in re.findall(r'<rect class="good"[^>]*height="([\d.]+)"', source)]
    failures = [float(h) for h in re.findall(r'<rect class="bad"[^>]*height="([\d.]+)"', source)]
    assert sum(heights) / sum(failures) == pytest.approx(4 / 2, rel=0.01)
    assert histogram("Length", [], []) == "" and "<svg" in histogram("Length", [5, 5], [])


def test_measures_are_tabled_and_stand_below_videos(tmp_path):
    spl = [0.25, 0.5, 1.0, None]
    records = [
        EpisodeRecord(
            "objectnav", seed, True, 1.0, 1.0, 9, measures={} if value is None else {"success": 1.0, "soft_spl": value},
            video=f"videos/{seed}.mp4", still="videos/a b.png" if seed == 0 else None,
        )
        for seed, value in enumerate(spl)
    ]  # fmt: skip
    page = Page(report(info_of(tmp_path, records)))
    row = page.text.split("Soft SPL", 1)[1].split()[:5]
    assert (
        row == ["0.583", "0.5", "0.25", "1", "3"] and "Success" not in page.text.split("Videos")[0].split("Measures")[1]
    )
    (picture,) = page.all("img")
    assert picture["src"] == "./videos/a%20b.png" and "seed 0" in picture["alt"]
    assert "the maps as the episode ended" in page.text


def test_without_measures_and_maps_nothing_is_said_of_them(tmp_path):
    page = Page(report(info_of(tmp_path, [EpisodeRecord("push", 0, True, 1.0, 1.0, 9, video="videos/0.mp4")])))
    assert "Measures" not in page.text and "the maps as" not in page.text and not page.all("img")
