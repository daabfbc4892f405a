"""What holds for every resolution strategy: counts, sizes and parameters, whatever the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from embodied.building import build
from embodied.lvlm.encoders.base import ImageEncoder, Preprocess
from embodied.lvlm.encoders.multiscale import MultiScale
from embodied.lvlm.resolution.base import Layout, Resolution

WIDTH = 4
SMALL = {  # the released strategies with tiles so small that a picture is cut in no time
    "single": {"newline": True},
    "anyres": {"side": 16, "pinpoints": [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]]},
    "onevision": {
        "side": 16,
        "pinpoints": [[16 * r, 16 * c] for r in range(1, 7) for c in range(1, 7)],
        "max_tiles": 4,
    },
    "internvl": {"side": 16},
    "idefics3": {"side": 16, "longest": 64},
    "uhd": {"side": 16, "unit": 4},
    "phi3": {"side": 16},
    "xcomposer": {"side": 16},
    "ureader": {"side": 16},
    "owl3": {"side": 16},
    "monkey": {"side": 16},
    "sphinx": {"side": 16},
    "sphinx_x": {"side": 16},
    "mm1": {"side": 16},
    "native": {"unit": 4, "min_pixels": 64, "max_pixels": 1600},
    "idefics2": {"shortest": 12, "longest": 40, "split": True},
    "fuyu": {"patch": 4, "max_height": 32, "max_width": 48},
}
CONFIGS = Path(__file__).resolve().parents[2] / "conf/resolution"


def a_strategy(name, **options) -> Resolution:
    node = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    return build(node | SMALL[name] | options, (Resolution,), width=WIDTH)


def a_picture(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def grids_of(layout: Layout, patch=4):
    return [(-(-height // patch), -(-width // patch)) for height, width in layout.views]


def tokens_of(grids, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(rows * columns, WIDTH, generator=g) for rows, columns in grids]


def test_each_config_is_tested():
    elsewhere = {"ovis"}  # tests/lvlm/test_resolution_marked.py
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == set(SMALL) | elsewhere


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150))
def test_what_is_counted_is_what_is_arranged_and_cut(name, height, width):
    strategy = a_strategy(name)
    try:
        layout = strategy.plan(height, width)
    except ValueError as refused:  # only what is thin beyond all use
        assert f"{height} x {width}" in str(refused)
        assert min(height, width) == 1 or max(height, width) >= 10 * min(height, width)
        return
    views = strategy.cut(a_picture(height, width), layout)
    assert [(view.height, view.width) for view in views] == list(layout.views)
    assert layout.size == (height, width)
    assert layout.overview is None or 0 <= layout.overview < len(layout.views)
    grids = grids_of(layout)
    sequence = strategy.arrange(tokens_of(grids), layout, grids)
    assert sequence.shape == (strategy.count(layout, grids), WIDTH)
    assert sum(strategy.runs(layout, grids)) == len(sequence)
    assert plain(strategy.plan(height, width)) == plain(layout)


def plain(layout):
    return (layout.size, layout.views, layout.tiles, layout.overview)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "onevision"])  # which may blend tokens
def test_every_token_of_a_shown_view_is_in_the_sequence_once(name):
    """Nothing is lost but what AnyRes knows to be padding."""
    strategy = a_strategy(name, **({"unpad": False} if name == "anyres" else {}))
    layout = strategy.plan(90, 60)
    grids = grids_of(layout)
    total = sum(rows * columns for rows, columns in grids)
    numbered = torch.arange(1.0, total + 1).unsqueeze(1).expand(-1, WIDTH)
    with torch.no_grad():
        for parameter in strategy.parameters():
            parameter.zero_()
        sequence = strategy.arrange(numbered.split([r * c for r, c in grids]), layout, grids)
    seen = sequence[sequence[:, 0] > 0, 0]
    assert seen.sort().values.tolist() == list(range(1, total + 1))


@pytest.mark.parametrize("name", SMALL)
def test_it_has_its_parameters_where_torch_says_and_works_without_numbers(name):
    with torch.device("meta"):
        strategy = a_strategy(name)
        layout = strategy.plan(90, 60)
        grids = grids_of(layout)
        sequence = strategy.arrange([torch.zeros(r * c, WIDTH) for r, c in grids], layout, grids)
    assert sequence.is_meta and all(parameter.is_meta for parameter in strategy.parameters())
    assert len(sequence) == strategy.count(layout, grids)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_learned_gets_gradients(name):
    strategy = a_strategy(name)
    layout = strategy.plan(20, 60)  # wide enough for tiles of nothing but padding
    grids = grids_of(layout)
    tokens = [token.requires_grad_() for token in tokens_of(grids)]
    strategy.arrange(tokens, layout, grids).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in strategy.parameters())
    assert all(token.grad is not None and token.grad.any() for token in tokens)


@pytest.mark.parametrize("name", SMALL)
def test_a_picture_without_pixels_is_refused(name):
    with pytest.raises(ValueError, match="0 x 5"):
        a_strategy(name).plan(0, 5)


@pytest.mark.parametrize("name", ["internvl", "uhd"])
def test_a_picture_of_one_tile_is_not_tiled(name):
    layout = a_strategy(name).plan(16, 16)
    assert len(layout.views) == 1 and layout.overview == 0


def test_idefics3_has_a_run_per_view_and_a_newline_strategy_one():
    strategy = a_strategy("idefics3")
    layout = strategy.plan(64, 32)
    assert layout.tiles == (4, 2) and strategy.runs(layout, [(2, 2)] * 9) == [4] * 9
    other = a_strategy("anyres")
    assert len(other.runs(other.plan(64, 32), [(4, 4)] * 3)) == 1


def test_sphinx_x_encodes_no_tile_of_padding_and_says_where_it_was():
    strategy = a_strategy("sphinx_x")
    layout = strategy.plan(15, 48)  # fills the first of three rows
    assert len(layout.views) == 1 + 3
    sequence = strategy.arrange([torch.ones(16, WIDTH)] * 4, layout, [(4, 4)] * 4)
    assert torch.equal(sequence[-6:], strategy.skip.expand(6, -1)) and bool((sequence[:64] == 1).all())


def test_newlines_stand_where_rows_end():
    strategy = a_strategy("fuyu")
    layout = strategy.plan(8, 12)
    sequence = strategy.arrange([torch.zeros(6, WIDTH)], layout, [(2, 3)])
    assert [i for i, token in enumerate(sequence) if torch.equal(token, strategy.newline)] == [3, 7]


def test_slices_are_separated_within_and_between_rows():
    strategy = a_strategy("uhd")
    layout = strategy.plan(32, 31)
    assert layout.tiles == (2, 2)
    grids = [(1, 1)] * 5
    comma, newline = strategy.separators.tolist()
    zero = [0.0] * WIDTH
    sequence = strategy.arrange([torch.zeros(1, WIDTH)] * 5, layout, grids).tolist()
    assert sequence == [zero, zero, comma, zero, newline, zero, comma, zero]


@pytest.mark.parametrize(
    "name, wrong, says",
    [
        ("anyres", {"pinpoints": []}, "pinpoints is empty"),
        ("anyres", {"pinpoints": [[16, 20]]}, r"\[16, 20\] is not made of tiles of 16"),
        ("internvl", {"max_tiles": 2, "min_tiles": 3}, "max_tiles 2 is less than min_tiles 3"),
        ("internvl", {"resample": "cubic"}, "resample is one of nearest"),
        ("phi3", {"order": "glb"}, "order is one of sub_glb, glb_sub"),
        ("monkey", {"place": "left"}, "place is one of squash"),
        ("monkey", {"padding": [0, 0]}, "three numbers"),
        ("native", {"max_pixels": 10}, "max_pixels 10 is less than"),
        ("idefics2", {"longest": 5}, "longest 5 is less than shortest 12"),
        ("fuyu", {"max_width": 50}, "not made of patches of 4"),
        ("uhd", {"side": 0}, "side must be at least 1"),
    ],
)
def test_a_mistake_is_named(name, wrong, says):
    with pytest.raises(ValueError, match=says):
        a_strategy(name, **wrong)


@pytest.mark.parametrize("name, size", [("native", (1, 300)), ("phi3", (1, 5000)), ("fuyu", (1, 5000))])
def test_a_picture_that_is_too_thin_is_named(name, size):
    with pytest.raises(ValueError, match="crop it"):
        a_strategy(name).plan(*size)


class Means(ImageEncoder):
    """The mean colour of each 4 x 4 patch."""

    dim = 3

    def __init__(self):
        super().__init__((0.0,) * 3, (1.0,) * 3)

    def encode(self, pixels):
        return torch.nn.functional.avg_pool2d(pixels, 4).flatten(2).transpose(1, 2)

    @property
    def preprocess(self):
        return (Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3),)


def test_multiscale_reads_the_same_place_at_each_scale():
    """Of patches' means, the mean over the patches of a place is the mean of the place: both halves agree."""
    pixels = torch.randn(2, 3, 24, 24)
    encoder = MultiScale(Means(), (1, 3))
    assert encoder.preprocess[0].size == (24, 24) and encoder.dim == 6 and encoder.tokens(24, 24) == 4
    features = encoder.encode(pixels)
    assert features.shape == (2, 4, 6)
    fine = torch.nn.functional.avg_pool2d(pixels, 12).flatten(2).transpose(1, 2)
    assert torch.allclose(features[..., 3:], fine, atol=1e-6)
    small = torch.nn.functional.interpolate(pixels, (8, 8), mode="bicubic")
    assert torch.equal(features[..., :3], Means().encode(small))


def test_one_scale_is_no_scale():
    pixels = torch.randn(2, 3, 8, 8)
    assert torch.equal(MultiScale(Means(), (1,)).encode(pixels), Means().encode(pixels))
    with pytest.raises(ValueError, match="scales rise"):
        MultiScale(Means(), (2, 1))
