"""A rollout's episodes do not depend on how many run at once, on who dies meanwhile, or on who shares a batch."""

import dataclasses

import numpy as np
import pytest
from fakes.point import PointWorld
from fakes.policies import Constant, NoisyWalker

from embodied.evaluation.policies import ExpertPolicy, RandomPolicy
from embodied.evaluation.rollout import Environments, rollout
from embodied.interaction import stack
from embodied.spec import ConventionMismatch

EPISODES = [(task, seed) for task in ("left", "right") for seed in range(6)]


def outcome(record):
    return record.task, record.seed, record.success, record.sum_reward, record.length, record.clipped_actions


@pytest.fixture(scope="module")
def by_hand():
    """The same episodes, one after the other, in this process, by the plainest loop there is."""
    world, policy, outcomes = PointWorld(), NoisyWalker(), []
    policy.reset(1)
    for task, seed in EPISODES:
        observation, _ = world.reset(seed=seed, options={"task": task})
        policy.start(0, seed, task)
        rewards, success, clipped, ended = [], False, 0, False
        while not ended:
            action = policy.act(stack([observation]), [0])[0]
            bounded = np.clip(action.astype(np.float32), np.float32(-0.1), np.float32(0.1))
            clipped += not np.allclose(action, bounded, rtol=0, atol=1e-5)
            observation, reward, terminated, truncated, info = world.step(bounded)
            rewards.append(reward)
            success, ended = success or info["success"], terminated or truncated
        outcomes.append((task, seed, success, float(np.sum(rewards)), len(rewards), clipped))
    return outcomes


@pytest.mark.parametrize("num_envs", [1, 2, 8])
def test_results_are_those_of_a_plain_loop_for_any_number_of_environments(point_env, by_hand, num_envs):
    records = rollout(NoisyWalker(), point_env(), EPISODES, num_envs=num_envs)
    assert [outcome(record) for record in records] == by_hand
    assert len({record.length for record in records}) > 3  # unequal episodes, or this would show little


def test_a_killed_worker_is_replaced_and_its_episode_begins_again(point_env, by_hand, tmp_path):
    env = point_env(kill_at=[2, 3], marker=str(tmp_path / "killed"))
    policy = NoisyWalker()
    records = rollout(policy, env, EPISODES, num_envs=2)
    assert [outcome(record) for record in records] == by_hand
    assert [record.retries for record in records if record.retries] == [1]
    starts = [line[2:] for line in policy.diary if line[0] == "start"]
    assert sorted(starts) == sorted(
        [*[(s, t) for t, s in EPISODES], next((r.seed, r.task) for r in records if r.retries)]
    )


def test_a_frozen_worker_counts_as_dead(point_env, by_hand, tmp_path):
    env = point_env(freeze_at=[4, 1], marker=str(tmp_path / "frozen"))
    records = rollout(NoisyWalker(), env, EPISODES, num_envs=2, timeout=5)
    assert [outcome(record) for record in records] == by_hand
    assert sum(record.retries for record in records) == 1


def test_an_episode_that_kills_every_worker_ends_the_rollout_with_its_name(point_env):
    finished = []
    with pytest.raises(ValueError, match=r"fake/point, task left, seed 1: .*SIGKILL, 2 times in a row"):
        env = point_env(kill_at=[1, 2])
        rollout(NoisyWalker(), env, [("left", 0), ("left", 1)], retries=1, on_episode=finished.append)
    assert [record.seed for record in finished] == [0]


def test_an_exception_in_the_environment_is_one_line_with_task_and_seed(point_env):
    with pytest.raises(
        ValueError, match=r"^fake/point, task right, seed 5: KeyError: 'joint7' \(point.py, line \d+\)$"
    ):
        rollout(NoisyWalker(), point_env(raise_at=[5, 0]), [("right", 5)])


def test_a_free_slot_is_refilled_while_the_others_go_on(point_env):
    """Seed 3's expert never arrives; with refill the other slot meanwhile runs all other episodes."""
    episodes = [("left", seed) for seed in (3, 0, 1, 2, 4)]
    with Environments(point_env(fails=5, delay=0.002, max_steps=500), 2, expert=True) as environments:
        for worker in environments.workers:
            worker.call("describe")  # both are up

        def order_of_ends(refill):
            seen = []
            rollout(ExpertPolicy(), environments, episodes, refill=refill, on_episode=seen.append)
            return [record.seed for record in seen]

        assert order_of_ends(refill=True) == [0, 1, 2, 4, 3]
        assert order_of_ends(refill=False)[:2] == [0, 3]


def test_slots_that_wait_for_the_policy_share_a_batch(point_env):
    policy = NoisyWalker()
    rollout(policy, point_env(delay=0.005), EPISODES, num_envs=4)
    acts = [len(line) - 1 for line in policy.diary if line[0] == "act"]
    assert max(acts) > 1


def test_environments_that_are_up_are_used_again(point_env, by_hand):
    with Environments(point_env(), 2) as environments:
        processes = [worker.process.pid for worker in environments.workers]
        for _ in range(2):
            assert [outcome(r) for r in rollout(NoisyWalker(), environments, EPISODES)] == by_hand
        assert processes == [worker.process.pid for worker in environments.workers]


def test_an_action_that_is_not_finite_fails_the_episode_and_is_counted(point_env):
    (record,) = rollout(Constant([np.nan, 0]), point_env(), [("left", 0)])
    assert (record.success, record.nan_actions, record.length) == (False, 1, 0)
    assert "step 0 was not finite" in record.error


def test_actions_outside_the_bounds_are_clipped_and_counted(point_env):
    (record,) = rollout(Constant([5.0, 0]), point_env(max_steps=7), [("left", 0)])
    assert record.clipped_actions == record.length == 7


def test_an_experts_actions_are_counted_as_anyones(point_env):
    (record,) = rollout(ExpertPolicy(), point_env(), [("left", 0)])
    assert record.success and 0 < record.clipped_actions < record.length  # it hurries while the goal is far


def test_actions_outside_the_bounds_fail_where_that_is_wanted(point_env):
    (record,) = rollout(Constant([0.05, -5.0]), point_env(), [("left", 0)], out_of_bounds="fail")
    assert (record.success, record.clipped_actions, record.nan_actions, record.length) == (False, 0, 0, 0)
    assert record.error == "the action of step 0 had y = -5, outside -0.1 to 0.1"
    with pytest.raises(ValueError, match="out_of_bounds is one of clip, fail, got 'ignore'"):
        rollout(Constant([0, 0]), point_env(), [("left", 0)], out_of_bounds="ignore")


class BreaksOnSeedOne(NoisyWalker):
    """Its actions are no numbers in the episode of seed 1."""

    def start(self, slot, seed, task):
        super().start(slot, seed, task)
        self.seeds = {**getattr(self, "seeds", {}), slot: seed}

    def act(self, observations, slots):
        actions = super().act(observations, slots)
        actions[[self.seeds[slot] == 1 for slot in slots]] = np.nan
        return actions


def test_a_broken_episode_leaves_the_others_alone(point_env):
    records = rollout(BreaksOnSeedOne(), point_env(), [("left", seed) for seed in range(4)], num_envs=2)
    assert [record.nan_actions for record in records] == [0, 1, 0, 0]
    assert [record.success for record in records] == [True, False, True, True]
    assert [record.error for record in records] == [None, "the action of step 0 was not finite", None, None]


def test_conventions_are_compared_before_the_first_step(point_env):
    policy = Constant([0, 0])
    policy.embodiment = PointWorld(rate=20.0).embodiment
    with pytest.raises(ConventionMismatch, match=r"agent and env disagree on rate: 20.0 .* 10.0"):
        rollout(policy, point_env(raise_at=[0, 0]), [("left", 0)])


@pytest.mark.parametrize("size", [16, 0], ids=["camera", "rendering"])
def test_only_the_chosen_episodes_are_filmed(point_env, tmp_path, size):
    import av

    records = rollout(ExpertPolicy(), point_env(size=size), EPISODES[:3], videos=[("left", 1)], out=tmp_path)
    assert [record.video for record in records] == [None, "videos/left_1.mp4", None]
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["left_1.mp4"]
    with av.open(str(tmp_path / "videos/left_1.mp4")) as video:
        frames = sum(1 for _ in video.decode(video=0))
    assert frames >= records[1].length + 1


def test_the_random_policy_draws_from_the_episodes_seed(point_env):
    body = PointWorld().embodiment
    one, eight = (rollout(RandomPolicy(body), point_env(), EPISODES, num_envs=n) for n in (1, 8))
    assert [outcome(r) for r in one] == [outcome(r) for r in eight]
    assert len({record.sum_reward for record in one}) == len(EPISODES)
    assert not any(record.clipped_actions for record in one)


def test_what_the_expert_does_is_hidden_from_other_policies(point_env):
    class Curious(Constant):
        def act(self, observations, slots):
            assert "expert.action" not in observations
            return super().act(observations, slots)

    rollout(Curious([0, 0]), point_env(max_steps=3), [("left", 0)])


def test_mistakes_are_named(point_env):
    env = point_env()
    with pytest.raises(ValueError, match="no task 'lefft'; did you mean 'left'"):
        rollout(NoisyWalker(), env, [("lefft", 0)])
    with pytest.raises(ValueError, match="listed twice"):
        rollout(NoisyWalker(), env, [("left", 0), ("left", 0)])
    with pytest.raises(ValueError, match=r"Constant returned actions of shape \(1, 3\) .* takes \(1, 2\)"):
        rollout(Constant([0, 0, 0]), env, [("left", 0)])
    with pytest.raises(ValueError, match="fake/point has no expert"):
        rollout(ExpertPolicy(), {**env, "expert": None}, [("left", 0)])


def test_records_tell_times_and_the_instruction(point_env):
    (record,) = rollout(ExpertPolicy(), point_env(delay=0.002), [("right", 0)], group="fake")
    assert record.success and record.max_reward > -0.05 and record.group == "fake"
    assert record.instruction == "go to the goal on the right"
    assert record.seconds >= 0.002 * record.length and record.inference_ms > 0
    assert dataclasses.asdict(record)["retries"] == 0
