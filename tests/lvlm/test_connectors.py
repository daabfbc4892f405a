"""What holds for every connector: counts, gradients, the meta device, wrong grids and padding."""

import inspect
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import conf
from embodied.building import build, find_class
from embodied.lvlm.connectors.abstractor import Abstractor
from embodied.lvlm.connectors.aggregator import SpatialAggregator
from embodied.lvlm.connectors.base import Connector, Context
from embodied.lvlm.connectors.c_abstractor import CAbstractor
from embodied.lvlm.connectors.d_abstractor import DAbstractor
from embodied.lvlm.connectors.hybrid import HybridConnector
from embodied.lvlm.connectors.keypoints import Keypoints
from embodied.lvlm.connectors.ldp import LDP, LDPv2
from embodied.lvlm.connectors.perceiver import Idefics2Resampler, IdeficsResampler, KosmosResampler
from embodied.lvlm.connectors.pooled import PooledConnector
from embodied.lvlm.connectors.positional import PositionalResampler
from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector
from embodied.lvlm.connectors.pyramid import PyramidConnector
from embodied.lvlm.connectors.qformer import QFormer
from embodied.lvlm.connectors.qllama import QLLaMA
from embodied.lvlm.connectors.resampler import PerceiverResampler
from embodied.lvlm.connectors.scan import SelectiveScan
from embodied.lvlm.connectors.stages import Join, PixelShuffle, Pool
from embodied.lvlm.connectors.swiglu import SwiGLUConnector
from embodied.lvlm.connectors.temporal import TemporalModule
from embodied.lvlm.connectors.texthawk import TextHawkConnector
from embodied.lvlm.connectors.visual_table import VisualEmbeddingTable

CONFIGS = sorted((Path(conf.__file__).parent / "connector").glob("*.yaml"))
D_ENC, D = 24, 32
BERT = {"queries": 3, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 32, "vocabulary": 50, "positions": 8}
LATENT = {"queries": 3, "layers": 2, "heads": 2, "head_width": 8}
CONVOLVED = {"queries": 4, "hidden": 16, "depth": 1, "grid": 4}
DEFORMED = {"queries": 4, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 32, "grid": 4}
TWO = {
    "sources": [8, 16],
    "windows": [1, 2],
    "rows": 2,
    "columns": 3,
    "hidden": 16,
    "layers": 2,
    "heads": 2,
}
LLAMA = {"queries": 3, "hidden": 16, "layers": 3, "heads": 2, "intermediate": 32}
HAWK = {"hidden": 16, "layers": 2, "heads": 2, "levels": 2, "join": 2}

# How each is made, and how many tokens a frame of 4 x 6 and one of 4 x 4 features become.
ALL = {
    "linear": (lambda: LinearConnector(D_ENC, D), 24, 16),
    "mlp": (lambda: MLPConnector(D_ENC, D, layers=3, hidden=[5, 7], norm="layers"), 24, 16),
    "shuffled": (lambda: MLPConnector(D_ENC, D, norm="input", stage=PixelShuffle(2)), 6, 4),
    "padded": (lambda: LinearConnector(D_ENC, D, stage=PixelShuffle(5, pad=True)), 2, 1),
    "joined": (lambda: LinearConnector(D_ENC, D, stage=Join(4)), 6, 4),
    "pooled first": (lambda: MLPConnector(D_ENC, D, stage=Pool(2, 3)), 6, 6),
    "pooled last": (lambda: PooledConnector(D_ENC, D, rows=2, columns=2), 4, 4),
    "hybrid": (lambda: HybridConnector(D_ENC, D, detailed=10), 24, 16),
    "qformer": (lambda: QFormer(D_ENC, D, **BERT), 3, 3),
    "bliva": (lambda: QFormer(D_ENC, D, patches=True, **BERT), 27, 19),
    "windows": (lambda: QFormer(D_ENC, D, window=5, **BERT), 15, 12),
    "flamingo": (lambda: PerceiverResampler(D_ENC, D, queries=3, frames=2), 3, 3),
    "idefics": (lambda: IdeficsResampler(D_ENC, D, **LATENT), 3, 3),
    "idefics2": (lambda: Idefics2Resampler(D_ENC, D, key_heads=1, **LATENT), 3, 3),
    "kosmos": (lambda: KosmosResampler(D_ENC, D, queries=3, heads=4), 3, 3),
    "positional": (lambda: PositionalResampler(D_ENC, D, queries=4, heads=4), 4, 4),
    "keypoints": (lambda: Keypoints(D_ENC, D, keypoints=4, tokens=2), 2, 2),
    "abstractor": (lambda: Abstractor(D_ENC, D, queries=3, layers=2, heads=4), 4, 4),
    "c-abstractor": (lambda: CAbstractor(D_ENC, D, **CONVOLVED), 4, 4),
    "d-abstractor": (lambda: DAbstractor(D_ENC, D, **DEFORMED), 4, 4),
    "ldp": (lambda: LDP(D_ENC, D), 6, 4),
    "ldpv2": (lambda: LDPv2(D_ENC, D, rows=2, columns=3), 6, 6),
    "swiglu": (lambda: SwiGLUConnector(D_ENC, D, brackets=True), 8, 6),
    "cogvlm": (lambda: SwiGLUConnector(D_ENC, D, stride=1), 24, 16),
    "table": (lambda: VisualEmbeddingTable(D_ENC, D, vocabulary=12, indicators=3), 6, 4),
    "aggregator": (lambda: SpatialAggregator(D_ENC, D, groups=2, **TWO), 6, 6),
    "pyramid": (lambda: PyramidConnector(D_ENC, D, levels=[1, 2]), 29, 21),
    "pointed": (lambda: PyramidConnector(D_ENC, D, [1, 2], points={"keypoints": 4, "tokens": 2}), 31, 23),
    "scan": (lambda: SelectiveScan(D_ENC, D), 24, 16),
    "cross scan": (lambda: SelectiveScan(D_ENC, D, paths="cross", blocks=2, layers=1), 24, 16),
    "valley 1": (lambda: TemporalModule(D_ENC, D), 25, 17),
    "valley 3": (lambda: TemporalModule(D_ENC, D, gather="transformer", heads=4, frames=2), 25, 17),
    "qllama": (lambda: QLLaMA(D_ENC, D, **LLAMA), 3, 3),
    "texthawk": (lambda: TextHawkConnector(D_ENC, D, **HAWK), 3, 2),
}
GRIDS = {  # of the tokens of 4 x 6 features; all others make none
    **dict.fromkeys(("linear", "mlp", "hybrid", "cogvlm", "scan", "cross scan"), (4, 6)),
    **dict.fromkeys(("shuffled", "pooled first", "ldp", "ldpv2", "table", "aggregator"), (2, 3)),
    **dict.fromkeys(("pooled last", "positional", "c-abstractor", "d-abstractor"), (2, 2)),
    "padded": (1, 2),
}
PER_FRAME = {  # tokens grow with the frames of a video; the others read all frames together, or gather them
    *("linear", "mlp", "shuffled", "padded", "joined", "pooled first", "pooled last", "hybrid", "positional"),
    *("c-abstractor", "d-abstractor", "ldp", "ldpv2", "swiglu", "cogvlm", "table", "aggregator", "scan"),
    *("cross scan", "texthawk", "pyramid", "pointed"),
}
TOGETHER = {"qformer", "flamingo", "idefics", "idefics2", "kosmos", "abstractor", "qllama"}
MASKED = {"qformer", "flamingo", "idefics2", "positional", "abstractor", "qllama"}
NEEDS_A_GRID = {
    *("shuffled", "padded", "pooled first", "pooled last", "positional", "keypoints", "c-abstractor", "d-abstractor"),
    *("ldp", "ldpv2", "swiglu", "table", "aggregator", "cross scan", "texthawk", "pyramid"),
    "pointed",
}
WHOLE_ONLY = NEEDS_A_GRID - {"positional", "keypoints"} | {"idefics", "kosmos", "scan"}


def made(name: str) -> Connector:
    torch.manual_seed(0)
    return ALL[name][0]().eval()


def some_features(rows, columns, batch=2, frames=1):
    generator = torch.Generator().manual_seed(rows * columns)
    return torch.randn(batch, frames * rows * columns, D_ENC, generator=generator)


@pytest.mark.parametrize("name", ALL)
def test_it_gives_the_tokens_it_promises(name):
    connector = made(name)
    for (rows, columns), count in zip([(4, 6), (4, 4)], ALL[name][1:], strict=True):
        context = Context(grid=(rows, columns))
        tokens = connector(some_features(rows, columns), context)
        assert tokens.shape == (2, count, D) and tokens.isfinite().all()
        assert connector.tokens(rows * columns, context) == count
    assert torch.equal(connector(some_features(4, 4)), tokens), "without a grid it is taken for square"


@pytest.mark.parametrize("name", ALL)
def test_it_says_what_grid_its_tokens_make(name):
    connector = made(name)
    assert connector.grid((4, 6)) == GRIDS.get(name, (1, ALL[name][1]))


@pytest.mark.parametrize("name", sorted(PER_FRAME | TOGETHER))
def test_a_video_is_read_frame_by_frame_or_at_once(name):
    connector, features = made(name), some_features(4, 6, frames=2)
    context = Context(grid=(4, 6), frames=2)
    tokens = connector(features, context)
    count = ALL[name][1] * (2 if name in PER_FRAME else 1)
    assert tokens.shape == (2, count, D) and connector.tokens(48, context) == count
    if name in PER_FRAME - {"scan", "cross scan"}:
        frames = [connector(frame, Context(grid=(4, 6))) for frame in features.chunk(2, dim=1)]
        torch.testing.assert_close(tokens, torch.cat(frames, dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_rows_of_a_batch_do_not_know_each_other(name):
    connector, features = made(name), some_features(4, 6)
    alone = [connector(row, Context(grid=(4, 6))) for row in features.split(1)]
    torch.testing.assert_close(connector(features, Context(grid=(4, 6))), torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_every_parameter(name):
    connector = made(name).train()
    features = some_features(4, 6).requires_grad_()
    tokens = connector(features, Context(grid=(4, 6)))
    (tokens * torch.randn(tokens.shape)).sum().backward()
    without = [n for n, p in connector.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
    assert (features.grad.abs().sum(-1) > 0).all(), "every feature matters"


@pytest.mark.parametrize("name", ALL)
def test_half_the_bits_give_nearly_the_same(name):
    connector, features, context = made(name), some_features(4, 6), Context(grid=(4, 6))
    exact = connector(features, context)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = connector(features, context)
    half = connector.bfloat16()(features.bfloat16(), context)
    assert half.dtype == torch.bfloat16
    for rounded in (mixed, half):
        assert (rounded.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("name", ALL)
def test_it_is_made_on_the_meta_device(name):
    with torch.device("meta"):
        connector = ALL[name][0]()
    real = made(name)
    assert all(p.is_meta for p in connector.parameters())
    assert {n: p.shape for n, p in connector.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert connector.tokens(24, Context(grid=(4, 6))) == ALL[name][1]


@pytest.mark.parametrize("name", sorted(NEEDS_A_GRID))
def test_a_wrong_grid_is_one_clear_error(name):
    connector = made(name)
    for features, context in ((some_features(4, 6), Context(grid=(5, 5))), (some_features(2, 5), Context())):
        if name == "keypoints" and context.grid is not None:
            continue  # takes the columns alone
        with pytest.raises(ValueError, match=r"^\w+: .*grid"):
            connector(features, context)
        with pytest.raises(ValueError, match=r"^\w+: .*grid"):
            if name == "keypoints":
                connector(features, context)
            connector.tokens(features.shape[1], context)


@pytest.mark.parametrize("name", sorted(MASKED))
def test_padding_changes_nothing(name):
    connector, features = made(name), some_features(4, 6)
    present = torch.ones(2, 24, dtype=torch.bool)
    whole = connector(features, Context(grid=(4, 6)))
    torch.testing.assert_close(connector(features, Context(grid=(4, 6), present=present)), whole, atol=1e-5, rtol=1e-5)
    present[1, 15:] = False
    changed = torch.where(present.unsqueeze(-1), features, 7.0)
    first, second = (connector(x, Context(grid=(4, 6), present=present)) for x in (features, changed))
    assert torch.equal(first, second)
    assert not torch.allclose(first[1], whole[1], atol=1e-3)


@pytest.mark.parametrize("name", sorted(WHOLE_ONLY))
def test_where_padding_has_no_place_it_is_refused(name):
    present = torch.ones(2, 24, dtype=torch.bool)
    made(name)(some_features(4, 6), Context(grid=(4, 6), present=present))
    present[1, 15:] = False
    with pytest.raises(ValueError, match="must come one by one"):
        made(name)(some_features(4, 6), Context(grid=(4, 6), present=present))


@pytest.mark.parametrize(
    "file", sorted((Path(conf.__file__).parent / "connector").glob("*.yaml")), ids=lambda f: f.stem
)
def test_each_config_builds_a_connector_and_names_every_argument(file):
    node = OmegaConf.to_container(OmegaConf.load(file))
    parameters = set(inspect.signature(find_class(node["_target_"])).parameters)
    assert parameters - {"features", "width"} == set(node) - {"_target_"}
    connector = build(node, (torch.nn.Module,), features=128, width=128)
    assert isinstance(connector, Connector)
    if not getattr(connector, "instructed", False):
        tokens = connector.eval()(torch.randn(2, 36, 128))
        assert tokens.shape == (2, connector.tokens(36), 128)


MISTAKES = [
    (lambda: MLPConnector(8, 8, layers=1), "layers must be at least 2, got 1"),
    (lambda: MLPConnector(8, 8, activation="gelo"), "no activation 'gelo'; did you mean 'gelu'"),
    (lambda: MLPConnector(8, 8, norm="all"), "norm is one of none, features, input, layers, got 'all'"),
    (lambda: MLPConnector(8, 8, layers=3, hidden=[4]), r"3 layers have 2 hidden widths, got \[4\]"),
    (lambda: LinearConnector(8, 8, stage=torch.nn.Identity()), "stage is a Identity, which is no stage"),
    (lambda: PixelShuffle(0), "scale must be positive, got 0"),
    (lambda: LinearConnector(8, 8, stage=PixelShuffle(4))(torch.randn(1, 36, 8)), "blocks of 4 do not fill a grid"),
    (lambda: LinearConnector(8, 8, stage=Join(4))(torch.randn(1, 9, 8)), "runs of 4 do not share 9 features evenly"),
    (lambda: HybridConnector(8, 8, detailed=8), "detailed is between 0 and 8 channels, got 8"),
    (lambda: HybridConnector(8, 9, detailed=4), "2 halves do not divide width 9"),
    (lambda: QFormer(8, 8, hidden=16, heads=3), "3 heads do not divide hidden 16"),
    (lambda: QFormer(8, 8, window=4, per_frame=True, **BERT), "set either window or per_frame"),
    (lambda: QFormer(8, 8, instructed=True, **BERT)(torch.randn(1, 4, 8)), "need the instruction"),
    (
        lambda: QFormer(8, 8, instructed=True, **BERT)(torch.randn(1, 4, 8), Context(text=torch.ones(1, 9).long())),
        "an instruction of 9 tokens; at most 8 are read",
    ),
    (lambda: PerceiverResampler(8, 8, heads=3), "3 heads do not divide width 8"),
    (
        lambda: PerceiverResampler(8, 8, frames=2)(torch.randn(1, 9, 8), Context(frames=3)),
        "a video of 3 frames; at most 2 are read",
    ),
    (lambda: PerceiverResampler(8, 8, frames=2)(torch.randn(1, 9, 8), Context(frames=2)), "2 frames do not share 9"),
    (lambda: Idefics2Resampler(8, 8, heads=4, key_heads=3), "3 key_heads do not divide heads 4"),
    (lambda: KosmosResampler(8, 10, heads=4), "4 heads do not divide width 10"),
    (lambda: PositionalResampler(8, 8, queries=5), "queries make a square grid, and 5 is no square"),
    (lambda: PositionalResampler(8, 6, queries=4, heads=2), "4 quarters do not divide width 6"),
    (lambda: Abstractor(8, 8, heads=4, grid=3)(torch.randn(1, 8, 8)), "8 features are no grid of 3 x 3"),
    (lambda: CAbstractor(8, 8, depth=-1), "depth must not be negative"),
    (lambda: DAbstractor(8, 8, queries=4, hidden=16, heads=3), "3 heads do not divide hidden 16"),
    (lambda: SwiGLUConnector(8, 8)(torch.randn(1, 9, 8)), "blocks of 2 do not fill a grid of 3 x 3"),
    (lambda: VisualEmbeddingTable(8, 8, choose="best"), "choose is one of softmax, gumbel_argmax, st_argmax"),
    (lambda: VisualEmbeddingTable(8, 8, vocabulary=5), "vocabulary beside the indicators must be positive, got 0"),
    (lambda: SpatialAggregator(8, 8, sources=[4, 3]), r"sources of \[4, 3\] channels do not make 8 features"),
    (lambda: SpatialAggregator(8, 8, sources=[4, 4], windows=[1]), "2 sources need as many windows"),
    (lambda: SelectiveScan(8, 8, paths="spiral"), "paths is one of forward, bidirectional, cross, got 'spiral'"),
    (lambda: TemporalModule(8, 8, gather="max"), "gather is one of mean, importance, transformer, got 'max'"),
    (lambda: TemporalModule(8, 8, gather="importance", patches=4)(torch.randn(1, 9, 8)), "learned for 4 patches"),
    (
        lambda: TemporalModule(8, 8, gather="transformer", frames=2)(torch.randn(1, 9, 8), Context(frames=3)),
        "a video of 3 frames; at most 2 are read",
    ),
    (lambda: QLLaMA(8, 8, hidden=12, heads=4), "8 heads of even width do not divide hidden 12"),
    (lambda: TextHawkConnector(8, 8, hidden=16, heads=2)(torch.randn(1, 9, 8)), "blocks of 2 do not fill a grid"),
    (lambda: TextHawkConnector(9, 8, hidden=16, heads=2, levels=2), "2 levels do not divide features 9"),
]


@pytest.mark.parametrize("mistake, says", MISTAKES, ids=[says for _, says in MISTAKES])
def test_a_mistake_is_named(mistake, says):
    with pytest.raises(ValueError, match=says) as caught:
        mistake()
    assert "\n" not in str(caught.value)
