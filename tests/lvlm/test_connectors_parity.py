"""Connectors equal the reference classes of transformers whose weights they are given, and have as many parameters."""

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    DeepseekVLConfig,
    DeepseekVLHybridConfig,
    Glm4vConfig,
    GraniteSpeechConfig,
    Idefics2Config,
    Idefics3Config,
    IdeficsConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipVideoConfig,
    InstructBlipVideoForConditionalGeneration,
    InternVLConfig,
    Kosmos2Config,
    LlavaConfig,
    Ovis2Config,
    PerceptionLMConfig,
)
from transformers.models.deepseek_vl.modeling_deepseek_vl import DeepseekVLAligner
from transformers.models.deepseek_vl_hybrid.modeling_deepseek_vl_hybrid import DeepseekVLHybridAligner
from transformers.models.glm4v.modeling_glm4v import Glm4vVisionModel
from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechEncoderProjector
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2ImageToTextProjection
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector
from transformers.models.ovis2.modeling_ovis2 import Ovis2Model
from transformers.models.perception_lm.modeling_perception_lm import PerceptionLMMultiModalProjector
from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchMerger

from embodied.lvlm.connectors.base import Context
from embodied.lvlm.connectors.hybrid import HybridConnector
from embodied.lvlm.connectors.ldp import LDP, LDPv2
from embodied.lvlm.connectors.perceiver import Idefics2Resampler, IdeficsResampler, KosmosResampler
from embodied.lvlm.connectors.pooled import PooledConnector
from embodied.lvlm.connectors.positional import PositionalResampler
from embodied.lvlm.connectors.projection import LinearConnector, MLPConnector
from embodied.lvlm.connectors.qformer import QFormer
from embodied.lvlm.connectors.qllama import QLLaMA
from embodied.lvlm.connectors.stages import PixelShuffle
from embodied.lvlm.connectors.swiglu import SwiGLUConnector
from embodied.lvlm.connectors.visual_table import VisualEmbeddingTable

TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 64}
LLAMA = TEXT | {"model_type": "llama"}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50}
OURS = {"queries": 3, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 24, "vocabulary": 50}
EYES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
EYES |= {"intermediate_size": 32}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randomised(module):
    """Weights that no initialisation leaves at 0 or 1."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


def take(connector, names, reference):
    """Give a connector a reference's weights: all of both, renamed by their beginnings."""
    weights = {}
    for name, value in reference.state_dict().items():
        for theirs, ours in names.items():
            if name.startswith(theirs):
                weights[ours + name.removeprefix(theirs)] = value
                break
    connector.load_state_dict(weights)
    return connector.eval()


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_mlp_is_llavas_projector():
    config = LlavaConfig(text_config=LLAMA, vision_config=EYES | {"model_type": "clip_vision_model"})
    reference = randomised(LlavaMultiModalProjector(config))
    connector = take(MLPConnector(24, 32), {"linear_1": "net.0", "linear_2": "net.2"}, reference)
    features = torch.randn(2, 9, 24)
    same(connector(features), reference(features))


def test_mlp_is_deepseek_vls_aligner():
    config = DeepseekVLConfig(text_config=LLAMA, vision_config=EYES | {"model_type": "siglip_vision_model"})
    reference = randomised(DeepseekVLAligner(config))
    connector = take(MLPConnector(24, 32), {"linear1": "net.0", "linear2": "net.2"}, reference)
    features = torch.randn(2, 9, 24)
    same(connector(features), reference(features))


def test_hybrid_is_deepseek_vls_hybrid_aligner():
    sam = {"model_type": "sam_vision_model", "output_channels": 5}
    config = DeepseekVLHybridConfig(
        text_config=LLAMA,
        vision_config=EYES | {"model_type": "siglip_vision_model"},
        high_res_vision_config=sam,
    )
    reference = randomised(DeepseekVLHybridAligner(config))
    connector = take(HybridConnector(44, 32, detailed=20), {"": ""}, reference)
    semantic, detailed = torch.randn(2, 9, 24), torch.randn(2, 9, 20)
    same(connector(torch.cat([detailed, semantic], dim=-1)), reference(semantic, detailed))


def test_shuffled_mlp_is_internvls_projector():
    config = InternVLConfig(text_config=TEXT | {"model_type": "qwen2"}, vision_config={"hidden_size": 24})
    reference = randomised(InternVLMultiModalProjector(config))
    ours = MLPConnector(24, 32, norm="input", stage=PixelShuffle(2))
    connector = take(ours, {"layer_norm": "net.0", "linear_1": "net.1", "linear_2": "net.3"}, reference)
    features = torch.randn(2, 4, 6, 24)
    shuffled = InternVLModel.pixel_shuffle(None, features, scale_factor=0.5)
    same(connector(features.flatten(1, 2), Context(grid=(4, 6))), reference(shuffled.flatten(1, 2)))


def test_shuffled_matrix_is_idefics3s_connector():
    config = Idefics3Config(text_config=LLAMA, vision_config=EYES, scale_factor=2)
    reference = randomised(Idefics3Connector(config))
    ours = LinearConnector(24, 32, bias=False, stage=PixelShuffle(2))
    connector = take(ours, {"modality_projection.proj": "net"}, reference)
    features = torch.randn(2, 36, 24)
    same(connector(features), reference(features))


def test_normalised_and_merged_mlp_is_qwen2_vls_merger():
    reference = randomised(PatchMerger(dim=32, context_dim=24))
    ours = MLPConnector(24, 32, hidden=96, norm="features", epsilon=1e-6, stage=PixelShuffle(2))
    connector = take(ours, {"ln_q": "norm", "mlp": "net"}, reference)
    features = torch.randn(1, 4, 6, 24)
    # Theirs come block by block, ours row by row.
    blocks = features.view(2, 2, 3, 2, 24).transpose(1, 2).reshape(24, 24)
    same(connector(features.flatten(1, 2), Context(grid=(4, 6)))[0], reference(blocks))


def test_qformer_is_blip2s():
    config = Blip2Config(
        vision_config=EYES,
        qformer_config=BERT | {"encoder_hidden_size": 24},
        text_config=LLAMA,
        num_query_tokens=3,
    )
    reference = randomised(Blip2ForConditionalGeneration(config))
    names = {n: n for n in ("query_tokens", "qformer", "language_projection")}
    connector = take(QFormer(24, 32, **OURS), names, reference)
    pixels = torch.randn(2, 3, 28, 28)
    features = reference.vision_model(pixel_values=pixels).last_hidden_state
    same(connector(features), reference.get_image_features(pixels).pooler_output)


def instructed(per_frame=False):
    return QFormer(24, 32, instructed=True, per_frame=per_frame, **OURS)


def test_instructed_qformer_is_instructblips():
    config = InstructBlipConfig(
        vision_config=EYES,
        qformer_config=BERT | {"encoder_hidden_size": 24},
        text_config=LLAMA,
        num_query_tokens=3,
    )
    reference = randomised(InstructBlipForConditionalGeneration(config))
    names = {n: n for n in ("query_tokens", "qformer", "language_projection")}
    connector = take(instructed(), names, reference)
    pixels, text = torch.randn(2, 3, 28, 28), torch.randint(1, 50, (2, 5))
    read = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    features = reference.vision_model(pixel_values=pixels).last_hidden_state
    expected = reference.get_image_features(pixels, text, read.long()).pooler_output
    same(connector(features, Context(text=text, text_present=read)), expected)
    other = connector(features, Context(text=text.flip(1), text_present=read))
    assert not torch.allclose(other[0], expected[0], atol=1e-3), "the instruction matters"


def test_instructed_qformer_reads_videos_as_instructblip_video_does():
    config = InstructBlipVideoConfig(
        vision_config=EYES,
        qformer_config=BERT | {"encoder_hidden_size": 24},
        text_config=LLAMA,
        num_query_tokens=3,
    )
    reference = randomised(InstructBlipVideoForConditionalGeneration(config))
    names = {n: n for n in ("query_tokens", "qformer", "language_projection")}
    connector = take(instructed(per_frame=True), names, reference)
    pixels, text = torch.randn(2, 3, 3, 28, 28), torch.randint(1, 50, (2, 5))
    features = reference.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
    expected = reference.get_video_features(pixels, text, torch.ones_like(text)).pooler_output
    tokens = connector(features.unflatten(0, (2, 3)).flatten(1, 2), Context(frames=3, text=text))
    same(tokens, expected.reshape(2, 9, 32))


def test_window_qformer_is_granite_speechs_projector():
    config = GraniteSpeechConfig(
        text_config=TEXT | {"model_type": "granite"},
        projector_config=BERT | {"model_type": "blip_2_qformer", "encoder_hidden_size": 24},
        window_size=6,
        downsample_rate=2,
    )
    reference = randomised(GraniteSpeechEncoderProjector(config))
    ours = QFormer(24, 32, window=6, **OURS)
    names = {"query": "query_tokens", "qformer": "qformer", "linear": "language_projection"}
    connector = take(ours, names, reference)
    features = torch.randn(2, 20, 24)
    same(connector(features), reference(features))


@pytest.mark.parametrize("normalised", [False, True])
def test_idefics_resampler_is_idefics(normalised):
    config = IdeficsConfig(vision_config={"embed_dim": 24}, perceiver_config={"qk_layer_norms_perceiver": normalised})
    reference = randomised(IdeficsPerceiverResampler(config, 24, depth=2, n_heads=2, head_dim=8, n_latents=3))
    ours = IdeficsResampler(24, 24, queries=3, layers=2, heads=2, head_width=8, normalised=normalised)
    connector = take(ours, {"": "resampler."}, reference)
    features = torch.randn(2, 9, 24)
    same(connector(features), reference(features))


def test_idefics2_resampler_is_idefics2s_connector():
    latent = {"resampler_n_latents": 3, "resampler_depth": 2, "resampler_n_heads": 4, "resampler_head_dim": 8}
    latent |= {"num_key_value_heads": 2, "hidden_size": 32}
    config = Idefics2Config(text_config=TEXT | {"model_type": "mistral"}, vision_config=EYES, perceiver_config=latent)
    reference = randomised(Idefics2Connector(config))
    ours = Idefics2Resampler(24, 32, queries=3, layers=2, heads=4, head_width=8, key_heads=2, intermediate=48)
    connector = take(ours, {"": ""}, reference)
    features, present = torch.randn(2, 9, 24), torch.ones(2, 9, dtype=torch.bool)
    present[1, 6:] = False
    same(connector(features, Context(present=present)), reference(features, present))


def test_kosmos_resampler_is_kosmos2s():
    config = Kosmos2Config(
        text_config={"embed_dim": 32, "attention_heads": 4},
        vision_config={"hidden_size": 24},
        latent_query_num=3,
    )
    config.text_config._attn_implementation = "eager"
    reference = randomised(Kosmos2ImageToTextProjection(config))
    ours = KosmosResampler(24, 32, queries=3, heads=4)
    connector = take(ours, {"": "image_to_text_projection."}, reference)
    features = torch.randn(2, 9, 24)
    same(connector(features), reference(F.normalize(features, dim=-1))[0])


@pytest.mark.parametrize("tokenize", ["softmax", "st_argmax"])
def test_visual_table_is_ovis2s(tokenize):
    eyes = EYES | {"image_size": 56, "vocab_size": 12, "num_visual_indicator_tokens": 3, "hidden_stride": 2}
    config = Ovis2Config(
        text_config=TEXT | {"model_type": "qwen2", "num_key_value_heads": 2},
        vision_config=eyes | {"tokenize_function": tokenize},
        hidden_size=32,
        visual_indicator_token_ids=[1, 2, 3],
    )
    reference = randomised(Ovis2Model(config))
    ours = VisualEmbeddingTable(24, 32, vocabulary=12, indicators=3, choose=tokenize)
    names = {"vision_tower.head": "head", "visual_embeddings_table": "visual_embeddings_table"}
    connector = take(ours, names, reference)
    pixels = torch.randn(2, 3, 56, 56)
    expected = reference.get_image_features(pixels)
    same(connector(reference.vision_tower.transformer(pixels)[0]), expected.pooler_output)
    same(connector.indicators, expected.visual_indicator_features)


def test_swiglu_is_glm4vs_downsampling_and_merger():
    eyes = {"depth": 1, "hidden_size": 24, "out_hidden_size": 32, "intermediate_size": 40, "num_heads": 2}
    config = Glm4vConfig(vision_config=eyes | {"image_size": 56, "patch_size": 14}).vision_config
    reference = randomised(Glm4vVisionModel(config))
    ours = SwiGLUConnector(24, 32, channels=32, hidden=40)
    connector = take(ours, {"downsample": "downsample", "merger.": ""}, reference)
    features = torch.randn(1, 4, 6, 24)
    blocks = features.view(2, 2, 3, 2, 24).transpose(1, 2).reshape(6, 2, 2, 24).permute(0, 3, 1, 2)
    expected = reference.merger(reference.downsample(blocks).view(-1, 32))
    same(connector(features.flatten(1, 2), Context(grid=(4, 6)))[0], expected)


def test_pooled_is_perception_lms_projector():
    config = PerceptionLMConfig(text_config=LLAMA, projector_pooling_ratio=2)
    config.vision_config.model_args = {"embed_dim": 24}
    reference = randomised(PerceptionLMMultiModalProjector(config))
    ours = PooledConnector(24, 32, rows=3, columns=3)
    connector = take(ours, {"linear_1": "mlp.net.0", "linear_2": "mlp.net.2"}, reference)
    features = torch.randn(2, 36, 24)
    same(connector(features), reference(features))


def count(make):
    with torch.device("meta"):
        return sum(p.numel() for p in make().parameters())


PUBLISHED = [
    # MobileVLM V2's table of projectors (arXiv 2402.03766): 18.94 M and 6.32 M parameters behind CLIP ViT-L/14.
    (lambda: LDP(1024, 2048), 18.94e6, 1e-3),
    (lambda: LDPv2(1024, 2048), 6.32e6, 1e-3),
    # InstructBLIP's and BLIP-2's Q-Former: 188 M, with the pretraining's text head (arXiv 2301.12597).
    (lambda: QFormer(1408, 4096, instructed=True), 188e6, 0.03),
    # Qwen-VL's adapter: 0.08 B, not counting what follows it (arXiv 2308.12966, table 1).
    (lambda: PositionalResampler(1664, 4096, projection=False), 0.08e9, 0.07),
    # InternVL's QLLaMA: 8 B with a vocabulary of 49954 (arXiv 2312.14238, table 1).
    (lambda: QLLaMA(3200, 4096), 8e9 - 2 * 49954 * 4096, 0.03),
]


@pytest.mark.parametrize("make, published, tolerance", PUBLISHED)
def test_parameters_are_as_many_as_published(make, published, tolerance):
    assert count(make) == pytest.approx(published, rel=tolerance)


def test_parameters_are_exactly_transformers():
    llava, internvl, idefics2, deepseek = LlavaConfig(), InternVLConfig(), Idefics2Config(), DeepseekVLHybridConfig()
    with torch.device("meta"):
        theirs = [
            LlavaMultiModalProjector(llava),
            InternVLMultiModalProjector(internvl),
            Idefics2Connector(idefics2),
            DeepseekVLHybridAligner(deepseek),
        ]
    inside, both = idefics2.text_config.intermediate_size, 1024 + deepseek.vision_config.hidden_size
    ours = [
        lambda: MLPConnector(1024, 4096),
        lambda: MLPConnector(1024, internvl.text_config.hidden_size, norm="input", stage=PixelShuffle(2)),
        lambda: Idefics2Resampler(idefics2.vision_config.hidden_size, 4096, intermediate=inside),
        lambda: HybridConnector(both, deepseek.text_config.hidden_size, detailed=1024),
    ]
    assert [count(make) for make in ours] == [sum(p.numel() for p in module.parameters()) for module in theirs]
