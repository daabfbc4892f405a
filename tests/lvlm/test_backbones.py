"""Every family of language models reads embeddings, a mask and positions as its own class reads ids."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration

from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.backbones.fused import internlm2_from_llama, join_wqkv, llama_from_internlm2, split_wqkv

LLAMA = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
}
WITHOUT_GROUPS = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 96}
OPT |= {"max_position_embeddings": 64, "dropout": 0.0, "init_std": 0.2}
MPT = {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "vocab_size": 96, "max_seq_len": 64}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "mistral": LLAMA | {"sliding_window": 4},
    "mixtral": LLAMA | {"num_local_experts": 4},
    "phi": WITHOUT_GROUPS | {"resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "phi3": LLAMA,
    "gemma": LLAMA | {"head_dim": 8},
    "gemma2": LLAMA | {"head_dim": 8, "sliding_window": 4},
    "glm": LLAMA | {"head_dim": 8},
    "cohere": LLAMA | {"tie_word_embeddings": True},
    "opt": OPT,
    "opt, projected": OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "mpt": MPT,
    "mpt, six heads": MPT | {"d_model": 36, "n_heads": 6},
    "stablelm": LLAMA,
    "persimmon": WITHOUT_GROUPS,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 96, "state_size": 8, "initializer_range": 0.2},
}
LENGTHS = (9, 5)


def config_of(family):
    return {"model_type": family.split(",")[0], **FAMILIES[family]}


def build(family):
    torch.manual_seed(0)
    backbone = CausalBackbone(config_of(family)).eval()
    for name, parameter in backbone.named_parameters():
        if name.endswith(("bias", "norm.weight")):  # what starts at 0 or 1 would hide
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.2)
    return backbone


def causal(present, past=0):
    """Mask (B, N, N) and positions (B, N) of causal text, padding seeing itself."""
    new = present.shape[1]
    mask = (torch.ones(new, new, dtype=torch.bool).tril() & present.unsqueeze(1)) | torch.eye(new, dtype=torch.bool)
    return mask, (present.cumsum(1) - 1).clamp(min=0)


def padded(side, lengths=LENGTHS, seed=1):
    """Ids (B, N), which of them are real, and the rows without padding."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(4, 96, (length,), generator=generator) for length in lengths]
    ids, present = (
        torch.zeros(len(rows), max(lengths), dtype=torch.long),
        torch.zeros(len(rows), max(lengths)).bool(),
    )
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(max(lengths) - len(row), None)
        ids[i, where], present[i, where] = row, True
    return ids, present, rows


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_family_reads_embeddings_mask_and_positions_as_its_own_class_reads_ids(family, side):
    backbone = build(family)
    ids, present, rows = padded(side)
    more = padded("left", (6, 6), seed=2)[0]
    whole = [backbone.model(input_ids=torch.cat([a, b])[None]).logits[0] for a, b in zip(rows, more, strict=True)]

    hidden, past = backbone(backbone.embed(ids), *causal(present), keep=True)
    logits = backbone.logits(hidden)
    for i, row in enumerate(rows):
        torch.testing.assert_close(logits[i, present[i]], whole[i][: len(row)], rtol=0, atol=1e-5)

    kept = copy.deepcopy(past)
    for first, last in ((0, 3), (3, 4), (4, 5), (5, 6)):  # three tokens at once, then one by one
        seen = torch.cat([present, torch.ones(2, last, dtype=torch.bool)], dim=1)
        mask, positions = causal(seen)
        new = last - first
        hidden, longer = backbone(
            backbone.embed(more[:, first:last]), mask[:, -new:], positions[:, -new:], past=past, keep=True
        )
        for i, row in enumerate(rows):
            expected = whole[i][len(row) + first : len(row) + last]
            torch.testing.assert_close(backbone.logits(hidden)[i], expected, rtol=0, atol=1e-5)
        if first == 0:
            for before, after in zip(kept, past, strict=True):
                assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
        past = longer


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_built_without_memory_on_the_meta_device(family):
    with torch.device("meta"):
        backbone = CausalBackbone(config_of(family))
    assert {parameter.device.type for parameter in backbone.parameters()} == {"meta"}
    real = CausalBackbone(config_of(family))
    assert sum(p.numel() for p in backbone.parameters()) == sum(p.numel() for p in real.parameters())
    assert real.layers["model_type"] == family.split(",")[0]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mamba"])
@torch.no_grad()
def test_what_a_token_may_not_see_changes_nothing(family):
    """Two samples in one row, isolated by the mask alone, as packing lays them."""
    backbone = build(family)
    _, _, (first, second) = padded("left")
    mask = torch.block_diag(*(torch.ones(n, n).tril() for n in LENGTHS)).bool()[None]
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    hidden, _ = backbone(backbone.embed(torch.cat([first, second])[None]), mask, positions)
    for row, part in ((first, hidden[0, : LENGTHS[0]]), (second, hidden[0, LENGTHS[0] :])):
        alone = backbone.model(input_ids=row[None]).logits[0]
        torch.testing.assert_close(backbone.logits(part), alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_recurrent_model_continues_rows_of_different_lengths():
    backbone = build("mamba")
    ids, present, rows = padded("right")
    more, new, tails = padded("left", (2, 4), seed=3)
    hidden, past = backbone(backbone.embed(ids), *causal(present), keep=True)
    mask, positions = causal(torch.cat([present, new], dim=1))
    hidden, _ = backbone(backbone.embed(more), mask[:, -4:], positions[:, -4:], past=past)
    for i, (row, tail) in enumerate(zip(rows, tails, strict=True)):
        whole = backbone.model(input_ids=torch.cat([row, tail])[None]).logits[0, len(row) :]
        torch.testing.assert_close(backbone.logits(hidden)[i, new[i]], whole, rtol=0, atol=1e-5)


def test_a_recurrent_model_refuses_to_look_ahead_or_to_unsee():
    backbone = build("mamba")
    embeddings, positions = torch.randn(1, 4, 32), torch.arange(4)[None]
    with pytest.raises(ValueError, match="reads in order"):
        backbone(embeddings, torch.ones(1, 4, 4, dtype=torch.bool), positions)
    packed = torch.block_diag(torch.ones(2, 2).tril(), torch.ones(2, 2).tril()).bool()[None]
    with pytest.raises(ValueError, match="reads in order"):
        backbone(embeddings, packed, torch.tensor([[0, 1, 0, 1]]))


# Positions in three axes


def mrope(**more):
    return CausalBackbone({"model_type": "qwen2_vl_text", **LLAMA, **MROPE, **more}).eval()


@torch.no_grad()
def test_qwen2_vl_reads_positions_in_three_axes_as_its_own_class():
    torch.manual_seed(0)
    backbone = mrope()
    text = {key: value for key, value in LLAMA.items() if key != "tie_word_embeddings"} | MROPE
    vision = {"depth": 1, "embed_dim": 8, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    config = AutoConfig.for_model("qwen2_vl", text_config=text, vision_config=vision, tie_word_embeddings=False)
    reference = Qwen2VLForConditionalGeneration(config).eval()
    reference.model.language_model.load_state_dict(backbone.model.model.state_dict())
    reference.lm_head.load_state_dict(backbone.model.lm_head.state_dict())
    ids, present, _ = padded("left")
    mask, positions = causal(present)
    positions = torch.stack([positions, positions // 2, positions % 3])
    hidden, _ = backbone(backbone.embed(ids), mask, positions)
    expected = reference(input_ids=ids, attention_mask=present.long(), position_ids=positions).logits
    torch.testing.assert_close(backbone.logits(hidden)[present], expected[present], rtol=0, atol=1e-5)
    flat, _ = backbone(backbone.embed(ids), mask, positions[0])
    same, _ = backbone(backbone.embed(ids), mask, positions[:1].expand(3, -1, -1))
    assert torch.equal(flat, same) and not torch.allclose(flat[present], hidden[present], atol=1e-3)


def test_a_head_may_share_the_embedding():
    backbone = mrope(tie_word_embeddings=True)
    assert backbone.model.lm_head.weight is backbone.model.get_input_embeddings().weight
    assert backbone.width == 32 and backbone.axes == 3


def test_positions_that_a_family_does_not_have_are_refused_in_one_line():
    embeddings, mask = torch.randn(1, 3, 32), torch.ones(1, 3, 3).tril().bool()
    with pytest.raises(ValueError, match="'llama' has positions of 1 axis, not 3"):
        build("llama")(embeddings, mask, torch.zeros(3, 1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="65 tokens; 'opt' learned 64"):
        build("opt")(embeddings, mask, torch.tensor([[62, 63, 64]]))


def test_an_unknown_family_is_refused_in_one_line():
    with pytest.raises(ValueError, match="cannot build a causal 'lama'"):
        CausalBackbone({"model_type": "lama", "vocab_size": 8})
    with pytest.raises(ValueError, match="cannot build a causal 'clip'"):
        CausalBackbone({"model_type": "clip", "vocab_size": 8})


# What a family adds to the loss


def test_a_mixture_of_experts_tells_its_balance_as_its_own_class_does():
    backbone = build("mixtral").train()
    ids, present, _ = padded("left")
    backbone(backbone.embed(ids), *causal(present))
    reference = backbone.model(input_ids=ids, attention_mask=present.long(), output_router_logits=True)
    weight = backbone.model.config.router_aux_loss_coef
    # what padding looks at differs, and padding is not counted
    torch.testing.assert_close(backbone.losses()["balance"], weight * reference.aux_loss)
    backbone.losses()["balance"].backward()
    assert backbone.eval().losses() and not build("llama").train().losses()
    backbone(backbone.embed(ids), *causal(present))
    assert backbone.losses() == {}


# Fused checkpoints


def test_a_fused_wqkv_is_split_and_joined_to_the_bit():
    query, key, value = torch.randn(8, 6), torch.randn(4, 6), torch.randn(4, 6)
    fused = join_wqkv(query, key, value, heads=4, key_value_heads=2)
    # head group 0: queries 0 and 1, key 0, value 0, each of width 2
    assert torch.equal(fused[:8], torch.cat([query[:4], key[:2], value[:2]]))
    for got, want in zip(split_wqkv(fused, 4, 2), (query, key, value), strict=True):
        assert torch.equal(got, want)
    with pytest.raises(ValueError, match="no 3 \\+ 2 x 2 heads"):
        split_wqkv(fused, 3, 2)


def test_internlm2_becomes_a_llama_and_back():
    llama = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **LLAMA))
    weights = llama.state_dict()
    named = internlm2_from_llama(weights, 4, 2)
    assert "model.layers.0.attention.wqkv.weight" in named and "output.weight" in named
    assert named["model.layers.1.feed_forward.w2.weight"].shape == (32, 64)
    back = llama_from_internlm2(named, 4, 2)
    assert back.keys() == weights.keys() and all(torch.equal(back[name], weights[name]) for name in weights)
