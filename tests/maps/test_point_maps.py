"""Voxels and open-vocabulary cells hold the means a loop finds, and can be asked; rotations change no token."""

import math

import pytest
import torch
from torch import nn

from maps.geometry import camera_pose, unproject
from maps.open_vocabulary import OpenVocabularyMap
from maps.voxels import VoxelMap

F, D = 5, 8
AROUND = {"size": 16, "resolution": 0.5, "far": 9.0, "window": 8, "patch": 4, "ceiling": 1.75}


def step(seed, batch=2, views=2, side=6, turn=0.0):
    g = torch.Generator().manual_seed(seed)
    place = torch.rand(batch, views, 3, generator=g)
    x, y, heading = place[..., 0], place[..., 1], place[..., 2] * 6 + turn
    x, y = math.cos(turn) * x - math.sin(turn) * y, math.sin(turn) * x + math.cos(turn) * y
    return {
        "observation.depth.front": torch.rand(batch, views, side, side, generator=g) * 3,
        "observation.pose": camera_pose(x, y, torch.full_like(x, 1.25), heading),
        "observation.features.front": torch.randn(batch, views, F, 3, 3, generator=g),
    }


def points_by_hand(observations, row):
    """Every believed point of an episode: place from the first view, height, feature."""
    first = observations[0]["observation.pose"][row, 0, :2, 3]
    for observation in observations:
        for view in range(observation["observation.depth.front"].shape[1]):
            depth = observation["observation.depth.front"][row, view]
            pose = observation["observation.pose"][row, view]
            picture = observation["observation.features.front"][row, view : view + 1]
            fine = nn.functional.interpolate(picture, depth.shape, mode="bilinear", align_corners=True)[0]
            places = unproject(depth, pose, 90)
            for r in range(depth.shape[0]):
                for c in range(depth.shape[1]):
                    if depth[r, c] > 0.05 and places[r, c, 2] < 1.75:
                        x, y = (places[r, c, :2] - first).tolist()
                        yield (x, y, places[r, c, 2].item()), fine[:, r, c]


def test_voxels_are_the_means_of_their_points():
    torch.manual_seed(0)
    grid = VoxelMap(D, F, capacity=500, surroundings=AROUND)
    memory, observations = grid.begin(2), [step(n) for n in range(3)]
    for observation in observations:
        grid.update(memory, observation)
    for row in range(2):
        expected = {}
        for (x, y, z), feature in points_by_hand(observations, row):
            i, j = math.floor(x / 0.5 + 8), math.floor(y / 0.5 + 8)
            if z > -0.5 and 0 <= i < 16 and 0 <= j < 16:
                expected.setdefault((i, j, max(math.floor(z / 0.5), 0)), []).append(feature)
        places, features = grid.cloud(memory, row)
        assert len(places) == len(expected) > 20
        for place, feature in zip(places, features, strict=True):
            i, j = ((place[:2] / 0.5) + 8).floor().int().tolist()
            members = torch.stack(expected[i, j, math.floor(place[2] / 0.5)])
            torch.testing.assert_close(feature, members.mean(0), atol=1e-4, rtol=1e-4)
    assert not memory["lost"].any()


def test_a_full_memory_counts_what_it_loses_and_keeps_the_rest():
    grid = VoxelMap(D, F, capacity=10, surroundings=AROUND)
    memory = grid.begin(2)
    grid.update(memory, step(0))
    whole = VoxelMap(D, F, capacity=500, surroundings=AROUND)
    other = whole.begin(2)
    whole.update(other, step(0))
    assert memory["used"].tolist() == [10, 10]
    assert torch.equal(memory["lost"], other["used"] - 10)
    torch.testing.assert_close(memory["sum"], other["sum"][:, :10])
    grid.update(memory, step(0))
    torch.testing.assert_close(memory["sum"], 2 * other["sum"][:, :10])


@pytest.mark.parametrize("kind", [VoxelMap, OpenVocabularyMap])
def test_slots_are_independent_and_forget(kind):
    torch.manual_seed(0)
    grid = kind(D, F, surroundings=AROUND)
    both, one = grid.begin(2), grid.begin(1)
    first = {key: value[:1] for key, value in step(0).items()}
    grid.update(both, {key: value[1:] for key, value in step(1).items()}, [1])
    grid.update(both, {key: value[1:] for key, value in step(2).items()}, [0])
    both.reset([0])
    grid.update(both, first, [0])
    grid.update(one, first)
    torch.testing.assert_close(grid(both, slots=[0]).tokens, grid(one).tokens)
    torch.testing.assert_close(grid(both).tokens[:1], grid(one).tokens)


def test_turning_everything_turns_no_block():
    torch.manual_seed(0)
    grid = VoxelMap(D, F, surroundings=AROUND | {"resolution": 0.02, "size": 400, "window": 300, "patch": 100})
    read = []
    for turn in (0.0, math.pi / 2):
        memory = grid.begin(1)
        for n in range(2):
            grid.update(memory, step(n, batch=1, turn=turn))
        read.append(grid(memory))
    same = (read[0].present == read[1].present).float().mean()
    assert same > 0.9 and read[0].present.sum() > 6
    both = read[0].present & read[1].present
    gap = (read[0].tokens - read[1].tokens)[both].abs().mean()
    spread = (read[0].tokens[both] - grid.places.expand(1, -1, -1)[both]).abs().mean()
    assert gap < 0.15 * spread  # voxels are world-aligned, so a few points change theirs


@pytest.mark.parametrize("kind", [VoxelMap, OpenVocabularyMap])
def test_gradients_reach_the_first_view(kind):
    torch.manual_seed(0)
    grid = kind(D, F, surroundings=AROUND)
    memory, first = grid.begin(2), step(0)
    first["observation.features.front"].requires_grad_()
    grid.update(memory, first)
    grid.update(memory, step(1))
    tokens, present = grid(memory)
    assert tokens.shape == (2, 4 * (2 if kind is VoxelMap else 1), D)
    tokens[present].square().sum().backward()
    assert first["observation.features.front"].grad.abs().sum() > 0
    assert all(p.grad is not None for p in grid.parameters())


def test_cells_are_the_means_of_what_stands_in_them():
    grid = OpenVocabularyMap(D, F, low=0.1, surroundings=AROUND)
    memory, observations = grid.begin(2), [step(n) for n in range(3)]
    for observation in observations:
        grid.update(memory, observation)
    for row in range(2):
        expected = {}
        for (x, y, z), feature in points_by_hand(observations, row):
            i, j = math.floor(x / 0.5 + 8), math.floor(y / 0.5 + 8)
            if z > 0.1 and 0 <= i < 16 and 0 <= j < 16:
                expected.setdefault(i * 16 + j, []).append(feature)
        assert set(memory["points"][row].nonzero().squeeze(1).tolist()) == set(expected)
        for cell, members in expected.items():
            mean = memory["sum"][row, cell] / memory["points"][row, cell]
            torch.testing.assert_close(mean, torch.stack(members).mean(0), atol=1e-4, rtol=1e-4)


def test_a_wall_of_words_answers_where_they_are():
    """Left half of the wall says the first word, the right half the second."""
    grid = OpenVocabularyMap(D, F, surroundings=AROUND)
    memory = grid.begin(1)
    words = torch.eye(F)
    picture = torch.stack([words[0], words[1]], dim=1).view(1, F, 1, 2).expand(-1, -1, 2, -1)
    x, y, z, heading = (torch.tensor([v]) for v in (5.0, 5.0, 1.25, 0.0))
    grid.update(
        memory,
        {
            "observation.depth.front": torch.full((1, 20, 20), 2.2),
            "observation.pose": camera_pose(x, y, z, heading),
            "observation.features.front": picture,
        },
    )
    said = grid.categories(memory, words[:3])[0]
    assert said[8 + 4, 9:12].tolist() == [0, 0, 0] and said[8 + 4, 4:7].tolist() == [1, 1, 1]
    assert (said[:12] == -1).all()
    for word, left in ((0, True), (1, False)):
        place, cosine = grid.find(memory, words[word])
        assert cosine > 0.95 and (place[0, 1] > 0) == left and 2.0 <= place[0, 0] <= 2.5
        world = grid.to_world(memory, 0, place[0])
        assert (world[1] > 5) == left
    assert grid.ask(memory, words).shape == (1, F, 16, 16)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: VoxelMap(D, F, capacity=0), "capacity must be at least 1"),
        (lambda: VoxelMap(D, F, surroundings={"window": 9}), "whole number of blocks"),
        (lambda: OpenVocabularyMap(D, 0), "features must be at least 1"),
        (lambda: (g := OpenVocabularyMap(D, F)).ask(g.begin(1), torch.eye(3)), "texts have 3 features"),
        (lambda: (g := VoxelMap(D, 3, surroundings=AROUND)).update(g.begin(2), step(0)), "has 5 features"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(make, says):
    with pytest.raises(ValueError, match=says):
        make()
