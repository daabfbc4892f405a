"""The classical explorer finds objects and points in houses nobody told it about, whoever shares its batch."""

import importlib.util
import os

import numpy as np
import pytest
from omegaconf import OmegaConf

from embodied.building import build
from embodied.evaluation.composed import compose_policy
from embodied.interaction import stack
from envs.house.categories import MP3D_ID, OBJECTNAV, WANTED
from envs.house.simulator import Body
from envs.house.tasks.objectnav import ObjectNav
from envs.house.tasks.pointnav import PointNav
from policies.navigation.goals import NamedGoals

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true", reason="numba is not installed"
)
OUTPUTS = {"objectnav": ("rgb", "depth", "semantic"), "pointnav": ("rgb", "depth")}


def house(task, **options):
    body = Body(height=64, width=64, outputs=OUTPUTS[task], turn=30.0)
    return {"objectnav": ObjectNav, "pointnav": PointNav}[task](body, split="val", **options)


def explorer(env, name="explorer", **settings):
    return build(compose_policy(name, settings), embodiment=env.embodiment)


def walk(policy, task, seeds, most=500, **options):
    """Episodes at once, one slot each: their actions and whether they succeeded."""
    envs = [house(task, **options) for _ in seeds]
    seen, done = [env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)], {}
    actions = [[] for _ in seeds]
    policy.reset(len(seeds))
    for slot, seed in enumerate(seeds):
        policy.start(slot, seed, task)
    for _ in range(most):
        due = [slot for slot in range(len(seeds)) if slot not in done]
        if not due:
            break
        for slot, action in zip(due, policy.act(stack([seen[slot] for slot in due]), due), strict=True):
            actions[slot].append(int(action[0]))
            seen[slot], _, over, late, info = envs[slot].step(action)
            if over or late:
                done[slot] = info["success"]
    return actions, done


@pytest.mark.parametrize("task", ["pointnav", "objectnav"])
def test_it_gets_there_and_an_episode_is_the_same_whoever_shares_the_batch(task):
    policy = explorer(house(task))
    together, success = walk(policy, task, [10000, 10002])
    assert success == {0: True, 1: True}
    alone, _ = walk(policy, task, [10000])
    assert alone[0] == together[0]


def test_it_finds_what_the_pictures_are_prompted_with():
    policy = explorer(house("objectnav", prompted=True), "explorer_prompted")
    assert set(policy.goals.ids.values()) == {WANTED} and policy.grid.classes == WANTED + 1
    assert walk(policy, "objectnav", [10000], prompted=True)[1] == {0: True}


def test_a_body_without_depth_and_eyes_without_categories_are_one_line_that_says_what_to_add():
    blind = PointNav(Body(outputs=("rgb",)), split="val")
    with pytest.raises(ValueError, match=r"depth.*add env\.make\.body\.outputs=\[rgb,depth\]"):
        explorer(blind)
    env = ObjectNav(Body(outputs=("rgb", "depth")), split="val")
    policy = explorer(env)
    policy.reset(1)
    policy.start(0, 10000, "objectnav")
    with pytest.raises(ValueError, match=r"add env\.make\.body\.outputs=\[rgb,depth,semantic\]"):
        policy.act(stack([env.reset(seed=10000)[0]]), [0])


def test_values_without_a_scorer_are_refused():
    with pytest.raises(ValueError, match="give both or neither"):
        explorer(house("pointnav"), values={"_target_": "maps.value.ValueMap", "width": 1})


def test_a_step_that_led_nowhere_marks_what_is_ahead():
    env = house("pointnav")
    policy = explorer(env)
    policy.reset(1)
    policy.start(0, 10000, "pointnav")
    seen = stack([env.reset(seed=10000)[0]])
    policy.act(seen, [0])
    before = policy.grid.occupied(policy.memory)[0].numpy().copy()
    policy.episodes[0].last = policy.episodes[0].last[0], "move_forward"
    policy.act(seen, [0])  # the same pose again
    met = np.argwhere(policy.grid.occupied(policy.memory)[0].numpy() & ~before)
    assert len(met) <= 1  # where there was nothing yet
    ahead = policy.grid.occupied(policy.memory)[0].numpy()[163, 160]
    assert ahead  # 0.3 m along x from the middle of a grid of 320 cells


def test_its_map_is_drawn_with_the_way_and_the_frontiers():
    env = house("objectnav")
    policy = explorer(env)
    policy.reset(1)
    policy.start(0, 10001, "objectnav")
    assert policy.drawings(0) == {}
    seen, shown = env.reset(seed=10001)[0], []
    for _ in range(14):
        seen = env.step(policy.act(stack([seen]), [0])[0])[0]
        shown.append(policy.drawings(0)["map"])
    assert all(each.shape == (512, 512, 3) and each.dtype == np.uint8 for each in shown)
    assert (shown[0] != shown[-1]).any()
    assert policy.episodes[0].kind == "frontier" and policy.episodes[0].edges  # a first look around takes 12 steps
    assert explorer(env, picture=None).picture is None


class Bright:
    """Scores a view by how much of it is far away, as a stand-in for a model that looks for something."""

    def score(self, observations, texts):
        assert all(isinstance(text, str) for text in texts)
        return np.asarray(observations["observation.depth.front"]).mean((1, 2))[:, None]


def test_frontiers_are_chosen_by_value_where_there_is_a_value_map():
    env = house("objectnav")
    node = compose_policy("explorer")
    around = node["grid"]["surroundings"]
    node["values"] = {"_target_": "maps.value.ValueMap", "width": 1, "surroundings": around}
    policy = build({**node, "scorer": Bright()}, embodiment=env.embodiment)
    asked = []
    best = policy.frontiers.best
    policy.frontiers.best = lambda *given: asked.append(1) or best(*given)
    walk(policy, "objectnav", [10001], most=25)
    assert asked


# what an instruction asks for


def goals():
    node = compose_policy("explorer")["goals"]
    return build(node)


@pytest.mark.parametrize(
    "text, category",
    [
        ("find a chest of drawers", "chest_of_drawers"),
        ("walk to any television", "tv_monitor"),
        ("Locate a TV and halt next to it", "tv_monitor"),
        ("go to a clothes rack and stop", "clothes"),
        ("look for a bathtub", "bathtub"),
        ("find two chairs", "chair"),
    ],
)
def test_the_category_is_read_from_the_words(text, category):
    assert goals().find(text) == category


def test_every_object_that_the_task_asks_for_is_known_by_what_it_is_called():
    from envs.house.naming import called
    from envs.house.tasks.objectnav import WORDS

    known = goals()
    for category in OBJECTNAV:
        assert known.ids[category] == MP3D_ID[category]
        for words in (*WORDS[False], *WORDS[True]):
            assert known.find(words.format(called(category))) == category


def test_words_that_name_nothing_or_two_things_are_one_line():
    with pytest.raises(ValueError, match="names no object to look for; there is chair"):
        goals().find("find a dragon")
    with pytest.raises(ValueError, match="'seat' is a word for chair and sofa"):
        NamedGoals({"chair": ["seat"], "sofa": ["seat"]}, {"chair": 3, "sofa": 10})
    with pytest.raises(ValueError, match="sofa needs a list of words and a number"):
        NamedGoals({"sofa": ["sofa"]}, {})


def test_the_published_words_are_those_of_the_yaml():
    node = OmegaConf.to_container(OmegaConf.create(compose_policy("explorer")))
    assert set(node["goals"]["words"]) == set(node["goals"]["ids"])
