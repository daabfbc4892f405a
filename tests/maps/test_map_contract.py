"""What holds for every map: its YAML builds it, slots are episodes of their own, and its tokens join the backbone."""

import dataclasses
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import conf
from embodied.building import build, find_class
from embodied.contracts import MapEncoder
from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.observer import Prefix
from embodied.lvlm.sequence import Segment, pack
from maps.base import MapMemory, Text
from maps.geometry import camera_pose

CONFIGS = sorted((Path(conf.__file__).parent / "map").glob("*.yaml"))
D, F, SIDE = 16, 6, 8
SMALL = {"size": 32, "resolution": 0.25, "window": 16, "patch": 4}
VIEWS = {
    "occupancy": {"classes": 5},
    "smnet": {"features": F, "memory": 8, "classes": 0},
    "trans4map": {"features": F, "memory": 8, "classes": 0, "horizon": 4},
    "gridmm": {"features": F, "capacity": 64, "dropout": 0.0},
    "waypoints": {"features": F, "dropout": 0.0},
    "voxels": {"features": F, "capacity": 400},
    "objects": {"objects": 5, "points": 16, "new_points": 8, "dropout": 0.0},
    "open_vocabulary": {"features": F},
    "value": {},
}
"""The maps that read views, and settings that make them small."""


def make(name):
    torch.manual_seed(0)
    node = OmegaConf.to_container(OmegaConf.load(Path(conf.__file__).parent / f"map/{name}.yaml"))
    if "surroundings" in node:
        node["surroundings"] |= {k: v for k, v in SMALL.items() if k in node["surroundings"]}
    return build(node | VIEWS[name], (torch.nn.Module,), width=D).eval()


def step(seed, batch=3):
    g = torch.Generator().manual_seed(seed)
    x, y, heading = torch.rand(3, batch, generator=g)
    return {
        "observation.depth.front": torch.rand(batch, SIDE, SIDE, generator=g) * 3 + 0.1,
        "observation.pose": camera_pose(x, y, torch.full_like(x, 1.25), heading * 6),
        "observation.semantic.front": torch.randint(0, 5, (batch, SIDE, SIDE), generator=g),
        "observation.instance.front": torch.randint(0, 4, (batch, SIDE, SIDE), generator=g),
        "observation.images.front": torch.randint(0, 255, (batch, SIDE, SIDE, 3), generator=g, dtype=torch.uint8),
        "observation.features.front": torch.randn(batch, F, 2, 2, generator=g),
        "observation.value": torch.rand(batch, 1, generator=g),
    }


def some(observation, rows):
    return {key: value[rows] for key, value in observation.items()}


def a_text(batch=3):
    g = torch.Generator().manual_seed(9)
    return Text(torch.randn(batch, 4, D, generator=g), torch.ones(batch, 4, dtype=torch.bool))


def one(text, row):
    return Text(text.tokens[row : row + 1], text.present[row : row + 1])


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_its_config_builds_it_and_says_every_argument(file):
    import inspect

    node = OmegaConf.to_container(OmegaConf.load(file))
    cls = find_class(node["_target_"])
    asked = {name for name in inspect.signature(cls).parameters if name != "width"}
    assert asked - set(node) == set()
    takes = inspect.signature(cls).parameters
    own = {} if "width" in node or "width" not in takes else {"width": D}
    if "features" in takes and node["features"] is None:
        own["features"] = F  # as the observer fills in
        del node["features"]
    made = build(node, **own)
    if isinstance(made, MapMemory):
        encoder: MapEncoder = made
        assert encoder.width == D and encoder.begin(1).bytes > 0


def test_every_map_has_a_config():
    targets = {OmegaConf.load(file)["_target_"].split(".")[1] for file in CONFIGS}
    shared = {
        "base",
        "geometry",
        "grid",
        "windows",
        "sight",
        "attention",
        "graph",
        "nodes",
        "panorama",
        "pointnet",
        "pictures",
    }
    folder = Path(find_class("maps.smnet.SMNet").__init__.__code__.co_filename).parent
    assert targets == {file.stem for file in folder.glob("*.py")} - shared - {"__init__"}


@pytest.mark.parametrize("name", VIEWS)
def test_a_slot_is_an_episode_whoever_shares_the_memory(name):
    map_, text = make(name), a_text()
    memory, alone = map_.begin(3), map_.begin(1)
    map_.update(memory, step(0))
    map_.update(memory, some(step(1), [0, 2]), [2, 0])  # rows in any order
    memory.reset([1])
    for seed in (2, 3):
        map_.update(memory, some(step(seed), [1]), [1])
        map_.update(alone, some(step(seed), [1]))
    tokens, present = map_(memory, one(text, 1), [1])
    expected = map_(alone, one(text, 1))
    assert torch.equal(present, expected.present) and present.any()
    torch.testing.assert_close(tokens, expected.tokens, atol=1e-5, rtol=1e-4)
    together = map_(memory, text)
    assert together.tokens.shape[::2] == (3, D) and together.tokens.isfinite().all()
    count = tokens.shape[1]
    kept = together.present[1, :count]
    torch.testing.assert_close(together.tokens[1, :count][kept], tokens[0][present[0]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", VIEWS)
def test_who_sees_nothing_remembers_what_it_knew(name):
    map_, text = make(name), a_text(1)
    memory, nothing = map_.begin(1), map_.begin(1)
    observation = some(step(0), [0])
    dark = observation | {"observation.depth.front": torch.full((1, SIDE, SIDE), torch.nan)}
    map_.update(nothing, dark)
    tokens, present = map_(nothing, text)
    assert tokens.isfinite().all() and present.sum() <= 1  # the agent itself, where it has a token
    map_.update(memory, observation)
    before = map_(memory, text)
    map_.update(memory, dark)
    if name != "trans4map":  # which counts views
        torch.testing.assert_close(map_(memory, text).tokens, before.tokens)
    assert torch.equal(map_(memory, text).present, before.present)


@pytest.mark.parametrize("name", VIEWS)
def test_reading_a_history_is_updating_step_by_step(name):
    map_, text = make(name), a_text()
    steps = [step(seed) for seed in range(3)]
    batch = {key: torch.stack([s[key] for s in steps], dim=1) for key in steps[0]}
    padding = torch.tensor([[False, False, False], [True, False, False], [True, True, False]])
    read, fed = map_.read(batch | {"observation_is_pad": padding, "task": ["a", "b", "c"]}), map_.begin(3)
    for number, observation in enumerate(steps):
        rows = (~padding[:, number]).nonzero().squeeze(1)
        map_.update(fed, some(observation, rows), rows)
    torch.testing.assert_close(map_(read, text).tokens, map_(fed, text).tokens)
    assert torch.equal(map_(read, text).present, map_(fed, text).present)


@pytest.mark.parametrize("name", VIEWS)
def test_a_memory_does_not_grow_with_the_episode(name):
    map_ = make(name)
    memory, sizes = map_.begin(1), []
    with torch.no_grad():
        for seed in range(12):
            map_.update(memory, some(step(seed % 3), [0]))
            sizes.append(memory.bytes)
    assert sizes[-1] <= max(sizes[:6])
    if name != "trans4map":  # whose diary fills up to its horizon
        assert len(set(sizes)) == 1


@pytest.mark.parametrize("name", VIEWS)
def test_its_tokens_are_a_modality_of_the_language_model(name):
    """As `maps.base` says: a segment beside the instruction's, whose absent tokens nobody sees, and which learns."""
    map_ = make(name).train()
    config = {
        "model_type": "llama", "hidden_size": D, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    backbone = CausalBackbone(config, vocabulary=32)
    words = backbone.embed(torch.arange(12).view(3, 4))
    text = Text(words, torch.ones(3, 4, dtype=torch.bool))
    batch = {key: value.unsqueeze(1) for key, value in step(0).items()}
    read = map_(map_.read(batch), text)

    def readout(tokens):
        packed = pack([Segment(*text), Segment(tokens, read.present, 0)], "bidirectional")
        hidden, cache = backbone(packed.tokens, packed.mask, packed.positions, keep=True)
        prefix = Prefix(backbone, cache, packed.present, hidden)
        return prefix.extend(torch.zeros(3, 1, D), causal=False)[0]

    said = readout(read.tokens)
    absent = torch.where(read.present.unsqueeze(-1), read.tokens, torch.full_like(read.tokens, 7.0))
    torch.testing.assert_close(said, readout(absent), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(said, readout(torch.zeros_like(read.tokens)), atol=1e-4)
    said.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in map_.parameters())


@pytest.mark.parametrize("name", ["occupancy", "smnet", "voxels", "objects", "open_vocabulary"])
def test_looking_at_every_other_pixel_is_looking_where_nothing_else_is(name, monkeypatch):
    """What a stride leaves out is what isn't there; free space apart, of which each block's pixel speaks for all."""
    monkeypatch.setitem(VIEWS, name, VIEWS[name] | {"new_points": 1} if name == "objects" else VIEWS[name])
    every, other = make(name), make(name)
    other.around = dataclasses.replace(other.around, stride=2)
    observation = step(0)
    kept = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    kept[1::2, 1::2] = True
    thinned = observation | {"observation.depth.front": observation["observation.depth.front"] * kept}
    memories = every.begin(3), other.begin(3)
    every.update(memories[0], thinned)
    other.update(memories[1], observation)
    for column in set(every.every_column()) - {"looked"}:
        torch.testing.assert_close(memories[0][column], memories[1][column], msg=column)
    other.around = dataclasses.replace(other.around, stride=3)
    with pytest.raises(ValueError, match="8 x 8 is no whole number of blocks of stride 3"):
        other.update(memories[1], observation)
