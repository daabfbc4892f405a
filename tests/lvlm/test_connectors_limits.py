"""What connectors without a reference class must do: known limits, symmetries and locality."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel, MambaConfig, MambaModel

from embodied.lvlm.connectors import sinusoids
from embodied.lvlm.connectors.abstractor import Abstractor
from embodied.lvlm.connectors.aggregator import SpatialAggregator
from embodied.lvlm.connectors.base import Context
from embodied.lvlm.connectors.c_abstractor import CAbstractor
from embodied.lvlm.connectors.d_abstractor import DAbstractor
from embodied.lvlm.connectors.keypoints import Keypoints
from embodied.lvlm.connectors.ldp import LDP, LDPv2
from embodied.lvlm.connectors.perceiver import Idefics2Resampler
from embodied.lvlm.connectors.pooled import PooledConnector
from embodied.lvlm.connectors.positional import PositionalResampler
from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector
from embodied.lvlm.connectors.pyramid import PyramidConnector
from embodied.lvlm.connectors.qformer import QFormer
from embodied.lvlm.connectors.qllama import QLLaMA
from embodied.lvlm.connectors.resampler import PerceiverResampler
from embodied.lvlm.connectors.scan import SelectiveScan
from embodied.lvlm.connectors.stages import Join, PixelShuffle, Pool
from embodied.lvlm.connectors.temporal import TemporalModule
from embodied.lvlm.connectors.texthawk import TextHawkConnector
from embodied.lvlm.connectors.visual_table import VisualEmbeddingTable

GRID = Context(grid=(4, 6))
BERT = {"queries": 3, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 32, "vocabulary": 50}
LLAMA = {"queries": 3, "hidden": 16, "layers": 3, "heads": 2, "intermediate": 32}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def same(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def zero(*modules):
    for module in modules:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)


# Stages


def test_a_shuffled_feature_holds_its_block_row_by_row():
    cells = torch.arange(24.0).view(1, 24, 1)
    merged, after = PixelShuffle(2)(cells, GRID)
    assert merged[0].tolist() == [
        [0, 1, 6, 7],
        [2, 3, 8, 9],
        [4, 5, 10, 11],
        *([r, r + 1, r + 6, r + 7] for r in (12, 14, 16)),
    ]
    assert after.grid == (2, 3)
    joined, after = Join(3)(cells, GRID)
    assert joined[0].tolist() == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(8)] and after.grid == (4, 2)


def test_blocks_that_hang_over_the_edge_are_filled_with_zeros():
    cells = torch.randn(2, 3, 5, 7)
    stage = PixelShuffle(2, pad=True)
    whole, _ = PixelShuffle(2)(F.pad(cells, (0, 0, 0, 1, 0, 1)).flatten(1, 2), Context(grid=(4, 6)))
    merged, after = stage(cells.flatten(1, 2), Context(grid=(3, 5)))
    assert torch.equal(merged, whole) and after.grid == (2, 3)


def test_joining_keeps_track_of_padding():
    present = torch.tensor([[True] * 5 + [False] * 3])
    _, after = Join(2)(torch.randn(1, 8, 3), Context(present=present))
    assert after.present.tolist() == [[True, True, True, False]]


def test_one_block_per_feature_is_no_stage():
    plain = MLPConnector(24, 32)
    for stage in (PixelShuffle(1), Join(1), Pool(4, 6)):
        staged = MLPConnector(24, 32, stage=stage)
        staged.load_state_dict(plain.state_dict())
        features = torch.randn(2, 24, 24)
        same(staged(features, GRID), plain(features))


def test_pooling_is_torchs():
    features = torch.randn(2, 4 * 24, 8)
    video = Context(grid=(4, 6), frames=4)
    maps = features.view(2, 4, 4, 6, 8).permute(0, 4, 1, 2, 3)
    expected = F.adaptive_avg_pool3d(maps, (3, 3, 2)).permute(0, 2, 3, 4, 1).flatten(1, 3)
    pooled, after = Pool(3, 2, frames=3)(features, video)
    same(pooled, expected)
    assert after.frames == 3 and after.grid == (3, 2)
    connector = PooledConnector(8, 5, rows=3, columns=2, frames=3)
    same(connector(features, video), Pool(3, 2, frames=3)(connector.mlp(features), video)[0])
    assert connector.tokens(96, video) == 18 and connector.tokens(24, GRID) == 6, "a picture is one frame"


# Attention by queries


@pytest.mark.parametrize(
    "connector",
    [
        QFormer(24, 32, **BERT),
        PerceiverResampler(24, 32, queries=3),
        Idefics2Resampler(24, 32, queries=3, layers=1, heads=2, head_width=8, key_heads=1),
        Abstractor(24, 32, queries=3, layers=2, heads=4),
        QLLaMA(24, 32, **LLAMA),
    ],
    ids=lambda c: type(c).__name__,
)
def test_padding_is_as_if_absent_and_order_does_not_matter(connector):
    connector.eval()
    features, present = torch.randn(2, 24, 24), torch.zeros(2, 24, dtype=torch.bool)
    present[:, :15] = True
    same(connector(features, Context(present=present)), connector(features[:, :15]))
    same(connector(features.flip(1)), connector(features))


def test_a_window_of_everything_is_a_plain_qformer():
    plain, windowed = QFormer(24, 32, **BERT).eval(), QFormer(24, 32, window=12, **BERT).eval()
    windowed.load_state_dict(plain.state_dict())
    features = torch.randn(2, 24, 24)
    assert torch.equal(windowed(features[:, :12]), plain(features[:, :12]))
    halves = [plain(half) for half in features.split(12, dim=1)]
    same(windowed(features), torch.cat(halves, dim=1))


def test_an_instruction_is_learned_from_up_to_the_layer_whose_text_nobody_reads():
    connector = QFormer(24, 32, instructed=True, dropout=0.0, **BERT)
    text = torch.randint(1, 50, (2, 5))
    tokens = connector(torch.randn(2, 24, 24), Context(text=text))
    assert tokens.shape == (2, 3, 32)
    (tokens * torch.randn(tokens.shape)).sum().backward()
    without = {n for n, p in connector.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    last = "qformer.encoder.layer.1."
    parts = ("intermediate.dense", "output.dense", "output.LayerNorm")
    assert without == {f"{last}{part}.{kind}" for part in parts for kind in ("weight", "bias")}


def test_windows_of_one_sample_share_its_instruction():
    connector = QFormer(24, 32, instructed=True, window=12, **BERT).eval()
    features, text = torch.randn(2, 24, 24), torch.randint(1, 50, (2, 5))
    halves = [connector(half, Context(text=text)) for half in features.split(12, dim=1)]
    same(connector(features, Context(text=text)), torch.cat(halves, dim=1))


def test_bliva_is_a_qformer_and_every_feature_through_a_matrix():
    bliva = QFormer(24, 32, patches=True, **BERT).eval()
    plain = QFormer(24, 32, **BERT).eval()
    plain.load_state_dict({n: p for n, p in bliva.state_dict().items() if not n.startswith("vision_project")})
    features = torch.randn(2, 9, 24)
    same(bliva(features), torch.cat([plain(features), bliva.vision_project(features)], dim=1))


def test_a_resampler_tells_times_apart_only_with_embeddings_of_time():
    video, frames = torch.randn(1, 18, 24), Context(frames=2)
    for resampler, same_either_way in (
        (PerceiverResampler(24, 32), True),
        (PerceiverResampler(24, 32, frames=4), False),
    ):
        swapped = torch.cat(video.chunk(2, dim=1)[::-1], dim=1)
        assert torch.allclose(resampler(video, frames), resampler(swapped, frames), atol=1e-5) == same_either_way


def test_sinusoids_are_maes():
    """Against its formula, cell by cell: half of the width for the column, half for the row; sines before cosines."""
    table = sinusoids.square(3, 8).numpy()
    for row in range(3):
        for column in range(3):
            expected = []
            for position in (column, row):
                angles = [position / 10000 ** (i / 2) for i in range(2)]
                expected += [*np.sin(angles), *np.cos(angles)]
            np.testing.assert_allclose(table[3 * row + column], expected, atol=1e-6)
    assert torch.equal(sinusoids.stretched(3, 8, 3, 3), sinusoids.square(3, 8))
    assert sinusoids.stretched(3, 8, 2, 5).shape == (10, 8)


def test_a_positional_query_asks_around_its_own_place():
    """With keys that are places alone, a query attends most to the feature in its own cell, on any grid."""
    connector = PositionalResampler(16, 16, queries=16, heads=1, projection=False)
    zero(connector.ln_q, connector.ln_kv)
    with torch.no_grad():
        connector.attn.in_proj_bias.zero_()
        connector.attn.in_proj_weight.copy_(torch.eye(16).repeat(3, 1))
    for rows, columns in ((4, 4), (8, 8)):
        spots, places = sinusoids.square(4, 16), sinusoids.stretched(4, 16, rows, columns)
        _, weights = connector.attn(spots[None], places[None], places[None])
        best = weights[0].argmax(-1)
        assert (best // columns * 4 // rows * 4 + best % columns * 4 // columns).tolist() == list(range(16))


def test_mplug_owl2s_abstractor_knows_places_and_mplug_owls_does_not():
    features = torch.randn(1, 9, 24)
    for connector, same_either_way in (
        (Abstractor(24, 32, queries=3, layers=1, heads=4), True),
        (Abstractor(24, 32, queries=3, layers=1, heads=4, grid=3), False),
    ):
        assert torch.allclose(connector(features.flip(1)), connector(features), atol=1e-5) == same_either_way
    with_class = Abstractor(24, 32, queries=3, layers=1, heads=4, grid=3, class_token=True, end=False)
    assert with_class(torch.randn(1, 10, 24)).shape == (1, 3, 32) and with_class.tokens(10) == 3


def test_qllama_that_asks_nothing_is_a_llama_over_its_queries():
    connector = QLLaMA(24, 32, **LLAMA).eval()
    config = LlamaConfig(
        vocab_size=1,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        attn_implementation="eager",
    )
    llama = LlamaModel(config).eval()
    weights = connector.state_dict()
    missing, _ = llama.load_state_dict({n: p for n, p in weights.items() if "cross_attn" not in n}, strict=False)
    assert missing == ["embed_tokens.weight"]
    for layer in connector.layers:
        if layer.cross_attn is not None:
            zero(layer.cross_attn.o_proj)
    assert [layer.cross_attn is not None for layer in connector.layers] == [True, False, True]
    queries, mutual = connector.query_tokens.expand(2, -1, -1), torch.zeros(2, 1, 3, 3)
    expected = llama(inputs_embeds=queries, attention_mask=mutual).last_hidden_state
    same(connector(torch.randn(2, 9, 24)), connector.project(expected))


# Convolutions and grids


def test_a_c_abstractor_without_blocks_is_pooling_and_an_mlp():
    connector = CAbstractor(24, 32, queries=4, depth=0, grid=None)
    plain = MLPConnector(24, 32, activation="silu", stage=Pool(2, 2))
    plain.net.load_state_dict(connector.readout.state_dict())
    features = torch.randn(2, 24, 24)
    same(connector(features, GRID), plain(features, GRID))


@pytest.mark.parametrize(
    "make",
    [
        lambda: CAbstractor(24, 32, queries=4, hidden=16, depth=1, grid=None),
        lambda: LDP(24, 32),
        lambda: LDPv2(24, 32, rows=2, columns=2),
    ],
)
def test_convolutions_with_symmetric_kernels_see_a_mirrored_picture_mirrored(make):
    connector = make().eval()
    for module in connector.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.weight.data = (module.weight.data + module.weight.data.flip(3)) / 2
    # An odd number of columns keeps the stride's centres in place.
    features = torch.randn(1, 5, 5, 24)
    context = Context(grid=(5, 5))
    rows, columns = connector.grid((5, 5))
    plain = connector(features.flatten(1, 2), context).unflatten(1, (rows, columns))
    mirrored = connector(features.flip(2).flatten(1, 2), context).unflatten(1, (rows, columns))
    same(mirrored, plain.flip(2))


def test_ldpv2_that_tells_no_places_is_an_mlp_and_pooling():
    connector = LDPv2(24, 32, rows=2, columns=3)
    zero(connector.peg)
    plain = PooledConnector(24, 32, rows=2, columns=3)
    plain.mlp.net.load_state_dict(connector.mlp.state_dict())
    features = torch.randn(2, 24, 24)
    same(connector(features, GRID), plain(features, GRID))


def test_a_d_abstractor_looks_at_its_own_cell_where_nothing_moves_its_eyes():
    connector = DAbstractor(16, 16, queries=16, hidden=16, layers=1, heads=4, intermediate=32, grid=None).eval()
    layer = connector.layers[0]
    zero(layer.encoder_attn.sampling_offsets)
    features = torch.randn(2, 16, 16)
    values = layer.encoder_attn.output_proj(layer.encoder_attn.value_proj(features))
    seen = []
    layer.encoder_attn.register_forward_hook(lambda module, given, found: seen.append(found[0]))
    connector(features)
    same(seen[0], values)


def test_a_d_abstractors_heads_begin_in_directions_of_their_own():
    connector = DAbstractor(16, 16, queries=4, hidden=16, layers=1, heads=4, points=2, intermediate=32, grid=None)
    offsets = connector.layers[0].encoder_attn.sampling_offsets.bias.view(4, 2, 2)
    assert offsets.round(decimals=4).tolist() == [
        [[1, 0], [2, 0]],
        [[0, 1], [0, 2]],
        [[-1, 0], [-2, 0]],
        [[0, -1], [0, -2]],
    ]


def test_levels_of_the_pyramid_are_maxima_over_parts_of_the_picture():
    connector = PyramidConnector(8, 8, levels=[1, 2])
    connector.mlp, connector.level.weight.data[:] = torch.nn.Identity(), 0.0
    features = torch.randn(1, 24, 8)
    whole, *rest = connector(features, GRID)[0].split([1, 4, 24])
    assert torch.equal(whole[0], features[0].amax(0)) and torch.equal(rest[1], features[0])
    quarter = features[0].view(4, 6, 8)[2:, :3].amax((0, 1))
    assert torch.equal(rest[0][2], quarter)
    with pytest.raises(ValueError, match="a level of 5 is finer than the grid of 4 x 6"):
        PyramidConnector(8, 8, levels=[1, 5])(features, GRID)


def test_keypoints_of_the_pyramid_are_keypoints_frame_by_frame():
    connector = PyramidConnector(8, 6, levels=[1], points={"keypoints": 4, "tokens": 2})
    films = torch.randn(1, 48, 8)
    found = connector(films, Context(grid=(4, 6), frames=2))[0].unflatten(0, (2, -1))
    for frame in range(2):
        wanted = connector.points(films[:, frame * 24 : (frame + 1) * 24], GRID)[0]
        torch.testing.assert_close(found[frame, -2:], wanted)
    with pytest.raises(ValueError, match="takes no 'key'"):
        PyramidConnector(8, 6, points={"key": 4})


def test_a_query_of_the_aggregator_sees_its_own_windows():
    connector = SpatialAggregator(8, 8, sources=[3, 5], windows=[1, 2], rows=2, columns=3, hidden=16, layers=2, heads=2)
    features = torch.randn(1, 24, 8, requires_grad=True)
    connector(features, GRID)[0, 4].sum().backward()  # row 1, column 1
    # The second source is on its own grid of 4 x 6, with windows of 2 x 2; only the first is known as a whole.
    moved = features.grad[0, :, 3:].abs().sum(-1).view(4, 6) > 0
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[2:4, 2:4] = True
    assert torch.equal(moved, expected)
    assert (features.grad[0, :, :3].abs().sum(-1) > 0).all()


def test_more_of_the_same_in_a_window_changes_nothing():
    """A window of equal features without places of its own attends to their one value, however large it is."""
    small, large = (
        SpatialAggregator(8, 8, windows=side, rows=2, columns=3, hidden=16, layers=1, heads=2) for side in (1, 2)
    )
    missing, _ = large.load_state_dict(small.state_dict(), strict=False)
    places = large.vision_sampler[0].layers[0].pos_embed
    assert missing == ["vision_sampler.0.layers.0.pos_embed.0"]
    nn.init.zeros_(places["0"])
    coarse = torch.randn(1, 2, 3, 8)
    fine = coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    same(large(fine.flatten(1, 2), Context(grid=(4, 6))), small(coarse.flatten(1, 2), Context(grid=(2, 3))))


def test_visual_words_are_rows_of_the_table():
    connector = VisualEmbeddingTable(24, 32, vocabulary=12, indicators=3, stride=1, choose="st_argmax")
    table = connector.visual_embeddings_table.weight
    features = torch.randn(2, 9, 24)
    words = connector.words(features).argmax(-1)
    same(connector(features), table[words])
    assert words.max() < 9 and torch.equal(connector.indicators, table[9:])
    connector.choose = "gumbel_argmax"
    distances = torch.cdist(connector(features), table[:9].expand(2, -1, -1)).amin(-1)
    assert distances.max() < 1e-3


# Scans and time


def test_one_direction_is_mamba():
    connector = SelectiveScan(24, 32, paths="forward", blocks=2, state=4)
    mamba = MambaModel(MambaConfig(vocab_size=1, hidden_size=24, state_size=4, num_hidden_layers=2)).eval()
    for block, theirs in zip(connector.blocks, mamba.layers, strict=True):
        block.norm.load_state_dict(theirs.norm.state_dict())
        block.mixers[0].load_state_dict(theirs.mixer.state_dict())
    mamba.norm_f = nn.Identity()
    features = torch.randn(2, 9, 24)
    expected = mamba(inputs_embeds=features).last_hidden_state
    same(connector.eval()(features), connector.project(expected))


def equal_mixers(paths):
    connector = SelectiveScan(24, 32, paths=paths, state=4).eval()
    for mixer in connector.blocks[0].mixers[1:]:
        mixer.load_state_dict(connector.blocks[0].mixers[0].state_dict())
    return connector


def test_forwards_and_backwards_are_one_to_a_bidirectional_scan():
    features = torch.randn(2, 24, 24)
    connector = equal_mixers("bidirectional")
    same(connector(features.flip(1)), connector(features).flip(1))


def test_rows_and_columns_are_one_to_a_cross_scan():
    connector, features = equal_mixers("cross"), torch.randn(2, 4, 6, 24)
    upright = connector(features.flatten(1, 2), GRID).unflatten(1, (4, 6))
    lying = connector(features.transpose(1, 2).flatten(1, 2), Context(grid=(6, 4))).unflatten(1, (6, 4))
    same(lying, upright.transpose(1, 2))


def test_videochatgpt_takes_means_over_time_and_space():
    connector = TemporalModule(24, 32, frames_first=True)
    video = torch.randn(2, 3, 9, 24)
    expected = connector.mm_projector(torch.cat([video.mean(2), video.mean(1)], dim=1))
    same(connector(video.flatten(1, 2), Context(frames=3)), expected)


def test_valleys_ways_of_gathering_begin_at_the_mean():
    video, frames = torch.randn(2, 30, 24), Context(frames=3)
    mean = TemporalModule(24, 32, class_token=True)
    importance = TemporalModule(24, 32, gather="importance", class_token=True, patches=9)
    transformer = TemporalModule(24, 32, gather="transformer", class_token=True, heads=4)
    zero(importance.pooling_layer, transformer.transformer.norm2)
    for connector in (importance, transformer):
        connector.mm_projector.load_state_dict(mean.mm_projector.state_dict())
        same(connector(video, frames), mean(video, frames))
    same(mean(video, frames)[:, 9:], mean.mm_projector(video.unflatten(1, (3, 10))[:, :, 0]))


def test_importance_can_choose_one_frame():
    connector = TemporalModule(4, 8, gather="importance", patches=2)
    video = torch.randn(1, 3, 2, 4)
    with torch.no_grad():
        projected = connector.mm_projector(video).flatten(2)[0]
        connector.pooling_layer.weight.copy_(1000 * torch.linalg.pinv(projected)[:, 1])
    same(connector(video.flatten(1, 2), Context(frames=3))[0, :2], connector.mm_projector(video)[0, 1], atol=1e-4)


def test_valleys_transformer_knows_the_order_of_frames():
    connector = TemporalModule(24, 32, gather="transformer", heads=4).eval()
    video = torch.randn(1, 3, 9, 24)
    first, second = (connector(x.flatten(1, 2), Context(frames=3))[:, :9] for x in (video, video.flip(1)))
    assert not torch.allclose(first, second, atol=1e-3)


def test_places_of_texthawk_scale_between_their_ends():
    connector = TextHawkConnector(24, 32, hidden=16, heads=2)
    few, many = connector.places(2, 2).view(2, 2, 16), connector.places(6, 6).view(6, 6, 16)
    # The middle of each of two parts is the middle of the second and the fifth of six.
    same(few, many[1::3, 1::3])


def test_keypoints_take_the_contexts_columns():
    named, asked = Keypoints(8, 16, keypoints=4, tokens=2, columns=5), Keypoints(8, 16, keypoints=4, tokens=2)
    asked.load_state_dict(named.state_dict())
    features = torch.randn(2, 15, 8)
    assert torch.equal(asked(features, Context(grid=(3, 5))), named(features))
    with pytest.raises(ValueError, match="15 features are no grid"):
        asked(features)


def test_linear_and_mlp_go_feature_by_feature():
    for connector in (LinearConnector(24, 32), MLPConnector(24, 32, norm="layers")):
        features = torch.randn(2, 9, 24)
        same(connector(features)[:, 4], connector(features[:, 4:5])[:, 0])
