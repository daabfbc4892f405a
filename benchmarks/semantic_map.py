"""How well a memory of projected features draws the semantic map of houses it was never in.

    python -m benchmarks.semantic_map [--map smnet] [--minutes 40] [--houses 200] [--test 40] [--seed 0]

Semantic MapNet's task in generated houses: a tour of RGB-D views with known poses becomes a map of the plan, whose
cells are one of 12 categories of furniture or void. The tour: 20 views, 4 from each of 5 points within 4 m of the
first; the map: 64 x 64 cells of 0.15 m around it. The truth of a cell is the category of the highest surface over its
middle, below half a metre above the camera, as SMNet has it. The encoder is a small convolutional network that is
trained with the map (SMNet freezes one that was trained to segment); houses of the test are none of the training's.

Printed: mean intersection over union over the categories that occur in the test's truth, on the cells that were
observed, all cells of all test houses counted together as SMNet does, with the 95 % interval of a bootstrap over
houses - without and with void -, the same per category, and beside it the map of true categories of each pixel, by
majority vote in each cell, which says what the projection alone loses.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn

from envs.house.categories import MP3D_ID
from envs.house.generate import generate
from envs.house.houses import SPLITS, House
from envs.house.renderer import Renderer
from envs.house.scene import Scene
from envs.house.simulator import AgentState, camera_pose
from maps.occupancy import OccupancyMap
from maps.smnet import ProjectedMap, SMNet
from maps.trans4map import Trans4Map

NAMES = (
    "void", "shelving", "chest_of_drawers", "bed", "cushion", "fireplace", "sofa", "table", "chair", "cabinet",
    "plant", "counter", "sink",
)  # fmt: skip
"""SMNet's categories."""
CLASS = np.zeros(256, np.int64)
CLASS[[MP3D_ID[name] for name in NAMES[1:]]] = np.arange(1, len(NAMES))

POINTS, TURNS, REACH, EYE, SIDE = 5, 4, 4.0, 1.25, 64
AROUND = {"size": 64, "resolution": 0.15, "eye": EYE, "ceiling": EYE + 0.5, "far": 8.0, "window": 64, "patch": 8}


class Encoder(nn.Module):
    """RGB-D pictures (I, 4, H, W) to features (I, F, H / 2, W / 2).

    Args:
        features: F.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride, wide in ((4, 32, 2, 1), (32, 48, 1, 1), (48, 48, 1, 2), (48, 48, 1, 4)):
            convolution = nn.Conv2d(before, after, 3, stride, padding=wide, dilation=wide)
            layers += [convolution, nn.GroupNorm(8, after), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(48, features, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.net(pictures)


def truth(scene: Scene, origin: np.ndarray) -> np.ndarray:
    """(size, size) the class of the highest surface over the middle of each cell, 0 for void."""
    size, step = int(AROUND["size"]), float(AROUND["resolution"])
    axis = (np.arange(size) + 0.5 - size / 2) * step
    x, y = np.meshgrid(origin[0] + axis, origin[1] + axis, indexing="ij")
    top, kind = np.zeros((size, size)), np.zeros((size, size), np.int64)
    for part, (x0, y0, z0, x1, y1, z1) in enumerate(scene.bounds):
        if z0 >= AROUND["ceiling"]:
            continue
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        if scene.round[part]:
            inside = np.hypot(x - (x0 + x1) / 2, y - (y0 + y1) / 2) <= (x1 - x0) / 2
        inside &= min(z1, float(AROUND["ceiling"])) > top
        top[inside], kind[inside] = z1, CLASS[scene.semantic[part]]
    return kind


def tour(seed: int, rng: np.random.Generator) -> dict[str, Tensor]:
    """One house: its views (T, ...), poses and truth."""
    house = House(generate(seed))
    finder = house.finder()
    first = finder.random_point(rng)
    places = [first]
    while len(places) < POINTS:
        point = finder.random_point(rng)
        if np.linalg.norm(point - first) < REACH:
            places.append(point)
    states = []
    for place in places:
        heading = float(rng.uniform(-np.pi, np.pi))
        states += [AgentState(*place.tolist(), heading + turn * 2 * np.pi / TURNS) for turn in range(TURNS)]
    renderer = Renderer(house.scene, SIDE, SIDE, 90, ("rgb", "depth", "semantic"))
    seen = renderer.render(np.array([[s.x, s.y, EYE, s.heading, 0.0] for s in states], np.float32))
    return {
        "rgb": torch.from_numpy(seen["rgb"]),
        "depth": torch.from_numpy(seen["depth"]),
        "semantic": torch.from_numpy(CLASS[seen["semantic"]]),
        "pose": torch.from_numpy(np.stack([camera_pose(state, EYE) for state in states])),
        "truth": torch.from_numpy(truth(house.scene, first)),
    }


def tours(split: str, count: int, seed: int) -> list[dict[str, Tensor]]:
    rng = np.random.default_rng([seed, SPLITS[split]])
    return [tour(SPLITS[split] + number, rng) for number in range(count)]


def observations(batch: list[dict[str, Tensor]], encoder: Encoder) -> dict[str, Tensor]:
    """Tours as a history (B, T, ...), features included."""
    rgb, depth = (torch.stack([t[key] for t in batch]) for key in ("rgb", "depth"))
    pictures = torch.cat([rgb.movedim(-1, 2).float() / 127.5 - 1, depth.unsqueeze(2) / 5 - 1], dim=2)
    features = encoder(pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])
    pose = torch.stack([t["pose"] for t in batch])
    return {"observation.depth.front": depth, "observation.pose": pose, "observation.features.front": features}


def train(map_: ProjectedMap, encoder: Encoder, data: list[dict[str, Tensor]], options: argparse.Namespace) -> None:
    """Until the time is over, the learning rate falling to 0 with it."""
    parameters = [*map_.parameters(), *encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, options.rate, weight_decay=1e-3)
    rng, start, step, shown = np.random.default_rng(options.seed), time.monotonic(), 0, 0.0
    map_.train(), encoder.train()
    while (done := (time.monotonic() - start) / (60 * options.minutes)) < 1:
        batch = [data[n] for n in rng.choice(len(data), min(options.batch, len(data)), replace=False)]
        for group in optimizer.param_groups:
            group["lr"] = options.rate * (1 - done)
        memory = map_.read(observations(batch, encoder))
        loss = map_.loss(memory, torch.stack([t["truth"] for t in batch]))["loss"]  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        shown = 0.95 * shown + 0.05 * loss.item() if step else loss.item()
        step += 1
        if step % 50 == 0:
            print(f"step {step:5} at {done:4.0%}: loss {shown:.3f}", flush=True)
    print(f"{step} steps in {options.minutes:g} minutes")


def counts(said: Tensor, truth_: Tensor, seen: Tensor) -> np.ndarray:
    """(3, classes): intersection, said, true, over the cells seen."""
    said, truth_ = said[seen], truth_[seen]
    both = torch.bincount(truth_[said == truth_], minlength=len(NAMES))
    return torch.stack([both, *(torch.bincount(x, minlength=len(NAMES)) for x in (said, truth_))]).numpy()


def scores(per_house: np.ndarray, void: bool) -> tuple[float, np.ndarray]:
    """Mean IoU over the classes in the truth, and each class's (NaN where it is not there)."""
    both, said, true = per_house.sum(0)
    each = np.where(true > 0, both / np.maximum(said + true - both, 1), np.nan)
    each[0] = each[0] if void else np.nan
    return float(np.nanmean(each)), each


def report(name: str, per_house: np.ndarray, rng: np.random.Generator) -> None:
    for void in (False, True):
        mean, each = scores(per_house, void)
        drawn = [scores(per_house[rng.integers(len(per_house), size=len(per_house))], void)[0] for _ in range(1000)]
        low, high = np.percentile(drawn, [2.5, 97.5])
        kind = "with void" if void else "without void"
        print(f"{name:24} mIoU {kind:12} {mean:6.1%} (95 % interval {low:.1%} to {high:.1%}, {len(per_house)} houses)")
    print("  " + ", ".join(f"{n} {e:.0%}" for n, e in zip(NAMES, each, strict=True) if not np.isnan(e)))


@torch.no_grad()
def evaluate(map_: ProjectedMap, encoder: Encoder, data: list[dict[str, Tensor]], name: str) -> None:
    map_.eval(), encoder.eval()
    oracle = OccupancyMap(8, classes=len(NAMES), low=-0.1, surroundings=AROUND)
    learned, bound = [], []
    for one in data:
        seen = observations([one], encoder)
        memory = map_.read(seen)
        states = memory["state"]
        if isinstance(map_, Trans4Map):
            states = map_.fused(memory, memory.rows(), torch.arange(map_.grid.cells)[None])
        mask = map_.picture(memory["seen"])[0]
        learned.append(counts(map_.decode(states).argmax(1)[0], one["truth"], mask))
        true = oracle.read(seen | {"observation.semantic.front": one["semantic"][None]})
        bound.append(counts(oracle.categories(true)[0].clamp(min=0), one["truth"], mask))
    report(name, np.stack(learned), np.random.default_rng(0))
    report("true pixels, by majority", np.stack(bound), np.random.default_rng(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", choices=("smnet", "trans4map"), default="smnet")
    parser.add_argument("--cell", choices=("gru", "lstm", "replace"), default="gru", help="of smnet")
    parser.add_argument("--minutes", type=float, default=40, help="of training")
    parser.add_argument("--houses", type=int, default=200, help="to train in")
    parser.add_argument("--test", type=int, default=40, help="houses to test in")
    parser.add_argument("--batch", type=int, default=4, help="tours per step")
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--memory", type=int, default=48, help="numbers per cell")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    sizes = (8, options.features, options.memory, len(NAMES))
    map_: ProjectedMap
    if options.map == "smnet":
        map_ = SMNet(*sizes, cell=options.cell, surroundings=AROUND)
    else:
        map_ = Trans4Map(*sizes, horizon=POINTS * TURNS, surroundings=AROUND)
    encoder = Encoder(options.features)
    data = tours("train", options.houses, options.seed)
    print(f"{len(data)} tours of {POINTS * TURNS} views", flush=True)
    train(map_, encoder, data, options)
    evaluate(map_, encoder, tours("test", options.test, options.seed), options.map)


if __name__ == "__main__":
    main()
