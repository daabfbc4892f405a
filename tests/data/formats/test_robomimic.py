"""robomimic's HDF5, written here by h5py alone, is read exactly; what is damaged or points elsewhere is refused."""

import h5py
import numpy as np
import pytest

from embodied.data.formats import ForeignDataset, Keys, open_source

STATE = ["obs/robot0_eef_pos", "obs/robot0_gripper_qpos"]


@pytest.fixture
def file(tmp_path, files):
    return files.robomimic(tmp_path / "lift.hdf5")


def opened(file, subset=None, **more):
    return ForeignDataset(open_source(file, subset=subset), Keys(state=STATE), instruction="lift the cube", **more)


def test_every_number_comes_back(file, files):
    dataset = opened(file)
    assert len(dataset) == 3 and dataset.fps == 20 and dataset.robot == "Panda"
    assert dataset.cameras == ("agentview", "wrist") and dataset.source.format == "robomimic"
    for number in range(3):
        episode, wanted = dataset.episode(number), files.demonstration(number)
        np.testing.assert_array_equal(episode["observation.images.agentview"], wanted["top"])
        np.testing.assert_array_equal(episode["observation.images.wrist"], wanted["wrist"])
        np.testing.assert_array_equal(episode["action"], wanted["action"])
        state = np.concatenate([wanted["position"], wanted["opening"]], axis=1)
        np.testing.assert_array_equal(episode["observation.state"], state)
        np.testing.assert_array_equal(episode["next.reward"], wanted["reward"])
        np.testing.assert_array_equal(episode["next.done"], wanted["done"])
        assert episode["task"] == "lift the cube" and episode["action"].dtype == np.float32


def test_a_mask_is_a_subset(file, files):
    dataset = opened(file, subset="valid")
    assert dataset.source.names == ["demo_0", "demo_2"]
    np.testing.assert_array_equal(dataset.episode(1)["action"], files.demonstration(2)["action"])
    with pytest.raises(ValueError, match="no subset 'vald'; did you mean 'valid'"):
        opened(file, subset="vald")


def test_keys_may_be_named_joined_and_cut(file, files):
    keys = Keys(cameras={"eye": "obs/wrist_image"}, state=["obs/robot0_gripper_qpos[1:]", "obs/robot0_eef_pos[:2]"])
    dataset = ForeignDataset(open_source(file), keys, instruction="t")
    wanted = files.demonstration(1)
    np.testing.assert_array_equal(
        dataset.episode(1)["observation.state"],
        np.concatenate([wanted["opening"][:, 1:], wanted["position"][:, :2]], axis=1),
    )
    assert dataset.cameras == ("eye",)
    assert dataset.features["observation.state"].names == [
        "robot0_gripper_qpos_1",
        "robot0_eef_pos_0",
        "robot0_eef_pos_1",
    ]


def test_bounds_rate_and_names_are_taken_from_the_file(file, files):
    embodiment = opened(file, conventions=files.conventions).embodiment
    actions = np.concatenate([files.demonstration(number)["action"] for number in range(3)])
    assert embodiment.action.low == tuple(actions.min(0).tolist())
    assert embodiment.action.high == tuple(actions.max(0).tolist())
    assert embodiment.rate == 20 and embodiment.name == "Panda" and embodiment.state.names[3] == "robot0_gripper_qpos_0"
    assert [(camera.height, camera.width) for camera in embodiment.cameras] == [(12, 16)] * 2
    with pytest.raises(ValueError, match="conventions are not guessed"):
        _ = opened(file).embodiment


def test_libero_says_its_instruction_itself(file):
    with h5py.File(file, "a") as out:
        out["data"].attrs["problem_info"] = '{"language_instruction": ["pick", "up the bowl"]}'
    assert ForeignDataset(open_source(file), Keys(state=STATE)).episode(0)["task"] == "pick up the bowl"


def test_an_instruction_may_be_stored_beside_the_steps(file):
    with h5py.File(file, "a") as out:
        for number, length in enumerate((6, 9, 4)):
            out[f"data/demo_{number}/said"] = [f"lift {number}"] * length
    dataset = ForeignDataset(open_source(file), Keys(state=STATE, task="said"))
    assert [dataset.episode(number)["task"] for number in range(3)] == ["lift 0", "lift 1", "lift 2"]


@pytest.mark.parametrize(
    "keys, says",
    [
        (Keys(), "which keys of .* make the state"),
        (Keys(state=["obs/robot0_eef_pso"]), "no 'obs/robot0_eef_pso' .*did you mean 'obs/robot0_eef_pos'"),
        (
            Keys(state=[], cameras={"a": "obs/robot0_eef_pos"}),
            r"'obs/robot0_eef_pos' .* is float32 \(3,\) per step, not",
        ),
        (Keys(state=["obs/robot0_eef_pos[7:]"]), "takes nothing: 'obs/robot0_eef_pos' .* has 3 components"),
        (Keys(state=[], task="rewards"), "is float32, and keys.task is text"),
    ],
)
def test_a_key_that_is_not_there_is_named(file, keys, says):
    with pytest.raises(ValueError, match=says):
        ForeignDataset(open_source(file), keys, instruction="t")


def test_what_is_not_told_is_asked_for(file):
    with pytest.raises(ValueError, match="holds no instruction: give instruction="):
        ForeignDataset(open_source(file), Keys(state=STATE))
    with pytest.raises(ValueError, match=r"fps is 10, but .* was recorded at 20"):
        opened(file, fps=10)
    with h5py.File(file, "a") as out:
        del out["data"].attrs["env_args"]
    with pytest.raises(ValueError, match="how many steps a second has: give fps"):
        opened(file)
    assert opened(file, fps=10).fps == 10


def replaced(group, key, values):
    del group[key]
    group[key] = values


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda g: g["actions"].__setitem__((3, 1), np.nan), "demo_1: 'action' is not finite at step 3"),
        (
            lambda g: replaced(g, "actions", g["actions"][:-1]),
            r"demo_1: 'actions' has \(8,\) steps, but num_samples says 9",
        ),
        (lambda g: g.__delitem__("obs/wrist_image"), "demo_1: there is no 'obs/wrist_image'; did you mean"),
        (
            lambda g: replaced(g, "obs/wrist_image", np.zeros((9, 4, 4, 3), np.uint8)),
            r"demo_1: .* is \(4, 4, 3\) per step",
        ),
        (lambda g: replaced(g, "rewards", np.array(["x"] * 9, object)), "demo_1: 'rewards' is not an array of numbers"),
    ],
)
def test_damage_is_named_by_demonstration_and_key(file, damage, says):
    with h5py.File(file, "a") as out:
        damage(out["data/demo_1"])
    dataset = opened(file)
    assert len(dataset.episode(0)["action"]) == 6
    with pytest.raises(ValueError, match=says) as error:
        dataset.episode(1)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_lengths_that_disagree_are_noticed_without_num_samples(file):
    with h5py.File(file, "a") as out:
        del out["data/demo_1"].attrs["num_samples"]
        replaced(out["data/demo_1"], "rewards", np.zeros(4))
    with pytest.raises(ValueError, match="demo_1: 'rewards' has 4 steps, but 'obs/agentview_image' has 9"):
        opened(file).episode(1)


def external_link(group, other):
    group["rewards"] = h5py.ExternalLink(other, "data/demo_0/rewards")


def soft_link(group, other):
    group["rewards"] = h5py.SoftLink("/data/demo_0/rewards")


def external_storage(group, other):
    group.create_dataset("rewards", (9,), "f8", external=[(other, 0, 72)])


def virtual(group, other):
    layout = h5py.VirtualLayout((9,), "f8")
    layout[:] = h5py.VirtualSource(other, "data/demo_1/rewards", (9,))
    group.create_virtual_dataset("rewards", layout)


@pytest.mark.parametrize(
    "point, says",
    [
        (external_link, "'/data/demo_1/rewards' is a link to another file .*: not followed"),
        (soft_link, "'/data/demo_1/rewards' is a link to another place .*: not followed"),
        (external_storage, "'rewards' is stored in another file"),
        (virtual, "'rewards' is stored in another file"),
    ],
)
def test_nothing_outside_the_file_is_read(file, tmp_path, files, point, says):
    other = files.robomimic(tmp_path / "other.hdf5")
    with h5py.File(file, "a") as out:
        del out["data/demo_1/rewards"]
        point(out["data/demo_1"], str(other))
    with pytest.raises(ValueError, match=says):
        opened(file).episode(1)


def test_a_group_that_is_a_link_is_not_followed(file, tmp_path, files):
    other = files.robomimic(tmp_path / "other.hdf5")
    with h5py.File(file, "a") as out:
        del out["data/demo_0"]
        out["data/demo_0"] = h5py.ExternalLink(str(other), "data/demo_0")
    with pytest.raises(ValueError, match="link to another file"):
        opened(file)


def test_an_array_too_large_to_be_true_is_not_read(file):
    with h5py.File(file, "a") as out:
        for key in ("rewards", "num_samples"):
            del (out["data/demo_1"] if key == "rewards" else out["data/demo_1"].attrs)[key]
        out["data/demo_1"].create_dataset("rewards", (10**12,), "f8", chunks=(1000,))
    with pytest.raises(ValueError, match="demo_1: 'rewards' claims 7451 GB for one episode"):
        opened(file).episode(1)


def test_a_file_that_is_something_else_or_cut_short_is_refused(file, tmp_path):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"lift.hdf5 is not an HDF5 file, or was cut short"):
        open_source(file)
    with h5py.File(tmp_path / "empty.hdf5", "w"):
        pass
    with pytest.raises(ValueError, match="has no 'data' in '/': not a robomimic file"):
        open_source(tmp_path / "empty.hdf5")
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "absent.hdf5", "robomimic")
