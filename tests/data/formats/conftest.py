"""Small files of each format, made without the code that reads them, and what is in them."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

LENGTHS = (6, 9, 4)
CONVENTIONS = {
    "action": {
        "control": "delta",
        "space": "cartesian",
        "rotation": "none",
        "frame": "base",
        "units": "1",
        "gripper": 2,
        "gripper_closed": 1,
    },
    "state": {"rotation": "quaternion_xyzw", "frame": "world", "units": "m"},
    "renderer": "mujoco:shadow=1",
}


def demonstration(number, height=12, width=16):
    """What an episode holds; the same for every format."""
    rng, length = np.random.default_rng(number), LENGTHS[number]
    return {
        "top": rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8),
        "wrist": rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8),
        "position": rng.normal(size=(length, 3)).astype(np.float32),
        "opening": rng.normal(size=(length, 2)).astype(np.float32),
        "action": rng.uniform(-1, 1, (length, 3)).astype(np.float32),
        "reward": rng.normal(size=length).astype(np.float32),
        "done": np.arange(length) == length - 1,
    }


def write_robomimic(file):
    import h5py

    with h5py.File(file, "w") as out:
        data = out.create_group("data")
        environment = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"], "control_freq": 20}}
        data.attrs["env_args"] = json.dumps(environment)
        for number in (2, 0, 1):
            episode, group = demonstration(number), data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = LENGTHS[number]
            group["actions"], group["rewards"] = episode["action"].astype(np.float64), episode["reward"]
            group["dones"] = episode["done"].astype(np.int64)
            for name in ("obs", "next_obs"):
                group[f"{name}/agentview_image"], group[f"{name}/wrist_image"] = episode["top"], episode["wrist"]
                group[f"{name}/robot0_eef_pos"] = episode["position"]
                group[f"{name}/robot0_gripper_qpos"] = episode["opening"]
        out["mask/valid"] = np.array([b"demo_2", b"demo_0"])
    return file


def write_zarr(root, blosc=True, images=np.uint8):
    """Zarr 2 by the description of its format, not by zarr's own writer: JSON beside files of bytes."""
    import numcodecs

    codec = numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE) if blosc else None
    episodes = [demonstration(number) for number in range(3)]
    arrays = {f"data/{key}": np.concatenate([e[key] for e in episodes]) for key in ("position", "opening", "action")}
    arrays |= {f"data/{key}": np.concatenate([e[key] for e in episodes]).astype(images) for key in ("top", "wrist")}
    arrays["meta/episode_ends"] = np.cumsum(LENGTHS)
    root.mkdir()
    for group in ("", "data", "meta"):
        (root / group).mkdir(exist_ok=True)
        (root / group / ".zgroup").write_text('{"zarr_format": 2}')
    for key, values in arrays.items():
        write_zarray(root / key, values, codec)
    return root


def write_zarray(folder, values, codec, **more):
    folder.mkdir()
    chunk = 5  # steps: chunks go across the ends of episodes
    record = {
        "zarr_format": 2,
        "shape": list(values.shape),
        "chunks": [chunk, *values.shape[1:]],
        "dtype": values.dtype.str,
        "compressor": codec.get_config() if codec else None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (folder / ".zarray").write_text(json.dumps(record | more))
    for number, start in enumerate(range(0, len(values), chunk)):
        block = np.zeros((chunk, *values.shape[1:]), values.dtype)
        block[: len(values[start : start + chunk])] = values[start : start + chunk]
        name = ".".join([str(number), *["0"] * (values.ndim - 1)])
        (folder / name).write_bytes(codec.encode(block) if codec else block.tobytes())


def varint(value):
    value &= 2**64 - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def member(number, data):
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values, packed=True):
    """A `tf.train.Feature`, byte by byte (https://protobuf.dev/programming-guides/encoding)."""
    if isinstance(values, list):
        return member(1, b"".join(member(1, value) for value in values))
    flat = values.ravel()
    if flat.dtype.kind == "f":
        if not packed:
            return member(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in flat))
        return member(2, member(1, flat.astype("<f4").tobytes()))
    return member(3, member(1, b"".join(varint(int(value)) for value in flat)))


def example(features, packed=True):
    """A `tf.train.Example`."""
    pairs = (member(1, key.encode()) + member(2, feature(v, packed)) for key, v in features.items())
    return member(1, b"".join(member(1, pair) for pair in pairs))


def sequence_example(context, lists):
    """A `tf.train.SequenceExample`."""
    pairs = (member(1, key.encode()) + member(2, feature(values)) for key, values in context.items())
    steps = (
        member(1, member(1, key.encode()) + member(2, b"".join(member(1, feature(one)) for one in values)))
        for key, values in lists.items()
    )
    return member(1, b"".join(member(1, pair) for pair in pairs)) + member(2, b"".join(steps))


def crc32c(data):
    """CRC-32C bit by bit, by its definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def record(data):
    """A record of a TFRecord file."""

    def masked(part):
        crc = crc32c(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def compressed(image, format):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=format)
    return buffer.getvalue()


def rlds_features(number):
    """Features of an episode as TensorFlow Datasets flattens them."""
    episode = demonstration(number)
    return {
        "steps/action": episode["action"],
        "steps/observation/state": np.concatenate([episode["position"], episode["opening"]], axis=1),
        "steps/observation/image": [compressed(image, "PNG") for image in episode["top"]],
        "steps/observation/wrist_image": [compressed(image, "JPEG") for image in episode["wrist"]],
        "steps/language_instruction": [f"task {number % 2}".encode()] * LENGTHS[number],
        "steps/reward": episode["reward"],
        "steps/is_last": episode["done"].astype(np.int64),
        "steps/count": np.arange(LENGTHS[number]) - 2,
        "episode_metadata/file_path": [b"somewhere"],
    }


def write_rlds(root):
    def one(kind, **more):
        return {"pythonClassName": f"tensorflow_datasets.core.features.{kind}", **more}

    def tensor(shape, dtype):
        shape = {"dimensions": [str(size) for size in shape]} if shape else {}
        return one("tensor_feature.Tensor", tensor={"shape": shape, "dtype": dtype, "encoding": "none"})

    def image(format):
        shape = {"dimensions": ["12", "16", "3"]}
        return one("image_feature.Image", image={"shape": shape, "dtype": "uint8", "encodingFormat": format})

    def folder(**features):
        return one("features_dict.FeaturesDict", featuresDict={"features": features})

    steps = folder(
        action=tensor([3], "float32"),
        observation=folder(state=tensor([5], "float32"), image=image("png"), wrist_image=image("jpeg")),
        language_instruction=one("text_feature.Text", text={}),
        reward=tensor([], "float32"),
        is_last=tensor([], "bool"),
        count=tensor([], "int32"),
        odd=one("video_feature.Video"),
    )
    steps = one("dataset_feature.Dataset", sequence={"feature": steps, "length": "-1"})
    metadata = folder(file_path=one("text_feature.Text", text={}))
    root.mkdir()
    (root / "features.json").write_text(json.dumps(folder(steps=steps, episode_metadata=metadata)))
    split = {"name": "train", "shardLengths": ["2", "1"], "numBytes": "0"}
    (root / "dataset_info.json").write_text(json.dumps({"name": "toy", "splits": [split], "fileFormat": "tfrecord"}))
    for shard, numbers in enumerate([(0, 1), (2,)]):
        content = b"".join(record(example(rlds_features(number))) for number in numbers)
        (root / f"toy-train.tfrecord-{shard:05d}-of-00002").write_bytes(content)
    return root


class Files:
    """The functions above, as a fixture."""

    lengths, conventions = LENGTHS, CONVENTIONS
    demonstration = staticmethod(demonstration)
    robomimic = staticmethod(write_robomimic)
    zarr = staticmethod(write_zarr)
    zarray = staticmethod(write_zarray)
    rlds = staticmethod(write_rlds)
    rlds_features = staticmethod(rlds_features)
    record = staticmethod(record)
    example = staticmethod(example)
    sequence_example = staticmethod(sequence_example)
    compressed = staticmethod(compressed)


@pytest.fixture(scope="session")
def files():
    return Files
