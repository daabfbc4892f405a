"""Adapters that look elsewhere equal the classes and the arithmetic they follow."""

import math

import pytest
import torch
from peft import AdaptionPromptConfig, get_peft_model
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, IdeficsConfig, MllamaTextConfig
from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer
from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from embodied.lvlm.adapters.adaption_prompt import AdaptionPrompt
from embodied.lvlm.adapters.base import BLIND, Sight
from embodied.lvlm.adapters.gated_cross_attention import IDEFICS, MLLAMA, GatedCrossAttention
from embodied.lvlm.adapters.hyper_attention import HyperAttention
from embodied.lvlm.adapters.mm_adapter import MMAdapter
from embodied.lvlm.backbones.causal import CausalBackbone

LLAMA = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4}
LLAMA |= {"intermediate_size": 48, "vocab_size": 64, "max_position_embeddings": 64, "initializer_range": 0.2}


def language_model(family="llama", **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **LLAMA, **more)).eval()


def disturbed(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


def take(block, reference, names):
    """The reference's weights under our names; nothing may be left over."""
    weights = reference.state_dict()
    state = {}
    for name in block.state_dict():
        stem = max((key for key in names if name.startswith(key)), key=len)
        state[name] = weights.pop(name.replace(stem, names[stem], 1))
    assert not [name for name in weights if "rotary" not in name]
    block.load_state_dict(state)


def gated_block(reference, names, **options):
    adapter = GatedCrossAttention(every=1, heads=4, feed_forward=48, activation="swiglu", norm="rms", **options)
    adapter.install(language_model())
    block = adapter.blocks["1"].eval()
    take(block, reference, names)
    return block


ROWS = (("11001", "10000", "01111"), ("00000", "11111", "00000"))
SEEN = torch.tensor([[[digit == "1" for digit in token] for token in row] for row in ROWS])


@pytest.mark.parametrize("gate", ["vector", "scalar"])
@torch.no_grad()
def test_gated_cross_attention_equals_that_of_idefics(gate):
    torch.manual_seed(1)
    config = IdeficsConfig(
        **LLAMA,
        qk_layer_norms=True,
        alpha_type="float" if gate == "scalar" else "vector",
        vision_config={"embed_dim": 20},
    )
    config._attn_implementation = "eager"
    reference = disturbed(IdeficsGatedCrossAttentionLayer(config, layer_idx=0)).eval()
    block = gated_block(
        reference, IDEFICS, media_width=20, norm_eps=1e-6, normalise_queries=True, gate=gate, blind="attention"
    )
    hidden, media = torch.randn(2, 3, 32), torch.randn(2, 5, 20)
    mask = torch.zeros(2, 1, 3, 5).masked_fill(~SEEN.unsqueeze(1), torch.finfo(torch.float32).min)
    expected = reference(
        hidden,
        image_hidden_states=media,
        image_attention_mask=mask,
        cross_attention_gate=SEEN.any(2).float(),
    )
    torch.testing.assert_close(block(hidden, Sight(media=media, media_seen=SEEN)), expected, rtol=0, atol=1e-5)
    # without media its feed-forward still reads the text, as it does for a row of a batch that sees none
    blind = block(hidden, Sight(media=media, media_seen=torch.zeros_like(SEEN)))
    torch.testing.assert_close(block(hidden, BLIND), blind, rtol=0, atol=1e-6)


@torch.no_grad()
def test_gated_cross_attention_equals_that_of_llama_vision():
    torch.manual_seed(1)
    config = MllamaTextConfig(**(LLAMA | {"num_key_value_heads": 2}), cross_attention_layers=[0])
    config._attn_implementation = "eager"
    reference = disturbed(MllamaCrossAttentionDecoderLayer(config, layer_idx=0)).eval()
    block = gated_block(
        reference, MLLAMA, key_value_heads=2, norm_eps=config.rms_norm_eps, normalise_queries=True, blind="all"
    )
    hidden, media = torch.randn(2, 3, 32), torch.randn(2, 5, 32)
    seeing = SEEN.any(2)
    mask = torch.zeros(2, 1, 3, 5).masked_fill(~SEEN.unsqueeze(1), torch.finfo(torch.float32).min)
    expected = reference(
        hidden,
        cross_attention_states=media,
        cross_attention_mask=mask,
        attention_mask=None,
        full_text_row_masked_out_mask=seeing[:, None, :, None].float(),
    )
    said = block(hidden, Sight(media=media, media_seen=SEEN))
    torch.testing.assert_close(said[seeing], expected[seeing], rtol=0, atol=1e-5)
    assert torch.equal(said[~seeing], hidden[~seeing])  # there, Llama attends to all media alike


@torch.no_grad()
def test_adaption_prompts_equal_those_of_peft_on_text():
    ids = torch.randint(4, 64, (2, 7))
    ours, theirs = language_model(), language_model()
    adapter = AdaptionPrompt(length=5, layers=2, gate="layer", squash=False)
    adapter.install(ours)
    peft = get_peft_model(theirs, AdaptionPromptConfig(adapter_len=5, adapter_layers=2, task_type="CAUSAL_LM")).eval()
    parameters = {name: p for name, p in peft.named_parameters() if "adaption" in name}
    assert len(parameters) == 4
    for name, parameter in parameters.items():
        index = name.split("layers.")[1].split(".")[0]
        parameter.normal_()
        if name.endswith("prompt"):
            adapter.parts[index].prompt.copy_(parameter[0])
        else:
            adapter.parts[index].gate.copy_(parameter.view(1, 1, 1))
    mask = torch.ones(2, 7).long()
    expected = peft(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(ours(input_ids=ids).logits, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(expected, language_model()(input_ids=ids).logits, atol=1e-2)


@torch.no_grad()
def test_the_picture_is_added_to_the_prompts_of_rows_that_have_one():
    ids, media = torch.randint(4, 64, (2, 7)), torch.randn(2, 1, 32)

    def said(prompts, sight):
        model, adapter = language_model(), AdaptionPrompt(length=3, layers=1)
        adapter.install(model)
        adapter.parts["2"].prompt.copy_(prompts)
        adapter.parts["2"].gate.copy_(torch.tensor([0.5, -1.0, 2.0, 0.1]).view(4, 1, 1))
        adapter.see(sight)
        return model(input_ids=ids).logits

    prompts = torch.randn(3, 32)
    both = said(prompts, Sight(media=media, sighted=torch.tensor([True, False])))
    torch.testing.assert_close(both[0], said(prompts + media[0], BLIND)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1], said(prompts, BLIND)[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("placed", [True, False])
@torch.no_grad()
def test_hyper_attention_is_self_and_cross_attention_mixed_with_shared_norm_and_queries(placed):
    """One layer written out: rotary queries, grouped heads, keys turned by where the media stand."""
    torch.manual_seed(1)
    model = language_model("qwen2")
    layer, base = model.model.layers[1], model.model
    adapter = HyperAttention(layers=[1], gate_start=-0.3)
    adapter.install(model)
    disturbed(adapter)
    hidden, media = torch.randn(1, 4, 32), torch.randn(1, 3, 32)
    seen = torch.tensor([[[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]]]).bool()
    where = torch.tensor([[1, 3, 3]]) if placed else None
    adapter.see(Sight(media=media, media_seen=seen, media_positions=where))
    angles = base.rotary_emb(hidden, torch.arange(4)[None])
    causal = torch.ones(1, 1, 4, 4).tril().bool()
    said, _ = layer.self_attn(layer.input_layernorm(hidden), position_embeddings=angles, attention_mask=causal)

    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    part = adapter.parts["1"]
    query, key, value = (
        m(normed).view(1, 4, 4, 8).transpose(1, 2) for m in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *angles)
    own = F.scaled_dot_product_attention(query, key, value, attn_mask=causal)
    new = part.key_value(layer.input_layernorm(media)).view(1, 3, 4, 2, 8)
    media_key, media_value = new[:, :, :, 0].transpose(1, 2), new[:, :, :, 1].transpose(1, 2)
    turned = base.rotary_emb(hidden, where if placed else torch.zeros(1, 3).long())
    _, media_key = apply_rotary_pos_emb(media_key, media_key, *turned)
    scores = (query @ media_key.transpose(2, 3) / math.sqrt(8)).masked_fill(~seen[:, None], -1e30).softmax(-1)
    crossed = (scores @ media_value).transpose(1, 2).flatten(2)
    own = own.transpose(1, 2).flatten(2)
    gate = torch.sigmoid(part.fixed)
    mixed = torch.cat([own[:, :1], own[:, 1:] * (1 - gate) + crossed[:, 1:] * gate], dim=1)
    torch.testing.assert_close(said, F.linear(mixed, attention.o_proj.weight), rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["fixed", "adaptive"])
@torch.no_grad()
def test_hyper_attention_with_its_gate_shut_is_the_language_model_to_the_bit(gate):
    ids = torch.randint(4, 64, (2, 7))
    model = language_model()
    before = model(input_ids=ids).logits
    adapter = HyperAttention(layers=[0, 2], gate=gate, gate_start=-200.0)
    adapter.install(model)
    adapter.see(Sight(media=torch.randn(2, 3, 32)))
    assert torch.equal(model(input_ids=ids).logits, before)


@torch.no_grad()
def test_where_the_media_stand_matters_only_relative_to_the_text():
    model = language_model()
    adapter = HyperAttention(layers=[0, 2], gate_start=1.0)
    adapter.install(model)
    ids, media = torch.randint(4, 64, (1, 5)), torch.randn(1, 2, 32)

    def said(shift, where):
        adapter.see(Sight(media=media, media_positions=torch.tensor([where])))
        return model(input_ids=ids, position_ids=torch.arange(5)[None] + shift).logits

    torch.testing.assert_close(said(0, [1, 3]), said(7, [8, 10]), rtol=0, atol=1e-4)
    assert not torch.allclose(said(0, [1, 3]), said(0, [3, 1]), atol=1e-3)


@torch.no_grad()
def test_media_have_a_place_in_three_axes_too():
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    backbone = CausalBackbone({"model_type": "qwen2_vl_text", **LLAMA, "rope_parameters": rope}).eval()
    adapter = HyperAttention(layers=[1], gate_start=1.0)
    adapter.install(backbone.model)
    tokens, media, mask = torch.randn(1, 5, 32), torch.randn(1, 2, 32), torch.ones(1, 5, 5).tril().bool()

    def said(shift, where):
        adapter.see(Sight(media=media, media_positions=torch.tensor([where])))
        return backbone(tokens, mask, torch.arange(5).expand(3, 1, -1) + shift)[0]

    torch.testing.assert_close(said(0, [1, 3]), said(7, [8, 10]), rtol=0, atol=1e-4)
    assert not torch.allclose(said(0, [1, 3]), said(0, [3, 1]), atol=1e-3)


@torch.no_grad()
def test_a_mixture_of_modality_adapters_weighs_by_what_a_sample_is():
    ids = torch.randint(4, 64, (2, 7))
    model = language_model()
    adapter = MMAdapter(temperature=0.01).eval()
    adapter.install(model)
    for part in adapter.parts.values():
        part.router.weight.copy_(torch.stack([-torch.ones(32), torch.ones(32)]))
        part.router.bias.zero_()
        part.ups[1].weight.normal_()
    adapter.modality.weight.copy_(torch.stack([-torch.ones(32), torch.ones(32)]))  # text, pictures
    before = model(input_ids=ids).logits  # text alone goes through the first adapter, which is still nothing
    adapter.see(Sight(sighted=torch.tensor([True, False])))
    mixed = model(input_ids=ids).logits
    torch.testing.assert_close(mixed[1], before[1], rtol=0, atol=1e-5)
    assert not torch.allclose(mixed[0], before[0], atol=1e-2)
