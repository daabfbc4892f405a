"""Every adapter's config builds what it says, and released sizes add up to what the papers print."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from embodied.building import build
from embodied.lvlm.adapters.adaption_prompt import AdaptionPrompt
from embodied.lvlm.adapters.base import Adapter, Sight
from embodied.lvlm.adapters.feed_forward_experts import FeedForwardExperts
from embodied.lvlm.adapters.gated_cross_attention import GatedCrossAttention
from embodied.lvlm.adapters.visual_expert import VisualExpert

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "conf" / "adapter").glob("*.yaml"))
SMALL = {"hidden_size": 32, "num_hidden_layers": 8, "num_attention_heads": 4, "intermediate_size": 48}
SMALL |= {"vocab_size": 64, "max_position_embeddings": 64}
VICUNA = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008}
STABLE = {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 32}
STABLE |= {"intermediate_size": 5632, "vocab_size": 100352, "use_qkv_bias": True}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def unreal(family, sizes):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_an_adapter_that_reads_pictures_and_trains(path):
    torch.manual_seed(0)
    adapter = build(yaml.safe_load(path.read_text()), (Adapter,))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL))
    adapter.install(model)
    visual = torch.zeros(2, 5).bool()
    visual[:, 1] = True
    adapter.see(Sight(visual=visual, media=torch.randn(2, 1, 32)))
    logits = model(input_ids=torch.randint(4, 64, (2, 5))).logits
    (logits.square().mean() + sum(adapter.losses().values(), torch.zeros(()))).backward()
    assert torch.isfinite(logits).all()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())


def test_the_visual_expert_of_cogvlm_has_six_and_a_half_billion_parameters():
    model, adapter = unreal("llama", VICUNA), VisualExpert()
    adapter.install(model)
    assert count(adapter) / 1e9 == pytest.approx(6.5, rel=0.01)  # arXiv 2311.03079, section 2.1


def test_llama_adapter_has_one_point_two_million_parameters():
    model, adapter = unreal("llama", VICUNA), AdaptionPrompt(length=10, layers=30)
    with torch.device("meta"):
        adapter.install(model)
    assert count(adapter) / 1e6 == pytest.approx(1.2, rel=0.03)  # arXiv 2303.16199, abstract


def test_moe_llava_on_stablelm_has_two_point_nine_billion_parameters():
    model, adapter = unreal("stablelm", STABLE), FeedForwardExperts(experts=4, top_k=2, every=2)
    adapter.install(model)
    assert (count(model) + count(adapter)) / 1e9 == pytest.approx(2.9, rel=0.03)  # arXiv 2401.15947, table 1


@torch.no_grad()
def test_the_encoder_of_an_encoder_decoder_looks_at_media_too():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes)).eval()
    ids = torch.randint(4, 64, (2, 5))
    before = model(input_ids=ids, decoder_input_ids=ids).logits
    adapter = GatedCrossAttention(every=1, heads=4)
    adapter.install(model)
    assert sorted(adapter.blocks) == ["0", "1"]
    adapter.see(Sight(media=torch.randn(2, 3, 32)))
    assert torch.equal(model(input_ids=ids, decoder_input_ids=ids).logits, before)
    for block in adapter.blocks.values():
        block.attention_gate.fill_(1.0)
    assert not torch.allclose(model(input_ids=ids, decoder_input_ids=ids).logits, before, atol=1e-4)


def test_recomputed_activations_give_the_same_gradients():
    """Gradient checkpointing runs layers again in the backward pass, adapters included."""
    torch.manual_seed(0)
    model, adapter = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL)), GatedCrossAttention()
    adapter.install(model)
    for block in adapter.blocks.values():
        torch.nn.init.ones_(block.attention_gate)
    ids, media = torch.randint(4, 64, (2, 5)), torch.randn(2, 3, 32)
    gradients = []
    for again in (False, True):
        if again:
            model.gradient_checkpointing_enable()
        adapter.zero_grad()
        adapter.see(Sight(media=media))
        model.train()(input_ids=ids, use_cache=False).logits.square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in adapter.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
