"""Views, their pixels and the order of their tokens, against transformers' own image processors and models."""

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

from embodied.lvlm.encoders.base import Preprocess
from embodied.lvlm.resolution.adaptive import ShapeAdaptiveCrop
from embodied.lvlm.resolution.anyres import AnyRes
from embodied.lvlm.resolution.dynamic import DynamicTiles
from embodied.lvlm.resolution.edges import BoundedEdges
from embodied.lvlm.resolution.grid import RowColumnTiles
from embodied.lvlm.resolution.hd import HDTransform
from embodied.lvlm.resolution.native import Native
from embodied.lvlm.resolution.patches import PatchRows
from embodied.lvlm.resolution.uhd import Slices

SIZES = [(60, 60), (61, 37), (40, 133), (131, 45), (28, 29), (200, 150), (19, 250), (13, 14)]
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
WIDTH = 8


def a_picture(height, width):
    """Smooth shapes with noise, so that a filter or an offset that differs shows."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 3)], -1) * 100 + 128
    return Image.fromarray((waves + rng.normal(0, 20, waves.shape)).clip(0, 255).astype(np.uint8))


def pixels_of(strategy, picture, processor, size=None):
    """Views of our strategy as normalised pixels, with the processor's own statistics."""
    mean, std = (np.broadcast_to(values, 3).tolist() for values in (processor.image_mean, processor.image_std))
    read = Preprocess(size, tuple(mean), tuple(std), fit="native" if size is None else "squash")
    layout = strategy.plan(picture.height, picture.width)
    return layout, [read(view) for view in strategy.cut(picture, layout)]


def same(ours, theirs):
    return torch.equal(ours, theirs) or torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5) is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", ["next", "onevision"])
def test_anyres_is_llava_next_and_onevision(size, family):
    picture = a_picture(*size)
    if family == "next":
        processor = hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS
        )
    else:
        processor = hf.LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS)
    theirs = processor(picture, return_tensors="pt")["pixel_values"][0]
    layout, ours = pixels_of(AnyRes(WIDTH, 28, PINPOINTS), picture, processor, (28, 28))
    assert len(ours) == len(theirs) and same(torch.stack(ours), theirs)
    assert layout.tiles[0] * layout.tiles[1] == len(theirs) - 1


def a_llava(family, patch=14):
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    kinds = {"next": ("clip_vision_model", "llama"), "onevision": ("siglip_vision_model", "qwen2")}
    config = {"next": hf.LlavaNextConfig, "onevision": hf.LlavaOnevisionConfig}[family](
        vision_config=vision | {"model_type": kinds[family][0], "image_size": 28, "patch_size": patch},
        text_config={
            "model_type": kinds[family][1],
            "hidden_size": WIDTH,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": 32,
        },
        image_grid_pinpoints=PINPOINTS,
    )
    return {"next": hf.LlavaNextModel, "onevision": hf.LlavaOnevisionModel}[family](config)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family, most", [("next", None), ("onevision", 9), ("onevision", 2), ("onevision", 1)])
def test_anyres_arranges_tokens_as_pack_image_features(size, family, most):
    model = a_llava(family, patch=4)  # 7 x 7 tokens a tile
    strategy = AnyRes(WIDTH, 28, PINPOINTS, max_tiles=most)
    strategy.newline = model.image_newline
    layout = strategy.plan(*size)
    tokens = torch.randn(len(layout.views), 49, WIDTH)
    options = (
        {"vision_feature_select_strategy": "default"}
        if family == "next"
        else {"vision_aspect_ratio": f"anyres_max_{most}"}
    )
    packed, _ = model.pack_image_features([tokens], torch.tensor([size]), image_newline=model.image_newline, **options)
    grids = [(7, 7)] * len(tokens)
    ours = strategy.arrange(list(tokens), layout, grids)
    assert ours.shape == packed[0].shape and len(ours) == strategy.count(layout, grids)
    torch.testing.assert_close(ours, packed[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bounds", [(1, 12), (1, 6), (2, 4)])
def test_dynamic_tiles_are_internvl(size, bounds):
    picture = a_picture(*size)
    processor = hf.GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=bounds[0], max_patches=bounds[1]
    )
    theirs = processor(picture, return_tensors="pt")["pixel_values"]
    _, ours = pixels_of(DynamicTiles(WIDTH, 28, *bounds), picture, processor, (28, 28))
    assert len(ours) == len(theirs) and same(torch.stack(ours), theirs)


@pytest.mark.parametrize("size", SIZES)
def test_row_column_tiles_are_idefics3(size):
    picture = a_picture(*size)
    processor = hf.Idefics3ImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 28}, return_row_col_info=True
    )
    theirs = processor(picture, return_tensors="pt")
    layout, ours = pixels_of(RowColumnTiles(WIDTH, 28, 112), picture, processor)
    assert layout.tiles == (theirs["rows"][0][0], theirs["cols"][0][0])
    assert len(ours) == theirs["pixel_values"].shape[1] and same(torch.stack(ours), theirs["pixel_values"][0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("split", [False, True])
def test_bounded_edges_are_idefics2(size, split):
    picture = a_picture(*size)
    processor = hf.Idefics2ImageProcessorPil(size={"shortest_edge": 20, "longest_edge": 70}, do_image_splitting=split)
    theirs = processor(picture, return_tensors="pt")
    _, ours = pixels_of(BoundedEdges(WIDTH, 20, 70, split), picture, processor)
    assert len(ours) == theirs["pixel_values"].shape[1]
    pairs = zip(ours, theirs["pixel_values"][0], theirs["pixel_attention_mask"][0], strict=True)
    for view, padded, mask in pairs:
        height, width = int(mask[:, 0].sum()), int(mask[0].sum())
        assert view.shape[1:] == (height, width) and same(view, padded[:, :height, :width])


@pytest.mark.parametrize("size", SIZES)
def test_native_is_qwen2_vl(size):
    picture = a_picture(*size)
    processor = hf.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 24 * 24, "longest_edge": 100 * 100}, patch_size=4, merge_size=2, temporal_patch_size=2
    )
    theirs = processor(picture, return_tensors="pt")
    _, ours = pixels_of(Native(WIDTH, 8, 24 * 24, 100 * 100), picture, processor)
    height, width = ours[0].shape[1:]
    assert theirs["image_grid_thw"].tolist() == [[1, height // 4, width // 4]]
    patches = ours[0].reshape(3, height // 8, 2, 4, width // 8, 2, 4).permute(1, 4, 2, 5, 0, 3, 6)
    twice = patches.unsqueeze(5).expand(-1, -1, -1, -1, -1, 2, -1, -1).reshape(height * width // 16, -1)
    assert same(twice, theirs["pixel_values"])


@pytest.mark.parametrize("size", SIZES)
def test_slices_are_minicpm_v(size):
    """MiniCPM-V took LLaVA-UHD's slices over; transformers has its processor."""
    picture = a_picture(*size)
    processor = MiniCPMV4_6ImageProcessorPil(max_slice_nums=6, scale_resolution=40, patch_size=4, downsample_mode="4x")
    theirs = processor(picture, return_tensors="pt")
    layout, ours = pixels_of(Slices(WIDTH, 40, 8, 6), picture, processor)
    assert list(layout.tiles) == list(theirs["grids"][0])
    sizes = [[view.shape[1] // 4, view.shape[2] // 4] for view in ours]
    assert sizes == theirs["target_sizes"].tolist()
    strips = [v.reshape(3, v.shape[1] // 4, 4, v.shape[2]).transpose(1, 2).reshape(3, 4, -1) for v in ours]
    assert same(torch.cat(strips, -1), theirs["pixel_values"][0])


@pytest.mark.parametrize("size", SIZES)
def test_patch_rows_are_fuyu(size):
    picture = a_picture(*size)
    processor = hf.FuyuImageProcessorPil(size={"height": 60, "width": 90}, patch_size={"height": 6, "width": 6})
    made = processor.preprocess(picture)
    strategy = PatchRows(WIDTH, 6, 60, 90)
    layout, ours = pixels_of(strategy, picture, processor)
    whole = torch.as_tensor(np.asarray(made["images"][0][0]))
    height, width = ours[0].shape[1:]
    assert same(ours[0], whole[:, :height, :width].float())
    shown = made["image_unpadded_heights"][0][0], made["image_unpadded_widths"][0][0]
    sizes = [torch.tensor([[int(length)]]) for length in shown]
    ids = processor.preprocess_with_tokenizer_info(whole[None, None], torch.ones(1, 1, 1), *sizes, 7, 9, True)
    ids = ids["image_input_ids"][0][0]
    grid = (height // 6, width // 6)
    assert len(ids) == strategy.count(layout, [grid])
    sequence = strategy.arrange([torch.zeros(grid[0] * grid[1], WIDTH)], layout, [grid])
    newlines = (sequence == strategy.newline).all(1)
    assert torch.equal(newlines, ids == 9)


@pytest.mark.parametrize("size", SIZES)
def test_the_hd_transform_counts_as_phi_3_vision_publishes(size):
    """`num_img_tokens` of its processor, 144 tokens of a tile, from the size that its own recipe gives."""
    strategy = HDTransform(WIDTH, 336, 16)
    layout = strategy.plan(*size)
    long, short = max(size), min(size)
    scale = max(s for s in range(1, 17) if s * np.ceil(s / (long / short)) <= 16)
    height, width = int(np.ceil(int(scale * 336 / (long / short)) / 336)), scale
    height, width = (height, width) if size[1] >= size[0] else (width, height)
    assert layout.tiles == (height, width)
    tokens = int((height * width + 1) * 144 + 1 + (height + 1) * 12)
    assert strategy.count(layout, [(12, 12)] * len(layout.views)) == tokens


@pytest.mark.parametrize("size", [(60, 61), (61, 37), (40, 133)])
def test_the_hd_transform_makes_the_pixels_of_its_recipe(size):
    strategy, picture = HDTransform(WIDTH, 28, 6), a_picture(*size)
    layout = strategy.plan(*size)
    overview, *tiles = (torch.from_numpy(np.array(v)).float() for v in strategy.cut(picture, layout))
    rows, columns = layout.tiles
    canvas = torch.cat([torch.cat(tiles[r * columns : (r + 1) * columns], 1) for r in range(rows)])
    small = torch.nn.functional.interpolate(canvas.permute(2, 0, 1)[None], (28, 28), mode="bicubic")[0]
    assert (small.clamp(0, 255) - overview.permute(2, 0, 1)).abs().max() <= 0.5
    across = 0 if size[1] >= size[0] else 1  # the side that the picture fills whole; white on both sides of the other
    white = (canvas == 255).all(2).all(1 - across)
    inside = (~white).nonzero().flatten()
    assert abs(int(inside[0]) - (len(white) - 1 - int(inside[-1]))) <= 2
    if across:
        canvas = canvas.transpose(0, 1)
        picture = picture.transpose(Image.Transpose.TRANSPOSE)
    shown = canvas[inside[0] : inside[-1] + 1].numpy()
    expected = np.array(picture.resize((shown.shape[1], shown.shape[0]), Image.Resampling.BILINEAR))
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("size", [(60, 60), (600, 200), (224, 1100), (1000, 900), (448, 672), (333, 501)])
def test_the_shape_adaptive_crop_prefers_shape_then_resolution(size):
    """Written with boxes, as the paper says it: intersection over union, at the canvas' width and as it is."""
    strategy = ShapeAdaptiveCrop(WIDTH, 224, 20)
    grids = torch.tensor(strategy.grids, dtype=torch.float64)
    canvases = grids * 224

    def overlap(boxes):
        shared = torch.minimum(canvases, boxes).prod(1)
        return shared / (canvases.prod(1) + boxes.prod(1) - shared)

    picture = torch.tensor(size, dtype=torch.float64).expand_as(canvases)
    shape = overlap(torch.stack([size[0] / size[1] * canvases[:, 1], canvases[:, 1]], 1))
    best = (100 * shape + overlap(picture)).argmax()
    assert strategy.plan(*size).tiles == tuple(grids[best].int().tolist())
