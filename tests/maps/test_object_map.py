"""Objects have the boxes and points that were seen of them, and become tokens that know where the agent stands."""

import pytest
import torch

from maps.geometry import camera_pose, unproject
from maps.objects import ObjectMap, SpatialLayer, pairwise_places
from maps.pointnet import PointNet, farthest_points, neighbourhoods

D = 8
SMALL = {"centres": [4, 2], "neighbours": 3, "hidden": [[8], [8], [8]]}


def a_map(**settings):
    torch.manual_seed(0)
    sizes = {"objects": 6, "points": 16, "new_points": 8, "hidden": 16, "heads": 2, "feed_forward": 16}
    return ObjectMap(D, **sizes | settings, pointnet=SMALL, surroundings={"far": 9.0, "ceiling": 9.0}).eval()


def step(seed=0, batch=2, side=6, kinds=5):
    g = torch.Generator().manual_seed(seed)
    x, y, heading = torch.rand(3, batch, generator=g)
    return {
        "observation.depth.front": torch.rand(batch, side, side, generator=g) * 3 + 0.1,
        "observation.pose": camera_pose(x, y, torch.full_like(x, 1.25), heading * 6),
        "observation.instance.front": torch.randint(0, kinds, (batch, side, side), generator=g),
        "observation.images.front": torch.randint(0, 256, (batch, side, side, 3), generator=g, dtype=torch.uint8),
    }


def by_hand(observations, row):
    first = observations[0]["observation.pose"][row, :3, 3] - torch.tensor([0.0, 0.0, 1.25])
    clouds = {}
    for observation in observations:
        points = (
            unproject(observation["observation.depth.front"][row], observation["observation.pose"][row], 90) - first
        )
        instance, image = (observation[f"observation.{name}.front"][row] for name in ("instance", "images"))
        for r in range(points.shape[0]):
            for c in range(points.shape[1]):
                if instance[r, c] > 0:
                    colour = image[r, c].float() / 127.5 - 1
                    clouds.setdefault(int(instance[r, c]), []).append(torch.cat([points[r, c], colour]))
    return {name: torch.stack(cloud) for name, cloud in clouds.items()}


def test_boxes_are_those_of_all_points_ever_seen():
    grid, observations = a_map(), [step(0), step(1), step(2, kinds=7)]
    memory = grid.begin(2)
    for observation in observations:
        grid.update(memory, observation)
    boxes, present = grid.boxes(memory, memory.rows())
    for row in range(2):
        expected = by_hand(observations, row)
        assert sorted(memory["name"][row][present[row]].tolist()) == sorted(expected)
        for place in present[row].nonzero().squeeze(1).tolist():
            cloud = expected[int(memory["name"][row, place])][:, :3]
            low, high = cloud.amin(0), cloud.amax(0)
            torch.testing.assert_close(boxes[row, place], torch.cat([(low + high) / 2, high - low]), atol=1e-4, rtol=0)


def test_points_of_a_view_are_spread_evenly_and_none_is_made_up():
    grid = a_map(points=64, new_points=5)
    memory, observation = grid.begin(2), step(3, kinds=3)
    grid.update(memory, observation)
    for row in range(2):
        for place in (memory["name"][row] >= 0).nonzero().squeeze(1).tolist():
            seen = by_hand([observation], row)[int(memory["name"][row, place])]
            kept = memory["cloud"][row, place, : int(memory["written"][row, place])]
            assert len(kept) == min(5, len(seen))
            at = [int((seen - point).abs().sum(1).argmin()) for point in kept]
            torch.testing.assert_close(kept, seen[at], atol=1e-5, rtol=0)
            gaps = torch.tensor(at).diff()
            assert (gaps > 0).all() and gaps.max() - gaps.min() <= 1


def test_few_points_are_all_kept_and_the_newest_stay():
    grid = a_map(points=8, new_points=8)
    memory = grid.begin(1)
    observations = [step(n, batch=1, side=3, kinds=2) for n in range(4)]
    for observation in observations:
        grid.update(memory, observation)
    newest = by_hand(observations[:1], 0)[1]
    first = observations[0]["observation.pose"][0, :3, 3]
    shift = torch.cat([observations[-1]["observation.pose"][0, :3, 3] - first, torch.zeros(3)])
    newest = by_hand(observations[-1:], 0)[1] + shift
    kept = memory["cloud"][0, 0]
    for point in newest:
        assert (kept - point).abs().sum(1).min() < 1e-4


def test_more_objects_than_fit_are_left_out():
    grid = a_map(objects=2)
    memory = grid.begin(2)
    grid.update(memory, step(0, kinds=6))
    grid.update(memory, step(1, kinds=9))
    assert memory["count"].tolist() == [2, 2] and grid(memory).tokens.shape == (2, 3, D)


def test_who_shares_the_batch_changes_nothing():
    grid = a_map()
    both, one = grid.begin(2), grid.begin(1)
    grid.update(both, step(0, kinds=6))
    mine = {key: value[:1] for key, value in step(0, kinds=6).items()}
    grid.update(one, mine)
    tokens = grid(one).tokens
    torch.testing.assert_close(grid(both).tokens[:1, : tokens.shape[1]], tokens, atol=1e-5, rtol=1e-4)
    both.reset([1])
    read = grid(both)
    assert read.present[1].sum() == 1 and read.tokens.isfinite().all()


def test_the_embodied_token_knows_where_the_agent_looks():
    grid = a_map()
    memory = grid.begin(1)
    grid.update(memory, step(0, batch=1))
    before = grid(memory).tokens
    memory["agent"][0, 2] += 1.0
    after = grid(memory).tokens
    assert not torch.allclose(before[0, 0], after[0, 0])
    memory["agent"][0, 2] -= 1.0
    memory["agent"][0, 0] += 2.0
    assert not torch.allclose(before[0, 1:], grid(memory).tokens[0, 1:])  # objects attend to where it stands


def test_every_part_learns():
    grid = a_map()
    memory = grid.begin(2)
    grid.update(memory, step(0))
    tokens, present = grid(memory)
    tokens[present].square().sum().backward()
    assert [name for name, p in grid.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_attention_is_the_formula():
    torch.manual_seed(0)
    layer = SpatialLayer(4, 1, 8, 0.0).eval()
    tokens, middles = torch.randn(1, 3, 4), torch.randn(1, 3, 3)
    present = torch.tensor([[True, True, False]])
    pairs = pairwise_places(middles, present)
    x, y, z = (middles[0, 0] - middles[0, 1]).tolist()
    distance, plan = (x * x + y * y + z * z) ** 0.5, (x * x + y * y) ** 0.5
    assert pairs[0, 0, 1].tolist() == pytest.approx([1.0, z / distance, plan / distance, y / plan, x / plan], abs=1e-4)
    q, k, v = layer.project(tokens)[0].chunk(3, -1)
    w = layer.condition(tokens)[0]
    logits = torch.tensor(
        [
            [float(q[n] @ k[m]) / 2 + float(torch.sigmoid(w[n, 1:] @ pairs[0, n, m] + w[n, 0]).log()) for m in range(2)]
            for n in range(3)
        ]
    )
    answer = layer.norms[0](tokens[0] + layer.out(logits.softmax(-1) @ v[:2]))
    hidden = layer.norms[1](tokens[0] + answer)
    expected = layer.norms[2](hidden + layer.think(hidden))
    torch.testing.assert_close(layer(tokens, pairs, present)[0], expected, atol=1e-4, rtol=1e-3)


def test_farthest_points_and_neighbourhoods_are_those_of_a_loop():
    g = torch.Generator().manual_seed(0)
    points = torch.rand(1, 12, 3, generator=g)
    present = torch.ones(1, 12, dtype=torch.bool)
    present[0, [0, 7]] = False
    chosen = [1]
    while len(chosen) < 5:
        left = [n for n in range(12) if present[0, n]]
        chosen.append(max(left, key=lambda n: min(float((points[0, n] - points[0, c]).norm()) for c in chosen)))
    assert farthest_points(points, present, 5)[0].tolist() == chosen
    centres = points[:, chosen]
    near = neighbourhoods(points, present, centres, 0.5, 4)[0]
    for place, centre in enumerate(chosen):
        by_distance = sorted((float((points[0, n] - points[0, centre]).norm()), n) for n in range(12) if present[0, n])
        within = [n for distance, n in by_distance if distance <= 0.5][:4]
        assert near[place].tolist() == within + [centre] * (4 - len(within))


def test_points_that_are_not_there_change_no_cloud():
    torch.manual_seed(0)
    net = PointNet(3, 5, **SMALL)
    points, colours = torch.randn(2, 9, 3), torch.randn(2, 9, 3)
    present = torch.ones(2, 9, dtype=torch.bool)
    present[:, 6:] = False
    garbage = torch.where(present.unsqueeze(-1), points, torch.full_like(points, 50.0))
    torch.testing.assert_close(
        net(points, colours, present), net(garbage, colours + (~present).unsqueeze(-1) * 9, present)
    )
    torch.testing.assert_close(net(points, colours, present), net(points[:, :6], colours[:, :6], present[:, :6]))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"observation.instance.front": None}, r"needs observation\.instance\.front"),
        ({"observation.images.front": torch.zeros(2, 6, 5, 3)}, r"should be \(2, 1, 6, 6, 3\)"),
    ],
)
def test_a_wrong_observation_is_one_clear_line(change, says):
    grid = a_map()
    observation = {key: value for key, value in (step() | change).items() if value is not None}
    with pytest.raises(ValueError, match=says):
        grid.update(grid.begin(2), observation)
    with pytest.raises(ValueError, match="don't fit into points=4"):
        a_map(points=4)
