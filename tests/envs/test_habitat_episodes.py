"""Episode files of habitat-lab: what is in them is read, and what is wrong with one is a line with file and episode."""

import copy
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from envs.habitat.episodes import ground_truth, read
from envs.habitat.scenes import find, read_semantics

DATA = Path(__file__).parents[3] / "shared/data"
SHARED = pytest.mark.skipif(not DATA.is_dir(), reason="the public episode files are not here")

PLACE = {
    "episode_id": "7",
    "scene_id": "mp3d/abc/abc.glb",
    "start_position": [1, 0.1, 2],
    "start_rotation": [0, 0, 0, 1],
}
POINT = PLACE | {"goals": [{"position": [4, 0.1, 2], "radius": 0.2}], "info": {"geodesic_distance": 3.0}}
OBJECT = PLACE | {"goals": [], "object_category": "bed", "shortest_paths": [[3, 1, 1, 0]], "info": None}
BEDS = {
    "goals_by_category": {
        "abc.glb_bed": [
            {
                "position": [5, 0.5, 1],
                "object_id": 12,
                "object_category": "bed",
                "view_points": [{"agent_state": {"position": [4, 0.1, 1], "rotation": [0, 0, 0, 1]}, "iou": 0.5}] * 3,
            }
        ]
    }
}
TOLD = POINT | {
    "trajectory_id": 44,
    "instruction": {"instruction_text": " Go left. ", "instruction_tokens": [3, 1, 0]},
    "reference_path": [[1, 0.1, 2], [4, 0.1, 2]],
}
ASKED = PLACE | {
    "question": {
        "question_text": "what colour is the bed?",
        "answer_text": "blue",
        "question_tokens": [1, 2],
        "answer_token": [4],
        "question_type": "color",
    },
    "goals": [],
    "shortest_paths": [[{"position": [0, 0, 0], "rotation": [0, 0, 0, 1], "action": 1}]],
}
GOOD = {
    "pointnav": {"episodes": [POINT]},
    "objectnav": {"episodes": [OBJECT]} | BEDS,
    "vln": {"episodes": [TOLD], "instruction_vocab": {"word_list": ["<pad>", "go", "left", "."]}},
    "eqa": {"episodes": [ASKED], "question_vocab": {"word_list": ["what"]}, "answer_vocab": {"word_list": ["blue"]}},
}


def write(path, content):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
@pytest.mark.parametrize("task", GOOD)
def test_each_format_is_read(task, suffix, tmp_path):
    found = read(write(tmp_path / f"val{suffix}", GOOD[task]), task)
    (one,) = found
    assert one.id == "7" and one.scene == "mp3d/abc/abc.glb"
    assert one.start.tolist() == [1, -2, 0.1] and one.heading == pytest.approx(math.pi / 2)
    if task in ("pointnav", "vln"):
        assert one.points.tolist() == [[4, -2, 0.1]] and one.goals[0].radius == 0.2
    if task == "objectnav":
        assert one.category == "bed" and one.goals[0].object_id == 12 and one.actions == (3, 1, 1, 0)
        assert one.points.tolist() == [[4, -1, 0.1]] * 3
    if task == "vln":
        assert one.instruction == "Go left." and one.tokens == (3, 1, 0) and one.trajectory == "44"
        assert one.reference.tolist() == [[1, -2, 0.1], [4, -2, 0.1]] and found.vocabulary[1] == "go"
    if task == "eqa":
        assert one.instruction.startswith("what colour") and one.answer == "blue" and one.question_type == "color"
        assert one.actions == (1,) and found.vocabulary == ("what",) and found.answers == ("blue",)


def test_a_question_is_about_what_its_view_points_or_else_the_end_of_its_path_see(tmp_path):
    view = {"position": [4, 0.1, 1], "rotation": [0, 0, 0, 1]}  # an agent's state, without ObjectNav's wrapping
    thing = {"position": [5, 0.5, 1], "object_id": "12"}
    path = [[{"position": [1, 0.1, 2], "action": 1}, {"position": [3, 0.1, 2], "action": 3}]]
    rows = [
        ASKED | {"goals": [thing | {"view_points": [view]}], "shortest_paths": path},
        ASKED | {"goals": [thing | {"view_points": None}], "shortest_paths": path},
        ASKED | {"goals": [thing], "shortest_paths": None},
    ]
    found = read(write(tmp_path / "val.json", {"episodes": rows}), "eqa")
    assert [one.points.tolist() for one in found] == [[[4, -1, 0.1]], [[3, -2, 0.1]], [[5, -1, 0.5]]]
    assert found[0].goals[0].object_id == 12


def test_a_split_over_scenes_is_one(tmp_path):
    main = write(tmp_path / "val.json.gz", {"episodes": []})
    for scene in ("abc", "xyz"):
        row = POINT | {"scene_id": f"mp3d/{scene}/{scene}.glb", "episode_id": scene}
        write(tmp_path / f"content/{scene}.json.gz", {"episodes": [row, row]})
    assert [one.id for one in read(main, "pointnav")] == ["abc", "abc", "xyz", "xyz"]
    assert [one.id for one in read(main, "pointnav", scenes=["xyz"])] == ["xyz", "xyz"]
    assert len(read(main, "pointnav", most=3)) == 3


def broken(task, **changes):
    content = copy.deepcopy(GOOD[task])
    row = content["episodes"][0]
    for key, value in changes.items():
        if value is KeyError:
            del row[key]
        else:
            row[key] = value
    return content


WRONG = [
    ("pointnav", {"start_position": KeyError}, "it has no start_position"),
    ("pointnav", {"start_position": [1, 2]}, "start_position should be 3 finite numbers"),
    ("pointnav", {"start_position": [1, 2, float("nan")]}, "start_position should be 3 finite numbers"),
    ("pointnav", {"start_position": [1, 2, True]}, "start_position should be 3 finite numbers"),
    ("pointnav", {"start_rotation": [0, 0, 0, 5]}, "quaternion of length 1"),
    ("pointnav", {"start_rotation": "north"}, "start_rotation should be 4 finite numbers"),
    ("pointnav", {"scene_id": 5}, "should be names"),
    ("pointnav", {"goals": []}, "it has no goals"),
    ("pointnav", {"goals": [{"radius": 1}]}, "it has no position"),
    ("pointnav", {"goals": [{"position": [1, 2, 3], "radius": "near"}]}, "radius should be a distance"),
    ("pointnav", {"info": {"geodesic_distance": -1}}, "info.geodesic_distance should be a distance"),
    ("objectnav", {"object_category": "sofa"}, "goals_by_category has no 'abc.glb_sofa'"),
    ("objectnav", {"object_category": None}, "object_category should be a name"),
    ("objectnav", {"goals": [{"position": [1, 2, 3], "view_points": [{}]}]}, "agent_state with a position"),
    ("objectnav", {"shortest_paths": [["left"]]}, "shortest_paths should be whole numbers"),
    ("vln", {"instruction": "go"}, "instruction should have an instruction_text"),
    ("vln", {"instruction": {"instruction_text": "go", "instruction_tokens": ["go"]}}, "should be whole numbers"),
    ("vln", {"reference_path": [[1, 2]]}, "reference_path should be finite x, y, z"),
    ("eqa", {"question": {"question_text": "?", "answer_text": ""}}, "question.answer_text should be words"),
    ("eqa", {"question": KeyError}, "it has no question"),
    ("eqa", {"question": "what?"}, "question should be an object"),
    ("eqa", {"question": ASKED["question"] | {"question_tokens": ["what"]}}, "question_tokens should be whole numbers"),
    ("eqa", {"goals": [{"position": [1, 2, 3], "view_points": [7]}]}, "agent_state with a position"),
    ("eqa", {"shortest_paths": [[{"position": [1, 2], "action": 1}]]}, "the end of shortest_paths should be 3"),
]


@pytest.mark.parametrize("task, changes, says", WRONG)
def test_a_malformed_episode_is_one_line_with_file_and_id_or_skipped_and_counted(task, changes, says, tmp_path):
    content = broken(task, **changes)
    content["episodes"].append(GOOD[task]["episodes"][0])
    file = write(tmp_path / "val.json.gz", content)
    with pytest.raises(ValueError) as problem:
        read(file, task)
    assert f"{file}, episode 7: " in str(problem.value) and says in str(problem.value)
    assert "\n" not in str(problem.value)
    found = read(file, task, on_fault="skip")
    assert len(found) == 1 and found.faults == (str(problem.value),)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"{", "is not valid JSON"),
        ([], "has no list of episodes"),
        ({"episodes": 5}, "has no list of episodes"),
        ({"episodes": [7]}, "row 0: it should be an object"),
        ({"episodes": [{"scene_id": "x"}]}, "row 0: it has no episode_id"),
    ],
)
def test_a_file_that_is_none_is_one_line(content, says, tmp_path):
    with pytest.raises(ValueError, match=says) as problem:
        read(write(tmp_path / "val.json.gz", content), "pointnav")
    assert "val.json.gz" in str(problem.value)


def test_a_file_that_was_cut_short_or_is_missing(tmp_path):
    file = write(tmp_path / "val.json.gz", GOOD["pointnav"])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"val\.json\.gz is no whole gzip file"):
        read(file, "pointnav")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.json.gz", "pointnav")
    with pytest.raises(ValueError, match="did you mean 'objectnav'"):
        read(file, "objectnva")
    with pytest.raises(ValueError, match="on_fault is one of"):
        read(file, "eqa", on_fault="ignore")


@SHARED
def test_the_public_objectnav_episodes():
    found = read(DATA / "objectnav/17DRP5sb8fy.json.gz", "objectnav", most=3000)
    assert len(found) == 3000 and not found.faults
    for one in found[::300]:
        assert len(one.points) > 10 and one.goals[0].category == one.category
        # the file's own figure for the nearest view point, straight
        assert np.linalg.norm(one.points - one.start, axis=1).min() <= one.info["geodesic_distance"] + 0.05


@SHARED
def test_the_public_vlnce_episodes_agree_with_the_follower_that_walked_them():
    found = read(DATA / "r2r_ce/val_unseen.json.gz", "vln")
    truth = ground_truth(DATA / "r2r_ce/val_unseen_gt.json.gz")
    assert len(found) == 1839 == len(truth) and len(found.vocabulary) == 2504
    ahead, turned = 0, []
    for one in found[::40]:
        locations, actions = truth[one.id]
        assert np.linalg.norm(locations[0] - one.start) < 0.3
        before = len(actions) if 1 not in actions else actions.index(1)
        heading = one.heading + math.radians(15) * (actions[:before].count(2) - actions[:before].count(3))
        step = locations[1] - locations[0]
        if np.linalg.norm(step[:2]) > 0.24:  # a first step that met nothing
            turned.append(math.remainder(math.atan2(step[1], step[0]) - heading, 2 * math.pi))
            ahead += 1
        assert np.linalg.norm(locations[-1] - one.points[0]) < 3
        assert np.linalg.norm(one.reference[-1] - one.points[0]) < 1e-6
    assert ahead > 20 and np.median(np.abs(turned)) < 0.02


def test_scenes_are_found_as_habitat_lab_names_them(tmp_path):
    file = tmp_path / "mp3d/abc/abc.glb"
    file.parent.mkdir(parents=True)
    file.touch()
    assert find("mp3d/abc/abc.glb", tmp_path) == find("data/scene_datasets/mp3d/abc/abc.glb", tmp_path) == file
    with pytest.raises(ValueError, match=r"there is no scene mp3d/xyz/xyz\.glb in "):
        find("mp3d/xyz/xyz.glb", tmp_path)


def test_semantic_annotations_are_read(tmp_path):
    file = tmp_path / "abc.semantic.txt"
    file.write_text('HM3D Semantic Annotations\n1,0A0B0C,"chair, old",2\n2,0A0B0D,"bed",-1\n')
    assert read_semantics(file) == {1: ("chair, old", 2), 2: ("bed", -1)}
    file.write_text('HM3D Semantic Annotations\n1,red,"chair",2\n')
    with pytest.raises(ValueError, match="line 2 should be"):
        read_semantics(file)
    file.write_text("chair")
    with pytest.raises(ValueError, match="no semantic annotations"):
        read_semantics(file)
