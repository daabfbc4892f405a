"""Two results are compared on the episodes they share; what does not match is refused, and doubt is said."""

import copy

import pytest
from scipy.stats import binomtest

from embodied.evaluation.compare import compare, table
from embodied.evaluation.compare_page import compare_page
from embodied.evaluation.results import EpisodeRecord, write_eval_info
from embodied.spec import ActionSpec, Embodiment

ARM = Embodiment("arm", ActionSpec(("x",), ("m",), (-1.0,), (1.0,)), None, (), 20.0)
MAKE = {"_target_": "envs.lab.Lab", "tasks": ["push"], "cameras": ["front"], "max_steps": 50}


def a_result(tmp_path, outcomes, task="push", seeds=None, make=MAKE, more=(), **changes):
    """A result with these successes, seeds 0, 1, ... or those given, and perhaps more episodes."""
    seeds = range(len(outcomes)) if seeds is None else seeds
    records = [
        EpisodeRecord(task, s, o, 10.0 * o, 1.0, 40 - 5 * o, "lab") for s, o in zip(seeds, outcomes, strict=True)
    ]
    env = {"name": f"lab/{task}", "make": make}
    known = {"policy": "p", "env": env, "embodiment": ARM, "config": {}, "eval_s": 1.0, "command": "c"}
    return write_eval_info(tmp_path, [*records, *more], **(known | changes))


def pattern(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def compared(tmp_path, a, b, **more):
    return compare([a_result(tmp_path / "a", a), a_result(tmp_path / "b", b)], ["a", "b"], **more)["comparisons"][0]


def test_a_clear_difference_is_named_with_its_size(tmp_path):
    found = compared(tmp_path, *pattern(20, 2, 20, 8))
    row = found["overall"]
    assert (row["both"], row["only_a"], row["only_b"], row["neither"], row["n"]) == (20, 2, 20, 8, 50)
    assert row["p"] == pytest.approx(binomtest(2, 22).pvalue)
    assert row["difference"] == pytest.approx(36.0) and row["ci95"][0] > 0
    assert row["return_difference"] == pytest.approx(3.6)
    assert found["verdict"].startswith("B is better by 36.0 points")
    assert len(found["disagreements"]) == 22 and sum(d["winner"] == "a" for d in found["disagreements"]) == 2


def test_which_is_first_decides_only_the_sign(tmp_path):
    a, b = pattern(20, 2, 20, 8)
    one, other = compared(tmp_path / "1", a, b), compared(tmp_path / "2", b, a)
    assert one["overall"]["p"] == other["overall"]["p"]
    assert one["overall"]["difference"] == -other["overall"]["difference"]
    assert other["verdict"].startswith("A is better by 36.0 points")


def test_too_few_differing_episodes_are_said_to_decide_nothing(tmp_path):
    found = compared(tmp_path, *pattern(5, 0, 5, 0))
    assert found["verdict"].startswith("Undecided: the two differ in 5 of 10 episodes, and fewer than 6")
    assert compared(tmp_path, [True] * 10, [True] * 10)["overall"]["ci95"][1] > 0


def test_a_difference_within_chance_says_how_many_episodes_it_would_take(tmp_path):
    found = compared(tmp_path, *pattern(30, 6, 10, 4))
    assert found["verdict"].startswith("Undecided: no difference shown in 50 episodes")
    assert f"about {found['overall']['pairs_needed']} episodes" in found["verdict"]
    assert found["overall"]["pairs_needed"] > 50


def test_pairing_is_by_task_and_seed_and_leftovers_are_counted(tmp_path):
    a = a_result(tmp_path / "a", [True] * 8, seeds=range(8), more=[EpisodeRecord("pull", 0, True, 1, 1, 5, "lab")])
    b = a_result(tmp_path / "b", [False] * 10, seeds=range(2, 12))
    found = compare([a, b], ["A", "B"])["comparisons"][0]
    assert found["overall"]["n"] == 6 and [row["task"] for row in found["per_task"]] == ["push"]
    assert "3 episodes only A has are left out" in found["notes"]
    assert "4 episodes only B has are left out" in found["notes"]


def test_tasks_weigh_the_same_and_are_listed_one_by_one(tmp_path):
    def result(name, pull):
        return a_result(
            tmp_path / name,
            [True] * 40,
            more=[EpisodeRecord("pull", seed, pull, 0, 0, 5, "lab") for seed in range(10)],
        )

    found = compare([result("a", False), result("b", True)], ["a", "b"])["comparisons"][0]
    assert [(row["task"], row["difference"]) for row in found["per_task"]] == [("pull", 100.0), ("push", 0.0)]
    assert found["overall"]["difference"] == pytest.approx(50.0)
    assert found["per_task"][0]["p_holm"] == pytest.approx(2 * found["per_task"][0]["p"])
    lines = table(found).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["pull", "push", "all"]


def test_results_without_a_common_episode_are_refused(tmp_path):
    a = a_result(tmp_path / "a", [True] * 5, seeds=range(5))
    b = a_result(tmp_path / "b", [True] * 5, seeds=range(10000, 10005))
    with pytest.raises(
        ValueError, match="no episode in common: A has push with seeds 0–4, B has push with seeds 10000–10004"
    ):
        compare([a, b], ["A", "B"])


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda i: i["env"]["make"].update(max_steps=500), r"env\.make\.max_steps differs: 50 \(A\) against 500 \(B\)"),
        (lambda i: i["env"]["make"].update(_target_="envs.other.Lab"), r"env\.make\._target_"),
        (lambda i: i["embodiment"].update(rate=5.0), r"embodiment\.rate differs: 20\.0"),
        (lambda i: i["embodiment"]["action"].update(control="absolute"), r"embodiment\.action\.control"),
        (lambda i: i.update(env={"name": "lab/other"}), r"env\.name"),
    ],
)
def test_environments_that_differ_are_refused_unless_allowed(tmp_path, change, says):
    a = a_result(tmp_path / "a", [True] * 5)
    b = copy.deepcopy(a)
    change(b)
    with pytest.raises(ValueError, match=says) as refused:
        compare([a, b], ["a", "b"])
    assert "allow=true" in str(refused.value) and "\n" not in str(refused.value)
    notes = compare([a, b], ["a", "b"], allow=True)["comparisons"][0]["notes"]
    assert any("differs" in note for note in notes)


def test_other_cameras_are_no_other_environment(tmp_path):
    a = a_result(tmp_path / "a", [True, False])
    b = a_result(
        tmp_path / "b", [True, True], make=MAKE | {"cameras": ["wrist"], "height": 224, "tasks": ["push", "pull"]}
    )
    assert compare([a, b], ["a", "b"])["comparisons"][0]["overall"]["n"] == 2


def test_other_simulator_versions_are_noted(tmp_path):
    a = a_result(tmp_path / "a", [True, False])
    b = copy.deepcopy(a)
    b["versions"]["mujoco"] = "0.1"
    assert any("mujoco" in note for note in compare([a, b], ["a", "b"])["comparisons"][0]["notes"])


def test_the_same_result_twice_is_noticed(tmp_path):
    a = a_result(tmp_path / "a", [True, False])
    assert any("same policy twice" in note for note in compare([a, a], ["a", "b"])["comparisons"][0]["notes"])


def test_more_than_two_are_compared_with_the_first_and_pay_for_it(tmp_path):
    a, b = pattern(20, 2, 20, 8)
    results = [a_result(tmp_path / name, outcome) for name, outcome in (("a", a), ("b", b), ("c", b))]
    one = compare(results[:2], ["a", "b"])["comparisons"][0]
    both = compare(results, ["a", "b", "c"])["comparisons"]
    assert [(c["a"], c["b"]) for c in both] == [("a", "b"), ("a", "c")]
    assert both[0]["overall"]["p_holm"] == pytest.approx(2 * one["overall"]["p"])
    assert "for 2 comparisons" in both[0]["verdict"]


def test_one_result_or_repeated_episodes_are_refused(tmp_path):
    a = a_result(tmp_path, [True])
    with pytest.raises(ValueError, match="two or more results"):
        compare([a], ["a"])
    repeated = copy.deepcopy(a)
    repeated["episodes"] *= 2
    with pytest.raises(ValueError, match="b has two episodes of push with seed 0"):
        compare([a, repeated], ["a", "b"])


def test_the_page_shows_the_verdict_and_links_to_the_videos_that_decide(tmp_path):
    a = a_result(tmp_path / "a", [True, False])
    b = a_result(tmp_path / "b", [False, False])
    a["episodes"][0]["video"] = "videos/push 0.mp4"
    result = compare([a, b], [str(tmp_path / "a"), str(tmp_path / "b" / "<i>")])
    source = compare_page(result, "embodied-compare a <b>", tmp_path / "out")
    assert "Undecided" in source and "../a/videos/push%200.mp4" in source
    assert "<i>" not in source and "<b>" not in source.replace("<b></b>", "")
