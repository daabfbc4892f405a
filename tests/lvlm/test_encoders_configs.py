"""Every encoder of `conf` is built by its name and gives what it promises; released sizes count what was published."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from embodied.building import build
from embodied.lvlm.encoders.base import ImageEncoder
from embodied.lvlm.encoders.nfnet import NFNet
from embodied.lvlm.encoders.video import VideoEncoder

CONF = Path(__file__).resolve().parents[2] / "conf"
SMALL = sorted(f.stem for f in (CONF / "encoder").glob("*.yaml") if "???" not in f.read_text(encoding="utf-8"))
RELEASED = sorted(file.stem for file in (CONF / "encoder" / "released").glob("*.yaml"))
VIDEO = sorted(file.stem for file in (CONF / "video").glob("*.yaml"))
PUBLISHED = {
    "clip-l": 304,
    "openclip-h": 632,
    "openclip-bigg": 1845,
    "siglip-l": 316,
    "siglip-so400m": 428,
    "dinov2-l": 304,
    "dinov2-g": 1136,
    "dinov2-l-registers": 304,
    "mae-l": 304,
    "internvit-6b": 5540,
    "eva-clip-g": 986,
    "eva02-clip-l": 304,
    "eva02-clip-e": 4400,
    "convnext-l": 198,
    "convnext-xxl": 846,
    "sam-b": 91,
    "sam-l": 308,
    "sam-h": 636,
    "qwen2-vl": 675,
    "nfnet-f6": 435,
}
"""Millions of parameters of the vision part, as papers and model cards give them."""


def node_of(name, group="encoder"):
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize("name", SMALL)
def test_an_encoder_by_its_name_gives_the_features_it_promises(name):
    encoder = build(node_of(name), (torch.nn.Module,)).eval()
    assert isinstance(encoder, ImageEncoder)
    with torch.no_grad():
        features = encoder(torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8))
    assert features.shape == (2, encoder.tokens(96, 96), encoder.dim) and features.isfinite().all()
    rows, columns = encoder.grid(96, 96)
    assert rows * columns == features.shape[1]
    assert encoder.resolved(node_of(name))["_target_"] == node_of(name)["_target_"]
    if name != "convolution":  # which takes robots' cameras as they come
        pixels = [one(Image.new("RGB", (96, 96), (90, 120, 30))).unsqueeze(0) for one in encoder.preprocess]
        assert encoder.encode(pixels[0] if len(pixels) == 1 else tuple(pixels)).shape[2] == encoder.dim


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_size_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        encoder = build(node_of(f"released/{name}"), (torch.nn.Module,))
    assert isinstance(encoder, ImageEncoder)
    assert all(parameter.is_meta for parameter in encoder.parameters())
    if name in PUBLISHED:
        assert count(encoder) == pytest.approx(PUBLISHED[name], rel=0.03)
    side = encoder.preprocess[0].size or (840, 840)
    assert encoder.tokens(*side) > 0  # counted without encoding anything


def test_what_is_published_is_there():
    assert set(PUBLISHED) <= set(RELEASED)


@pytest.mark.parametrize(
    "size, published", list(enumerate([71.5, 132.6, 193.8, 254.9, 316.1, 377.2, 438.4]))
)  # table 6 of the paper, with its classifier of 1000 classes
def test_each_nfnet_is_as_large_as_in_the_paper(size, published):
    with torch.device("meta"):
        assert round(count(NFNet(size)) + (3072 + 1) * 1000 / 1e6, 1) == published


@pytest.mark.parametrize("name", VIDEO)
def test_a_video_encoder_by_its_name_gives_the_features_it_promises(name):
    encoder = build(node_of(name, "video"), (torch.nn.Module,)).eval()
    assert isinstance(encoder, VideoEncoder)
    with torch.no_grad():
        features = encoder(torch.randint(0, 256, (1, 8, 96, 96, 3), dtype=torch.uint8))
    assert features.shape == (1, encoder.tokens(8, 96, 96), encoder.dim) and features.isfinite().all()


def test_timesformer_has_the_published_number_of_parameters():
    with torch.device("meta"):
        node = {"_target_": "embodied.lvlm.encoders.spacetime.SpaceTimeTransformer"}
        encoder = build(node | {"config": {"model_type": "timesformer"}}, (torch.nn.Module,))
    assert count(encoder) == pytest.approx(121.4, rel=0.01)
