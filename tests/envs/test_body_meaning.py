"""What each body's numbers mean, checked against its physics; that goals can be seen; what counts as success."""

import numpy as np
import pytest
from body_episodes import make

pytestmark = pytest.mark.simulator("mujoco", "gymnasium_robotics", "gym_pusht", "gym_aloha")


def hold(env, steps, **parts):
    """Some steps with these parts of the action, the others 0; the last observation's state by name."""
    spec = env.embodiment.action
    action = np.zeros(spec.dim, np.float32)
    for name, value in parts.items():
        action[spec.names.index(name)] = value
    for _ in range(steps):
        observation, *_ = env.step(action)
    return dict(zip(env.embodiment.state.names, observation["observation.state"].astype(float), strict=True))


def rate(env, time):
    """Actions per second by the simulator's own clock."""
    env.reset(seed=0)
    start = time()
    env.step(np.zeros(env.embodiment.action.dim, np.float32))
    return 1 / (time() - start)


def test_rates_are_those_of_the_simulators_clocks():
    for name in ("fetch/reach", "maze/umaze", "kitchen/complete", "adroit/door", "mobile-arm/pick-place"):
        env = make(name, observe="state")
        assert rate(env, lambda env=env: env.scene()[1].time) == pytest.approx(env.embodiment.rate), name
    env = make("aloha/insertion", observe="state")
    assert rate(env, lambda: env.sim._env.physics.data.time) == pytest.approx(env.embodiment.rate)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_fetch_moves_what_pulls_its_hand_by_five_centimetres(axis):
    env = make("fetch/pick-place", observe="state")
    env.reset(seed=0)
    hold(env, 3)
    data = env.sim.data
    before = data.mocap_pos[0].copy()
    welded = data.xpos[env.sim.model.body("robot0:gripper_link").id].copy()
    action = np.zeros(4, np.float32)
    action["xyz".index(axis)] = 1
    env.step(action)
    moved = data.mocap_pos[0] - welded  # the library first puts the mocap body to where the hand is
    np.testing.assert_allclose(moved, 0.05 * np.eye(3)["xyz".index(axis)], atol=2e-3)
    assert np.linalg.norm(data.mocap_pos[0] - before) > 0.03


def test_fetch_shuts_and_opens_by_the_sign_it_says():
    env = make("fetch/pick-place", observe="state")
    spec = env.embodiment.action
    env.reset(seed=0)
    opened = hold(env, 10, gripper=-spec.gripper_closed)["gripper_opening"]
    shut = hold(env, 10, gripper=spec.gripper_closed)["gripper_opening"]
    assert shut < 0.01 < 0.09 < opened


def test_a_mazes_force_accelerates_its_ball_as_newton_says():
    env = make("maze/open", observe="state")
    env.reset(seed=0)
    mass = env.sim.model.body("particle").mass[0]
    damping, step = env.sim.model.dof_damping[0], 1 / env.embodiment.rate
    velocity = hold(env, 1, force_x=0.5)["velocity_x"]
    assert velocity == pytest.approx(50 * step / (mass + damping * step), rel=1e-3)  # 0.5 of 100 N


def test_a_kitchens_joint_is_given_a_target_as_far_ahead_as_asked():
    env = make("kitchen/complete", observe="state")
    env.reset(seed=0)
    felt = env.feel().copy()
    hold(env, 1, joint_1=0.1, joint_3=-0.2)
    asked = env.sim.data.ctrl[:7] - felt[:7]
    np.testing.assert_allclose(asked * env.embodiment.rate, [0.2, 0, -0.4, 0, 0, 0, 0], atol=1e-6)  # of 2 rad/s


def test_all_four_things_done_is_success_and_each_counts_once():
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

    env = make("kitchen/complete", observe="state")
    env.reset(seed=0)
    total, seen = 0.0, []
    for thing in ("microwave", "kettle", "light switch", "slide cabinet"):
        env.sim.data.qpos[OBS_ELEMENT_INDICES[thing]] = OBS_ELEMENT_GOALS[thing]
        for _ in range(2):
            _, reward, terminated, _, info = env.step(np.zeros(9, np.float32))
            total += reward
        seen.append((info["completed"], info["success"], terminated))
    assert seen == [(1, False, False), (2, False, False), (3, False, False), (4, True, True)]
    assert total == 4
    assert env.reset(seed=0)[1]["completed"] == 0


def test_adroits_joints_go_to_where_the_action_points():
    env = make("adroit/relocate", observe="state")
    env.reset(seed=0)
    model = env.sim.model
    low, high = model.actuator_ctrlrange[:, 0], model.actuator_ctrlrange[:, 1]
    names = env.embodiment.action.names
    for value in (-0.5, 0.5):
        for _ in range(90):
            action = np.zeros(len(names), np.float32)
            action[names.index("FFJ2")] = value
            env.step(action)
        i = names.index("FFJ2")
        assert env.feel()[i] == pytest.approx((low + high)[i] / 2 + value * (high - low)[i] / 2, abs=0.15)


def test_pushts_pusher_goes_to_where_the_action_is():
    env = make("pusht/push", observe="state")
    for seed, target in ((0, [60, 60]), (1, [450, 470])):
        env.reset(seed=seed)
        for _ in range(25):
            env.step(np.array(target, np.float32))
        np.testing.assert_allclose(env.feel(), target, atol=1)


def test_a_t_on_its_outline_is_success():
    env = make("pusht/push", observe="state")
    env.reset(seed=0)
    env.sim.agent.position = (20, 20)
    goal = env.truth()[3:]
    for offset, success in ((40.0, False), (0.5, True)):
        env.sim.block.angle = goal[2]
        env.sim.block.position = (goal[0] + offset, goal[1])
        _, reward, terminated, _, info = env.step(np.array([20, 20], np.float32))
        assert (info["success"], terminated) == (success, success)
        assert reward == pytest.approx(min(1, info["coverage"] / 0.95))


def test_alohas_arms_go_to_where_the_action_is():
    env = make("aloha/transfer-cube", observe="state")
    observation, _ = env.reset(seed=0)
    target = observation["observation.state"].copy()
    target[env.embodiment.action.names.index("left_waist")] = 0.3
    target[env.embodiment.action.names.index("right_gripper")] = 0.9
    for _ in range(60):
        observation, *_ = env.step(target)
    np.testing.assert_allclose(observation["observation.state"], target, atol=0.05)
    ranges = env.sim._env.physics.model.ptr.jnt_range
    joints = [*range(6), *range(8, 14)]
    spec = env.embodiment.action
    arms = [i for i, name in enumerate(spec.names) if not name.endswith("gripper")]
    np.testing.assert_allclose(np.array([spec.low, spec.high]).T[arms], ranges[joints], atol=1e-6)


@pytest.mark.parametrize("yaw", [0.0, np.pi / 2])
def test_the_mobile_base_drives_in_its_own_frame_in_metres_a_second(yaw):
    env = make("mobile-arm/pick-place", observe="state")
    env.reset(seed=0)
    env._data.joint("base_x").qpos, env._data.joint("base_y").qpos = -1.0, 0.0
    env._data.joint("base_yaw").qpos = yaw
    hold(env, 10, forward=0.2)
    start = hold(env, 1, forward=0.2)
    end = hold(env, 20, forward=0.2)
    moved = np.array([end["base_x"] - start["base_x"], end["base_y"] - start["base_y"]])
    np.testing.assert_allclose(moved, [0.2 * np.cos(yaw), 0.2 * np.sin(yaw)], atol=0.01)
    hold(env, 10, turn=0.5)
    start = hold(env, 1, turn=0.5)
    assert hold(env, 20, turn=0.5)["base_yaw"] - start["base_yaw"] == pytest.approx(0.5, abs=0.02)


def test_the_mobile_arms_joints_and_gripper_move_as_asked():
    env = make("mobile-arm/pick-place", observe="state")
    env.reset(seed=0)
    start = hold(env, 5, elbow=-0.5, gripper=-1)
    end = hold(env, 20, elbow=-0.5, gripper=-1)
    assert end["elbow"] - start["elbow"] == pytest.approx(-0.5, abs=0.03)
    assert end["gripper_opening"] == pytest.approx(0.08, abs=0.002)
    assert hold(env, 10, gripper=env.embodiment.action.gripper_closed)["gripper_opening"] < 0.002


def test_the_mobile_arms_kinematics_are_those_of_its_model():
    from envs.mujoco.mobile_arm import AXIS, joints_for

    env = make("mobile-arm/pick-place", observe="state")
    env.reset(seed=0)
    data = env._data
    data.qpos[env._addresses(("base_x", "base_y", "base_yaw"))] = 0
    for point in ([0.3, 0.1, 0.5], [0.45, -0.2, 0.42], [0.25, 0.0, 0.6]):
        data.qpos[env._addresses(("pan", "shoulder", "elbow", "wrist"))] = joints_for(*point)
        env._mujoco.mj_kinematics(env._model, data)
        np.testing.assert_allclose(env.fingertips(), np.add(point, [AXIS, 0, 0]), atol=1e-6)


def test_neither_base_nor_arm_can_do_it_alone():
    env = make("mobile-arm/pick-place", observe="state")
    from envs.mujoco.mobile_arm import AXIS, FOREARM, UPPER_ARM

    wanted, sides = set(), set()
    for seed in range(30):
        observation, _ = env.reset(seed=seed)
        x, y = env.feel()[:2]
        cubes, place = env.truth()[:9].reshape(3, 3), env.truth()[9:11]
        nearest = np.linalg.norm(cubes[:, :2] - [x, y], axis=1).min()
        assert nearest > AXIS + UPPER_ARM + FOREARM and abs(place[1]) > 0.8
        assert observation["task"] == f"put the {env.wanted} cube into the bin"
        wanted.add(env.wanted)
        sides.add(np.sign(place[1]))
    assert wanted == {"red", "green", "blue"} and sides == {-1, 1}


def test_only_the_named_cube_in_the_bin_is_success():
    env = make("mobile-arm/pick-place", observe="state")
    env.reset(seed=0)
    other = next(colour for colour in ("red", "green", "blue") if colour != env.wanted)
    for colour, success in ((other, False), (env.wanted, True)):
        env._data.joint(colour).qpos[:3] = [*env.bin, 0.29]
        _, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
        assert (info["success"], terminated, reward) == (success, success, float(success))
        assert info["wrong_cubes"] == 1


@pytest.mark.parametrize("name", ["fetch/reach", "fetch/push", "fetch/slide", "maze/umaze", "maze/large"])
def test_the_goal_can_be_seen_where_it_is(name):
    env = make(name, observe="both", height=96, width=96)
    places = []
    for seed in range(6):
        env.reset(seed=seed)
        middles = []
        for _ in range(2):
            picture = next(iter(env.pictures().values())).astype(int)
            red = np.argwhere((picture[..., 0] > 120) & (picture[..., 1:].max(axis=2) < 60))
            middles.append(red.mean(axis=0) if len(red) >= 4 else np.full(2, np.nan))
            env.step(np.zeros(env.embodiment.action.dim, np.float32))
        assert not np.linalg.norm(middles[0] - middles[1]) > 1.5, "the goal moved"
        places.append([*env.truth()[-3:][:2], *middles[0]] if name.startswith("fetch") else [*env.truth(), *middles[0]])
    places = np.array(places)
    seen = np.isfinite(places).all(axis=1)
    assert seen.sum() >= 5, "the arm hides the goal, or it is not drawn"
    x, y, row, column = places[seen].T
    right, up = (x, y) if name.startswith("maze") else (y, -x)  # from above; from the front, facing the robot
    assert np.corrcoef(right, column)[0, 1] > 0.9
    if name != "fetch/reach":  # whose goals differ in height too
        assert np.corrcoef(up, row)[0, 1] < -0.9
    env.close()


def test_a_maze_leaves_no_files_behind(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make("maze/medium", observe="state").reset(seed=0)
    assert list(tmp_path.iterdir()) == []
