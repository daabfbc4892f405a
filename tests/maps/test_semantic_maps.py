"""SMNet and Trans4Map remember what a loop over pixels, cells and steps would, and learn through it."""

import pytest
import torch
from torch import nn

from maps.geometry import camera_pose, unproject
from maps.smnet import SMNet
from maps.trans4map import Trans4Map

AROUND = {"size": 12, "resolution": 0.5, "far": 8.0, "window": 8, "patch": 4}
F, M = 6, 5


def steps(count=3, batch=2, side=6, seed=0, views=1):
    """Random depths and features from random places near the middle."""
    g = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        place = torch.rand(batch, views, 4, generator=g) * torch.tensor([1.0, 1.0, 0.0, 6.0])
        made.append(
            {
                "observation.depth.front": torch.rand(batch, views, side, side, generator=g) * 3,
                "observation.pose": camera_pose(place[..., 0], place[..., 1], place[..., 2] + 1.25, place[..., 3]),
                "observation.features.front": torch.randn(batch, views, F, 3, 3, generator=g, requires_grad=True),
            }
        )
    return made


def a_map(kind=SMNet, seed=0, **settings):
    torch.manual_seed(seed)
    return kind(8, features=F, memory=M, classes=4, surroundings=AROUND, **settings)


def by_hand(grid, observations, row):
    """{cell: [feature of each step that saw it, in order]}, with Python's own loops."""
    origin, seen = None, []
    for observation in observations:
        depth = observation["observation.depth.front"][row]
        pose, features = observation["observation.pose"][row], observation["observation.features.front"][row]
        if origin is None:
            origin = pose[0, :2, 3]
        for view in range(len(depth)):
            side = depth.shape[-1]
            fine = nn.functional.interpolate(
                features[view : view + 1], (side, side), mode="bilinear", align_corners=True
            )
            points = unproject(depth[view], pose[view], 90)
            best = {}
            for r in range(side):
                for c in range(side):
                    x, y, z = points[r, c].tolist()
                    i, j = ((v - o) / 0.5 + 6 for v, o in zip((x, y), origin.tolist(), strict=True))
                    if depth[view, r, c] <= 0.05 or z - pose[view, 2, 3] >= 0.5 or not (0 <= i < 12 and 0 <= j < 12):
                        continue
                    cell = int(i) * 12 + int(j)
                    if cell not in best or z > best[cell][0]:
                        best[cell] = (z, fine[0, :, r, c])
            seen.append({cell: feature for cell, (_, feature) in best.items()})
    return seen


def test_each_cell_remembers_what_a_loop_over_its_views_gives():
    grid = a_map()
    observations = steps(views=2)
    memory = grid.begin(2)
    for observation in observations:
        grid.update(memory, observation)
    for row in range(2):
        state = {}
        for view in by_hand(grid, observations, row):
            for cell, feature in view.items():
                state[cell] = grid.write(feature[None], state.get(cell, torch.zeros(1, M)))
        assert set(state) == set(memory["seen"][row].nonzero().squeeze(1).tolist()) and len(state) > 10
        for cell, value in state.items():
            torch.testing.assert_close(memory["state"][row, cell], value[0], atol=1e-5, rtol=1e-4)


def test_both_directions_are_what_loops_forwards_and_backwards_give():
    grid = a_map(Trans4Map)
    observations = steps()
    memory = grid.begin(2)
    for observation in observations:
        grid.update(memory, observation)
    index = torch.arange(144).expand(2, -1)
    fused = grid.fused(memory, memory.rows(), index)
    for row in range(2):
        views = by_hand(grid, observations, row)
        for cell in {cell for view in views for cell in view} | {0}:
            features = [view[cell] for view in views if cell in view]
            ahead = behind = torch.zeros(1, M)
            for feature in features:
                ahead = grid.forwards(feature[None], ahead)
            for feature in reversed(features):
                behind = grid.backwards(feature[None], behind)
            both = torch.cat([ahead, behind], dim=-1).view(1, -1, 1, 1)
            torch.testing.assert_close(fused[row, cell], grid.fuse(both).flatten(), atol=1e-5, rtol=1e-4)


def test_trans4map_has_smnets_memory_in_it():
    one, two = a_map(SMNet), a_map(Trans4Map)
    two.forwards.load_state_dict(one.write.state_dict())
    memories = [grid.begin(2) for grid in (one, two)]
    for observation in steps():
        for grid, memory in zip((one, two), memories, strict=True):
            grid.update(memory, observation)
    assert torch.equal(memories[0]["state"], memories[1]["state"])


def test_reading_backwards_goes_over_the_horizon_and_no_further():
    short, long = a_map(Trans4Map, horizon=2), a_map(Trans4Map, horizon=9)
    observations = steps(4, seed=3)
    index = torch.arange(144).expand(2, -1)
    whole, last = long.begin(2), long.begin(2)
    kept = short.begin(2)
    for number, observation in enumerate(observations):
        long.update(whole, observation)
        short.update(kept, observation)
        if number == 0:
            last["origin"], last["begun"] = whole["origin"].clone(), whole["begun"].clone()
        if number >= 2:
            long.update(last, observation)
    rows = kept.rows()
    behind = [grid._backward_states(m, rows, index) for grid, m in ((short, kept), (long, last), (long, whole))]
    torch.testing.assert_close(behind[0], behind[1])
    assert not torch.allclose(behind[0], behind[2])


@pytest.mark.parametrize("kind", [SMNet, Trans4Map])
def test_gradients_reach_the_first_view_and_the_encoder(kind):
    grid = a_map(kind)
    observations = steps()
    memory = grid.begin(2)
    for observation in observations:
        grid.update(memory, observation)
    tokens, present = grid(memory)
    assert tokens.shape == (2, 4, 8) and present.any()
    (tokens.sum() + grid.loss(memory, torch.zeros(2, 12, 12, dtype=torch.long))["loss"]).backward()
    for observation in observations:
        assert observation["observation.features.front"].grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in grid.parameters())


@pytest.mark.parametrize("kind", [SMNet, Trans4Map])
def test_only_observed_cells_are_learned(kind):
    grid = a_map(kind).eval()
    memory = grid.begin(2)
    grid.update(memory, steps(1)[0])
    target = torch.randint(4, (2, 12, 12))
    seen = grid.picture(memory["seen"])
    other = torch.where(seen, target, (target + 1) % 4)
    with torch.no_grad():
        loss = grid.loss(memory, target)["loss"]
        assert torch.equal(loss, grid.loss(memory, other)["loss"])
        assert not torch.equal(loss, grid.loss(memory, torch.where(seen, other - 1, other) % 4)["loss"])
        logits = grid.decode(memory["state"] if kind is SMNet else grid.fused(
            memory, memory.rows(), torch.arange(144).expand(2, -1)))  # fmt: skip
    each = nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss, each[seen].mean())


def test_the_loss_of_nothing_is_nothing():
    grid = a_map()
    assert grid.loss(grid.begin(1), torch.zeros(1, 12, 12, dtype=torch.long))["loss"] == 0


@pytest.mark.parametrize("kind", [SMNet, Trans4Map])
def test_it_learns_to_draw_a_map(kind):
    """Features that say the category become a map that says it too."""
    grid = a_map(kind)
    optimizer = torch.optim.Adam(grid.parameters(), 1e-2)
    target = torch.zeros(2, 12, 12, dtype=torch.long)
    target[:, 6:], target[:, 9:] = 1, 2
    for step in range(40):
        memory, first = grid.begin(2), None
        for observation in steps(2, seed=step % 4):
            points = unproject(observation["observation.depth.front"], observation["observation.pose"], 90)
            first = observation["observation.pose"][:, 0, 0, 3] if first is None else first
            along = ((points[..., 0] - first.view(2, 1, 1, 1)) / 0.5 + 6).floor().clamp(0, 11).long()
            said = nn.functional.one_hot(target[0, :, 0][along], F).float()
            grid.update(memory, observation | {"observation.features.front": said.movedim(-1, 2)})
        optimizer.zero_grad()
        loss = grid.loss(memory, target)["loss"]
        loss.backward()
        optimizer.step()
    assert loss < 0.15, loss


@pytest.mark.parametrize("cell", ["gru", "lstm", "replace"])
def test_each_cell_forgets_on_reset_and_changes_only_what_it_saw(cell):
    grid = a_map(cell=cell)
    memory = grid.begin(2)
    first, second = steps(2)
    grid.update(memory, first)
    before = memory["state"].detach().clone()
    grid.update(memory, {key: value[:1] for key, value in second.items()}, [1])
    assert torch.equal(memory["state"][0], before[0]) and not torch.equal(memory["state"][1], before[1])
    memory.reset([1])
    assert not memory["state"][1].any() and memory["state"][0].any()
    fresh = grid.begin(2)
    grid.update(fresh, {key: value[:1] for key, value in first.items()}, [1])
    grid.update(memory, {key: value[:1] for key, value in first.items()}, [1])
    torch.testing.assert_close(memory["state"][1], fresh["state"][1])


def test_a_reset_diary_is_empty():
    grid = a_map(Trans4Map)
    memory = grid.begin(2)
    grid.update(memory, steps(1)[0])
    used = memory.bytes
    memory.reset()
    assert memory.bytes < used and not any(memory.steps)
    assert not grid(memory).present.any()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: a_map(cell="grru"), "no cell 'grru'; did you mean 'gru'"),
        (lambda: a_map(Trans4Map, horizon=0), "horizon must be at least 1"),
        (lambda: SMNet(8, features=0), "features=0"),
        (lambda: SMNet(8, classes=0).decode(torch.zeros(1)), "no decoder"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_features_of_another_encoder_are_refused():
    grid = a_map()
    observation = steps(1)[0] | {"observation.features.front": torch.zeros(2, 1, 3, 3, 3)}
    with pytest.raises(ValueError, match="has 3 features, but this map was made for 6"):
        grid.update(grid.begin(2), observation)
