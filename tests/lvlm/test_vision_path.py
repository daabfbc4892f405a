"""Pictures and films on their way to tokens: counted before they are encoded, in order, whoever shares the batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from embodied.building import build
from embodied.lvlm.chat.media import Film
from embodied.lvlm.connectors.base import Context
from embodied.lvlm.connectors.identity import IdentityConnector
from embodied.lvlm.connectors.pooled import PooledConnector
from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector
from embodied.lvlm.connectors.qformer import QFormer
from embodied.lvlm.connectors.stages import PixelShuffle, Pool, SpaceTimeMeans, Stage
from embodied.lvlm.connectors.temporal import TemporalModule
from embodied.lvlm.encoders.qwen import QwenVision
from embodied.lvlm.encoders.spacetime import SpaceTimeTransformer
from embodied.lvlm.encoders.video import FrameEncoder
from embodied.lvlm.encoders.vision import VisionTransformer
from embodied.lvlm.resolution.anyres import AnyRes
from embodied.lvlm.resolution.native import Native
from embodied.lvlm.resolution.single import SingleView
from embodied.lvlm.vision import VisionPath

CONF = Path(__file__).resolve().parents[2] / "conf"
VIT = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIGLIP = VIT | {"intermediate_size": 64, "model_type": "siglip_vision_model"}
QWEN = {"depth": 2, "embed_dim": 32, "hidden_size": 24, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4}
WIDTH = 24
ASKING = {"queries": 3, "hidden": 32, "layers": 2, "heads": 4, "intermediate": 64, "vocabulary": 64, "positions": 16}


def frames(count, size=(40, 31), seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)
    return [Image.fromarray(each) for each in noise]


def seeing(connector=None, video=None, film=None, stage=None, encoder=None, resolution=None):
    """A path with random weights; `connector` and `film` make a connector of features of width 32."""
    torch.manual_seed(0)
    make = connector or (lambda: LinearConnector(32, WIDTH))
    path = VisionPath(
        encoder or VisionTransformer(SIGLIP), make(), resolution or SingleView(WIDTH), video, film and film(), stage
    )
    with torch.no_grad():
        for parameter in path.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return path.eval()


def by_frame(**options):
    return FrameEncoder(VisionTransformer(SIGLIP), **options)


def qwen():
    resolution = Native(WIDTH, unit=8, min_pixels=64, max_pixels=64 * 16)
    return seeing(lambda: IdentityConnector(WIDTH, WIDTH), "together", encoder=QwenVision(QWEN), resolution=resolution)


def tiles(**options):
    return AnyRes(WIDTH, side=32, pinpoints=[[32, 64], [64, 32], [64, 64]], **options)


WAYS = {
    "pictures": lambda: seeing(),
    "tiles": lambda: seeing(resolution=tiles()),
    "together": lambda: seeing(video="together"),
    "pooled": lambda: seeing(lambda: PooledConnector(32, WIDTH, 2, 2), "together"),
    "pooled over time": lambda: seeing(lambda: PooledConnector(32, WIDTH, 2, 2, frames=2), "together"),
    "asked together": lambda: seeing(lambda: QFormer(32, WIDTH, **ASKING), "together"),
    "asked frame by frame": lambda: seeing(lambda: QFormer(32, WIDTH, **ASKING, per_frame=True), "together"),
    "gathered over time": lambda: seeing(lambda: TemporalModule(32, WIDTH), "together"),
    "video-chatgpt": lambda: seeing(video=by_frame(pool="spatial_temporal", times=6)),
    "mean over time": lambda: seeing(video=by_frame(pool="mean")),
    "a connector of its own": lambda: seeing(video="together", film=lambda: QFormer(32, WIDTH, **ASKING)),
    "a stage": lambda: seeing(video="together", stage=Pool(2, 2)),
    "a stage over time": lambda: seeing(video="together", stage=Pool(2, 2, frames=2)),
    "a stage of means": lambda: seeing(video="together", stage=SpaceTimeMeans(6)),
    "a stage and a connector": lambda: seeing(
        video="together", stage=PixelShuffle(2), film=lambda: LinearConnector(128, WIDTH)
    ),
    "pairs": qwen,
    "shrunk": lambda: seeing(video="together", resolution=tiles(film_scale=2)),
    "shrunk unevenly": lambda: seeing(video="together", resolution=tiles(film_scale=3, newline=False)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 3, 4])
def test_as_many_tokens_come_as_were_counted(way, count):
    path = WAYS[way]()
    clip = path.film(frames(count), [0.5 * i for i in range(count)])
    measured = path.measured(clip)
    assert isinstance(measured, Film) and list(measured.seconds) == sorted(measured.seconds)
    (tokens,) = path([clip])
    assert tokens.shape == (sum(run.count for run in measured.frames), WIDTH)
    if way != "tiles":  # whose ends of rows are in no grid
        assert sum(int(np.prod(grid)) for grid in path.grids(clip)) == len(tokens)


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_what_shares_the_batch_changes_nothing(way):
    path = WAYS[way]()
    seen = [
        path.film(frames(3), range(3)),
        path.prepare(frames(1, seed=1)[0]),
        path.film(frames(2, seed=2), range(2)),
        path.film(frames(3, seed=3), range(3)),
        path.prepare(frames(1, (60, 20), seed=4)[0]),
    ]
    together = path(seen)
    assert not torch.allclose(together[0], together[3])
    for one, tokens in zip(seen, together, strict=True):
        torch.testing.assert_close(path([one])[0], tokens, atol=2e-5, rtol=0)


@pytest.mark.parametrize("way", ["pictures", "tiles", "together", "pooled", "asked frame by frame", "a stage"])
@torch.no_grad()
def test_frames_that_stay_apart_keep_their_order_and_know_nothing_of_each_other(way):
    path, shown = WAYS[way](), frames(3)
    (tokens,) = path([path.film(shown, range(3))])
    alone = [path([path.film([frame], [0])])[0] for frame in shown]
    torch.testing.assert_close(tokens, torch.cat(alone), atol=1e-5, rtol=0)
    assert (alone[0] - alone[1]).abs().max() > 1e-2


@pytest.mark.parametrize("way", ["pictures", "tiles", "together", "pooled", "asked together", "asked frame by frame"])
@torch.no_grad()
def test_a_film_of_one_frame_is_that_picture(way):
    path, shown = WAYS[way](), frames(1)
    torch.testing.assert_close(path([path.film(shown, [0])]), path([path.prepare(shown[0])]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_equal_frames_say_over_time_what_one_says():
    shown = frames(1) * 4
    for way in ("mean over time", "pooled over time", "a stage over time"):
        path = WAYS[way]()
        film, one = (path([path.film(each, range(len(each)))])[0] for each in (shown, shown[:1]))
        torch.testing.assert_close(film, one.repeat(len(film) // len(one), 1), atol=1e-5, rtol=0)
    for way in ("asked together", "a connector of its own"):  # attention to the same four times over
        path = WAYS[way]()
        film, one = (path([path.film(each, range(len(each)))])[0] for each in (shown, shown[:1]))
        torch.testing.assert_close(film, one, atol=1e-5, rtol=0)


@torch.no_grad()
def test_pllava_pools_what_was_projected():
    path, shown = WAYS["pooled over time"](), frames(4)
    connector, clip = path.connector, path.film(shown, range(4))
    features = torch.cat([path.encoder.encode(frame.views[0][0].unsqueeze(0)) for frame in clip.frames])
    maps = connector.mlp(features).numpy().reshape(2, 2, 2, 2, 2, 2, WIDTH)  # time, row and column, each in halves
    expected = maps.mean((1, 3, 5)).reshape(8, WIDTH)
    np.testing.assert_allclose(path([clip])[0].numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_a_stage_merges_frames_ahead_of_the_connector_that_pictures_share():
    """As LLaVA-NeXT-Video does: an average pool by 2, then the projection."""
    path, shown = seeing(lambda: MLPConnector(32, WIDTH), "together", stage=Pool(2, 2)), frames(3)
    clip = path.film(shown, range(3))
    features = torch.cat([path.encoder.encode(frame.views[0][0].unsqueeze(0)) for frame in clip.frames])
    pooled = F.avg_pool2d(features.transpose(1, 2).unflatten(2, (4, 4)), 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(path([clip])[0], path.connector(pooled).flatten(0, 1), atol=1e-5, rtol=0)
    assert len(path([path.prepare(shown[0])])[0]) == 16  # pictures are not pooled
    assert path.grids(clip) == [(3, 2, 2)]


@torch.no_grad()
@pytest.mark.parametrize("way", ["video-chatgpt", "a stage of means"])
def test_video_chatgpts_features_are_means_over_space_and_then_over_time(way):
    path, shown = WAYS[way](), frames(4)
    clip = path.film(shown, range(4))
    encoder = path.encoder if path.video is None else path.video.encoder
    features = encoder.encode(torch.stack([frame.views[0][0] for frame in clip.frames])).numpy()
    expected = np.zeros((6 + 16, 32), np.float32)
    expected[:4], expected[6:] = features.mean(1), features.mean(0)
    weight, bias = (p.numpy() for p in path.connector.parameters())
    np.testing.assert_allclose(path([clip])[0].numpy(), expected @ weight.T + bias, atol=1e-5)
    assert path.measured(clip).seconds == (0,)  # one frame to the template
    with pytest.raises(ValueError, match=r"7 frames.* (than times=6|at most 6 are read)"):
        path.film(frames(7), range(7))


@pytest.mark.parametrize("file", sorted((CONF / "video_stage").glob("*.yaml")), ids=lambda file: file.stem)
@torch.no_grad()
def test_a_stage_by_its_name_gives_as_many_features_as_it_promises(file):
    stage = build(yaml.safe_load(file.read_text(encoding="utf-8")), (Stage,))
    features = torch.randn(2, 3 * 24 * 24, 8)
    merged, _ = stage(features, Context(grid=(24, 24), frames=3))
    assert merged.shape[1:] == (np.prod(stage.film_grid((3, 24, 24))), stage.create(8))


@torch.no_grad()
def test_a_connector_of_their_own_reads_films_and_no_pictures():
    path, shown = WAYS["a connector of its own"](), frames(3)
    before = path([path.prepare(shown[0]), path.film(shown, range(3))])
    for parameter in path.video_connector.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    after = path([path.prepare(shown[0]), path.film(shown, range(3))])
    assert torch.equal(before[0], after[0]) and (before[1] - after[1]).abs().max() > 1e-3
    path.connector.net.weight.mul_(2)
    last = path([path.prepare(shown[0]), path.film(shown, range(3))])
    assert torch.equal(after[1], last[1]) and not torch.allclose(after[0], last[0])


@torch.no_grad()
def test_pairs_of_frames_are_seen_when_the_first_of_them_is():
    path, shown = qwen(), frames(5)
    clip = path.film(shown, [0.0, 0.5, 1.0, 1.5, 2.0])
    assert path.measured(clip).seconds == (0.0, 1.0, 2.0)
    times, rows, columns = path.grids(clip)[0]
    assert times == 3 and (rows, columns) == path.grids(path.prepare(shown[0]))[0]
    swapped = path.film([*shown[:3], shown[4], shown[4]], clip.seconds)
    moved = (path([clip])[0] - path([swapped])[0]).view(3, rows * columns, WIDTH).abs().amax((1, 2)) > 1e-4
    assert moved.tolist() == [False, True, False]
    twice = path([path.film([shown[0], shown[0]], [0, 1])])[0]  # which is what a picture is to this encoder
    torch.testing.assert_close(twice, path([path.prepare(shown[0])])[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_shrunk_frames_are_means_and_a_newline_ends_the_film():
    """As LLaVA-OneVision reads them: halving by bilinear interpolation takes the mean of four."""
    path, shown = WAYS["shrunk"](), frames(3)
    clip = path.film(shown, range(3))
    features = torch.cat([path.encoder.encode(frame.views[0][0].unsqueeze(0)) for frame in clip.frames])
    means = path.connector(features).numpy().reshape(3, 2, 2, 2, 2, WIDTH).mean((2, 4)).reshape(12, WIDTH)
    tokens = path([clip])[0].numpy()
    np.testing.assert_allclose(tokens[:-1], means, atol=1e-5)
    np.testing.assert_array_equal(tokens[-1], path.resolution.newline.detach().numpy())
    assert path.grids(clip) == [(1, 1, 13)]


VIDEOMAE = VIT | {"intermediate_size": 64, "model_type": "videomae", "num_frames": 4, "use_mean_pooling": False}


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: seeing(video="all"), "model.video is null, together or a node of conf/video, got 'all'"),
        (lambda: seeing(film=lambda: LinearConnector(32, WIDTH)), "model.video_connector is for films read as a whole"),
        (lambda: seeing(stage=Pool(2, 2)), "model.video_stage is for films read as a whole"),
        (lambda: seeing(video="together", stage=torch.nn.Linear(2, 2)), "model.video_stage is a Linear, .* no stage"),
        (lambda: seeing(video="together", stage=PixelShuffle(2)), "features of width 128, the connector reads 32"),
        (lambda: seeing(video="together", film=lambda: LinearConnector(32, 8)), "tokens of width 8, pictures 24"),
        (
            lambda: seeing(video=SpaceTimeTransformer(VIDEOMAE)).film(frames(3), range(3)),
            "this VideoMAE reads 4 frames, got 3",
        ),
        (
            lambda: seeing(
                lambda: IdentityConnector(WIDTH, WIDTH), "together", encoder=QwenVision(QWEN), resolution=tiles()
            ).film(frames(2), range(2)),
            "read in one view each, not in tiles",
        ),
        (lambda: qwen().film([*frames(1, (8, 8)), *frames(1, (16, 8))], range(2)), "have one size"),
        (lambda: seeing(video="together", stage=PixelShuffle(3), film=lambda: LinearConnector(288, WIDTH)).film(
            frames(2), range(2)), "blocks of 3 do not fill a grid of 4 x 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(wrong, says):
    with pytest.raises(ValueError, match=rf"^[^\n]*{says}[^\n]*$"):
        wrong()
