"""While an episode is filmed the environment draws its truth and the policy its belief; nothing else changes."""

import av
import numpy as np
from fakes.policies import NoisyWalker
from PIL import Image

from embodied.evaluation.rollout import Environments, rollout


class Believer(NoisyWalker):
    """Draws how often it acted, by the name that the environment uses, too, and remembers what it was asked."""

    def reset(self, slots):
        super().reset(slots)
        self.acts, self.keys, self.drawn = [0] * slots, set(), []

    def start(self, slot, seed, task):
        super().start(slot, seed, task)
        self.acts[slot] = 0

    def act(self, observations, slots):
        self.keys |= set(observations)
        for slot in slots:
            self.acts[slot] += 1
        return super().act(observations, slots)

    def drawings(self, slot):
        self.drawn.append(self.acts[slot])
        return {"map": np.full((32, 32, 3), (0, 0, 10 * self.acts[slot]), np.uint8)}


def a_drawn(point_env, **make):
    config = point_env(**make)
    return config | {"make": config["make"] | {"_target_": "fakes.point.DrawnPoint"}}


def frames(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_maps_stand_beside_the_cameras_step_by_step(point_env, tmp_path):
    policy = Believer()
    films, rest = [("left", 1)], [("left", 0), ("left", 2)]
    records = rollout(policy, a_drawn(point_env), films + rest, num_envs=2, videos=films, out=tmp_path)
    plain = rollout(NoisyWalker(), point_env(), films + rest, num_envs=1)
    assert [(r.length, r.sum_reward, r.success) for r in records] == [
        (r.length, r.sum_reward, r.success) for r in plain
    ]
    seen = ("observation.state", "observation.environment_state", "observation.images.top", "task")
    assert policy.keys == set(seen)
    length = records[0].length
    assert policy.drawn == list(range(1, length + 1)), "asked after every act of the filmed episode, and of no other"
    shown = frames(tmp_path / records[0].video)[: length + 1]
    assert len(shown) == length + 1 and shown[0].shape[1] == 256 + 384 + 256  # camera, map, belief
    for step, frame in enumerate(shown):
        belief = frame[100:150, 700:850].mean((0, 1))
        assert abs(belief[2] - 10 * min(step + 1, length)) < 8, "the last belief stays when nobody is asked any more"


def test_the_last_drawings_are_kept_as_a_picture_of_filmed_episodes_alone(point_env, tmp_path):
    episodes = [("left", 1), ("left", 0)]
    filmed, other = rollout(Believer(), a_drawn(point_env), episodes, videos=episodes[:1], out=tmp_path)
    assert (filmed.still, other.still) == ("videos/left_1.png", None)
    picture = np.array(Image.open(tmp_path / filmed.still))
    assert picture.shape == (64, 96 + 64, 3)
    assert tuple(picture[32, 120]) == (0, 0, min(255, 10 * filmed.length)) and picture[32, 40, 2] == 0
    assert filmed.to_dict()["still"] == filmed.still and "still" not in other.to_dict()


def test_an_environment_is_asked_only_while_it_is_filmed_and_only_if_it_draws(point_env):
    with Environments(a_drawn(point_env), 1) as drawn, Environments(point_env(), 1) as plain:
        (one,), (other,) = drawn.workers, plain.workers
        assert set(one.call("reset", seed=0, task="left")) == {"observation"}
        reply = one.call("reset", seed=0, task="left", filmed=True)
        assert set(reply) == {"observation", "drawings"} and reply["drawings"]["map"].shape == (64, 96, 3)
        assert "observation.drawings" not in reply["observation"] and "map" not in reply["observation"]
        assert other.call("reset", seed=0, task="left", filmed=True)["drawings"] == {}


def test_what_sees_nothing_and_draws_nothing_is_rendered(point_env, tmp_path):
    (record,) = rollout(NoisyWalker(), point_env(size=0), [("left", 0)], videos=[("left", 0)], out=tmp_path)
    assert record.video is not None and record.still is None
