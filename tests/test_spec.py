"""Two parts that mean different things by their numbers are stopped, with the field and both values in one line."""

from dataclasses import replace

import pytest

from embodied.spec import ActionSpec, Camera, ConventionMismatch, Embodiment, StateSpec, pair


def an_embodiment(**changes) -> Embodiment:
    action = ActionSpec(
        names=("x", "y", "gripper"), units=("m", "m", "1"), low=(-1.0, -1.0, -1.0), high=(1.0, 1.0, 1.0), gripper=2
    )
    state = StateSpec(names=("x", "y"), units=("m", "m"))
    cameras = (Camera("front", 96, 96, "mujoco:shadow=0"), Camera("wrist", 64, 64, "mujoco:shadow=0", depth=True))
    return replace(Embodiment("arm", action, state, cameras, rate=20.0), **changes)


def with_action(**changes) -> Embodiment:
    return an_embodiment(action=replace(an_embodiment().action, **changes))


def test_the_same_conventions_pair():
    pair(agent=an_embodiment(), env=an_embodiment(), dataset=an_embodiment())


def test_an_agent_may_use_fewer_cameras_than_the_environment_has():
    pair(agent=an_embodiment().with_cameras(["wrist"]), env=an_embodiment())
    with pytest.raises(ConventionMismatch, match=r"cameras\.wrist.*'present' \(agent\).*only front"):
        pair(agent=an_embodiment(), env=an_embodiment().with_cameras(["front"]))


def test_an_agent_that_reads_no_state_takes_any():
    pair(agent=an_embodiment(state=None), env=an_embodiment())
    with pytest.raises(ConventionMismatch, match="state"):
        pair(agent=an_embodiment(), env=an_embodiment(state=None))


@pytest.mark.parametrize(
    "other, says",
    [
        (with_action(control="absolute"), r"action\.control: 'delta' \(agent\) against 'absolute' \(env\)"),
        (with_action(gripper_closed=-1), r"action\.gripper_closed: 1 \(agent\) against -1 \(env\)"),
        (with_action(units=("m", "cm", "1")), r"action\.units"),
        (with_action(high=(1.0, 1.0, 0.5)), r"action\.high"),
        (an_embodiment(rate=10.0), r"rate: 20\.0 \(agent\) against 10\.0 \(env\)"),
        (an_embodiment(state=StateSpec(("x", "y"), ("m", "m"), rotation="axis_angle")), r"state\.rotation"),
        (
            an_embodiment(cameras=(Camera("front", 96, 96, "mujoco:shadow=1"), an_embodiment().cameras[1])),
            r"cameras\.front\.renderer: 'mujoco:shadow=0' \(agent\) against 'mujoco:shadow=1' \(env\)",
        ),
        (
            an_embodiment(cameras=(an_embodiment().cameras[0], Camera("wrist", 64, 64, "mujoco:shadow=0"))),
            r"cameras\.wrist\.depth",
        ),
    ],
)
def test_each_disagreement_is_named_with_both_values(other, says):
    with pytest.raises(ConventionMismatch, match=says) as caught:
        pair(agent=an_embodiment(), env=other)
    assert "\n" not in str(caught.value)


def test_it_survives_json():
    import json

    body = an_embodiment()
    assert Embodiment.from_dict(json.loads(json.dumps(body.to_dict()))) == body
    assert Embodiment.from_dict(an_embodiment(state=None).to_dict()).state is None


@pytest.mark.parametrize(
    "break_it", [lambda r: r.pop("action"), lambda r: r["action"].update(colour="red"), dict.clear]
)
def test_a_damaged_record_is_refused(break_it):
    record = an_embodiment().to_dict()
    break_it(record)
    with pytest.raises(ValueError, match="not an embodiment record"):
        Embodiment.from_dict(record)


def test_an_unknown_camera_is_answered_with_the_known():
    with pytest.raises(ValueError, match="no camera 'top' on arm: it has front, wrist"):
        an_embodiment().with_cameras(["top"])


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"units": ("m",)}, "units has 1 entries, but names has 3"),
        ({"control": "sideways"}, "ActionSpec.control is one of absolute, delta"),
        ({"gripper": 3}, "dimensions 0 to 2"),
        ({"gripper_closed": 0}, "a sign, -1 or 1"),
    ],
)
def test_a_wrong_specification_is_refused_where_it_is_written(wrong, says):
    with pytest.raises(ValueError, match=says):
        with_action(**wrong)


def test_a_rate_is_positive():
    with pytest.raises(ValueError, match="Hz"):
        an_embodiment(rate=0.0)
