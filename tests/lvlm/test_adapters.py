"""What holds for every adapter: what it changes when it is new, blind, frozen, copied, or met token by token."""

import copy

import pytest
import torch

from embodied.lvlm.adapters.adaption_prompt import AdaptionPrompt
from embodied.lvlm.adapters.affine import AffineTuning
from embodied.lvlm.adapters.base import BLIND, Sight
from embodied.lvlm.adapters.bottleneck import BottleneckAdapter
from embodied.lvlm.adapters.feed_forward_experts import FeedForwardExperts
from embodied.lvlm.adapters.gated_cross_attention import GatedCrossAttention
from embodied.lvlm.adapters.hyper_attention import HyperAttention
from embodied.lvlm.adapters.lora import LoRA
from embodied.lvlm.adapters.lora_experts import LoRAExperts
from embodied.lvlm.adapters.mm_adapter import MMAdapter
from embodied.lvlm.adapters.modality_adaptive import ModalityAdaptive
from embodied.lvlm.adapters.several import Several
from embodied.lvlm.adapters.visual_expert import VisualExpert
from embodied.lvlm.backbones.causal import CausalBackbone
from embodied.lvlm.backbones.generation import generate, read

LLAMA = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 48, "vocab_size": 64, "max_position_embeddings": 64, "initializer_range": 0.2}
FLAT = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
OPT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "ffn_dim": 48, "vocab_size": 64}
MPT = {"d_model": 32, "n_layers": 4, "n_heads": 4, "vocab_size": 64, "max_seq_len": 64, "initializer_range": 0.2}
FAMILIES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA | {"head_dim": 8},
    "mistral": LLAMA | {"sliding_window": 4},
    "phi": FLAT,
    "opt": OPT | {"max_position_embeddings": 64, "dropout": 0.0, "init_std": 0.2},
    "phi3": LLAMA,
    "mpt": MPT,
    "mamba": {"hidden_size": 32, "num_hidden_layers": 4, "vocab_size": 64, "state_size": 8},
}
ADAPTERS = {
    "gated": lambda: GatedCrossAttention(every=2, heads=4),
    "gated, vectors": lambda: GatedCrossAttention(
        every=2, offset=1, heads=4, norm="rms", activation="swiglu", gate="vector", normalise_queries=True
    ),
    "hyper": lambda: HyperAttention(layers=[1, 3]),
    "hyper, adaptive": lambda: HyperAttention(layers=[1, 3], gate="adaptive"),
    "prompts": lambda: AdaptionPrompt(length=3, layers=3),
    "prompts, early": lambda: AdaptionPrompt(length=3, layers=2, early=2),
    "affine": lambda: AffineTuning(),
    "mm": lambda: MMAdapter(dropout=0.0),
    "bottleneck": lambda: BottleneckAdapter(width=4),
    "visual expert": lambda: VisualExpert(),
    "modality-adaptive": lambda: ModalityAdaptive(),
    "lora": lambda: LoRA("proj|fc", rank=2),
    "partial lora": lambda: LoRA("proj|fc", rank=2, tokens="visual"),
    "lora experts": lambda: LoRAExperts("proj|fc", rank=2, alpha=4),
    "lora experts, soft": lambda: LoRAExperts("proj|fc", experts=4, top_k=0, rank=2, alpha=4),
    "experts": lambda: FeedForwardExperts(experts=3),
    "several": lambda: Several([AdaptionPrompt(length=3, layers=2, early=2), AffineTuning()]),
}
PLAIN = ("llama", "qwen2", "mistral", "phi", "opt")
LACK = {("experts", "opt")}
EXACT = [name for name in ADAPTERS if name not in ("hyper", "hyper, adaptive", "experts")]
SEEING = ("gated", "gated, vectors", "hyper", "hyper, adaptive", "visual expert", "modality-adaptive", "partial lora")
"""What is the language model wherever nothing is looked at, however it is trained."""
MEDIA = ("gated", "gated, vectors", "hyper", "hyper, adaptive")
PAIRS = [(adapter, family) for adapter in ADAPTERS for family in PLAIN if (adapter, family) not in LACK]
LENGTH = 9


def build(family="llama"):
    torch.manual_seed(0)
    return CausalBackbone({"model_type": family, **FAMILIES[family]}).eval()


def installed(adapter, backbone, trained=False):
    torch.manual_seed(1)
    adapter = ADAPTERS[adapter]() if isinstance(adapter, str) else adapter
    adapter.install(backbone.model)
    if trained:
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return adapter.eval()


def looks():
    """Two rows of nine tokens, and three media of which tokens see none, some or all."""
    generator = torch.Generator().manual_seed(2)
    visual = torch.zeros(2, LENGTH).bool()
    visual[:, 2:5] = True
    seen = (torch.arange(LENGTH)[:, None] >= torch.tensor([2, 2, 5])).expand(2, -1, -1)
    positions = torch.tensor([[2, 2, 5], [2, 2, 5]])
    return Sight(visual, torch.randn(2, 3, 32, generator=generator), seen, positions, torch.ones(2).bool())


def ids():
    return torch.randint(4, 64, (2, LENGTH), generator=torch.Generator().manual_seed(3))


def one_pass(backbone, tokens=None, past=None, keep=False):
    tokens = ids() if tokens is None else tokens
    rows, new = tokens.shape
    before = 0 if past is None else past[0][0].shape[2]
    mask = torch.ones(before + new, before + new).tril().bool()[before:].expand(rows, -1, -1)
    positions = torch.arange(before, before + new).expand(rows, -1)
    return backbone(backbone.embed(tokens), mask, positions, past, keep)


@pytest.mark.parametrize("name, family", [pair for pair in PAIRS if pair[0] in EXACT])
@torch.no_grad()
def test_a_new_adapter_leaves_the_language_model_as_it_was_to_the_bit(name, family):
    backbone = build(family)
    before, _ = one_pass(backbone)
    adapter = installed(name, backbone)
    for sight in (BLIND, looks()):
        adapter.see(sight)
        assert torch.equal(one_pass(backbone)[0], before)


@pytest.mark.parametrize("name, family", [pair for pair in PAIRS if pair[0] in SEEING])
@torch.no_grad()
def test_without_pictures_a_trained_adapter_is_the_language_model(name, family):
    backbone = build(family)
    before, _ = one_pass(backbone)
    adapter = installed(name, backbone, trained=True)
    assert torch.equal(one_pass(backbone)[0], before)
    adapter.see(looks())
    changed, _ = one_pass(backbone)
    assert torch.isfinite(changed).all() and (changed - before).abs().amax() > 1e-2


@pytest.mark.parametrize("name", MEDIA)
@torch.no_grad()
def test_a_token_that_sees_nothing_gets_nothing(name):
    backbone = build()
    before, _ = one_pass(backbone)
    adapter = installed(name, backbone, trained=True)
    adapter.see(looks())
    changed, _ = one_pass(backbone)
    assert torch.equal(changed[:, :2], before[:, :2]) and not torch.allclose(changed[:, 2:], before[:, 2:])
    sight = looks()
    blind = sight.media_seen.clone()
    blind[1] = False
    adapter.see(Sight(media=sight.media, media_seen=blind, media_positions=sight.media_positions))
    half, _ = one_pass(backbone)
    torch.testing.assert_close(half[1], before[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(half[0], changed[0], rtol=0, atol=1e-6)
    other = sight.media.clone()
    other[:, 2] += 1.0  # which tokens before the fifth don't see
    adapter.see(Sight(media=other, media_seen=sight.media_seen, media_positions=sight.media_positions))
    later, _ = one_pass(backbone)
    assert torch.equal(later[:, :5], changed[:, :5]) and not torch.allclose(later[:, 5:], changed[:, 5:])


@pytest.mark.parametrize("name, family", PAIRS)
@torch.no_grad()
def test_token_by_token_with_a_cache_is_as_all_at_once(name, family):
    backbone = build(family)
    adapter, sight = installed(name, backbone, trained=True), looks()
    if name == "prompts":  # which add the media to themselves
        sight = Sight(sight.visual, sight.media, None, None, sight.sighted)
    adapter.see(sight)
    whole, _ = one_pass(backbone)
    past, parts = None, []
    for first, last in ((0, 4), (4, 7), *((i, i + 1) for i in range(7, LENGTH))):
        seen = None if sight.media_seen is None else sight.media_seen[:, first:last]
        adapter.see(Sight(sight.visual[:, first:last], sight.media, seen, sight.media_positions, sight.sighted))
        hidden, past = one_pass(backbone, ids()[:, first:last], past, keep=True)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name, family", PAIRS)
def test_gradients_reach_all_that_was_added_and_nothing_when_frozen(name, family):
    backbone = build(family)
    before = {id(parameter) for parameter in backbone.parameters()}
    adapter = installed(name, backbone, trained=True).train()
    own = dict(adapter.named_parameters())
    taken = before - {id(p) for p in backbone.parameters()}
    assert own and taken <= {id(p) for p in own.values()}  # what left the language model is the adapter's
    backbone.requires_grad_(False)
    sight = looks()
    adapter.see(Sight(sight.visual, sight.media[:, : 1 if name == "prompts" else 3], None, None, sight.sighted))
    hidden, _ = one_pass(backbone)
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(5))
    ((hidden * weights).sum() + sum(adapter.losses().values(), torch.zeros(()))).backward()
    assert [n for n, p in own.items() if p.grad is None] == []
    shut = {"modality.weight"}  # of which one row is used
    silent = [n for n, p in own.items() if n not in shut and not p.grad.abs().sum() > 0]
    assert [n for n in silent if not n.endswith(("key.bias", "k_proj.bias"))] == []  # softmax can't feel these
    assert all(p.grad is None for p in backbone.parameters())
    adapter.zero_grad()
    adapter.requires_grad_(False)
    assert not one_pass(backbone)[0].requires_grad


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_copy_of_both_stands_alone_and_both_can_be_built_without_memory(name):
    backbone = build()
    both = torch.nn.ModuleList([backbone, installed(name, backbone, trained=True).train()])
    sight = looks()
    both[1].see(Sight(sight.visual, sight.media[:, :1].clone().requires_grad_() * 1, None, None, sight.sighted))
    one_pass(backbone)[0].sum().backward()
    twin = copy.deepcopy(both).eval()
    both.eval()
    with torch.no_grad():
        for pair in (both, twin):
            pair[1].see(Sight(sight.visual, sight.media[:, :1], None, None, sight.sighted))
        expected, _ = one_pass(backbone)
        for parameter in both[1].parameters():
            parameter.zero_()
        both[1].see(BLIND)
        assert torch.equal(one_pass(twin[0])[0], expected)

    with torch.device("meta"):
        empty = CausalBackbone({"model_type": "llama", **LLAMA})
        adapter = ADAPTERS[name]()
        adapter.install(empty.model)
    assert {p.device.type for p in adapter.parameters()} == {"meta"}
    assert {n: p.shape for n, p in adapter.named_parameters()} == {n: p.shape for n, p in both[1].named_parameters()}


@pytest.mark.parametrize("name", ["gated", "hyper", "mm", "visual expert"])
@torch.no_grad()
def test_what_is_said_is_the_same_with_and_without_a_cache_and_whoever_shares_the_batch(name):
    backbone = build()
    adapter, sight = installed(name, backbone, trained=True), looks()
    sight = Sight(sight.visual, sight.media, sight.media_seen, sight.media_positions)
    prompt = read(backbone, backbone.embed(ids()), torch.ones(2, LENGTH).bool(), adapters=[adapter], sight=sight)
    said = generate(backbone, prompt, [adapter], max_new_tokens=4)
    beams = generate(backbone, prompt, [adapter], max_new_tokens=4, num_beams=2)
    tokens = ids()
    for step in range(4):
        extra = tokens.shape[1] - LENGTH
        visual = torch.cat([sight.visual, torch.zeros(2, extra).bool()], dim=1)
        seen = torch.cat([sight.media_seen, sight.media_seen[:, -1:].expand(-1, extra, -1)], dim=1)
        adapter.see(Sight(visual, sight.media, seen, sight.media_positions))
        choice = backbone.logits(one_pass(backbone, tokens)[0][:, -1]).argmax(-1)
        assert torch.equal(choice, said[:, step])
        tokens = torch.cat([tokens, choice[:, None]], dim=1)
    for row in range(2):
        one = Sight(
            sight.visual[row : row + 1],
            sight.media[row : row + 1],
            sight.media_seen[row : row + 1],
            sight.media_positions[row : row + 1],
        )
        padded = torch.cat([torch.zeros(1, 2).long(), ids()[row : row + 1]], dim=1)  # alone, padded left
        present = torch.arange(LENGTH + 2)[None] >= 2
        one = Sight(
            torch.cat([torch.zeros(1, 2).bool(), one.visual], dim=1),
            one.media,
            torch.cat([torch.zeros(1, 2, 3).bool(), one.media_seen], dim=1),
            one.media_positions,
        )
        alone = read(backbone, backbone.embed(padded), present, adapters=[adapter], sight=one)
        assert torch.equal(generate(backbone, alone, [adapter], max_new_tokens=4)[0], said[row])
        assert torch.equal(generate(backbone, alone, [adapter], max_new_tokens=4, num_beams=2)[0], beams[row])


@pytest.mark.parametrize("family", ["mpt", "mamba", "phi3", "qwen3"])
@torch.no_grad()
def test_gated_cross_attention_takes_any_stack_of_layers(family):
    backbone = build(family)
    before, _ = one_pass(backbone)
    adapter = installed("gated", backbone, trained=True)
    assert torch.equal(one_pass(backbone)[0], before)
    adapter.see(looks())
    assert not torch.allclose(one_pass(backbone)[0], before, atol=1e-3)


@pytest.mark.parametrize(
    "name, family, message",
    [
        ("hyper", "phi3", "a Phi3Attention has no q_proj, k_proj and v_proj"),
        ("prompts", "mpt", "a MptAttention has no q_proj"),
        ("modality-adaptive", "mamba", "a MambaBlock has no self-attention"),
        ("visual expert", "mpt", "a MptBlock has no feed-forward of hidden states alone"),
        ("experts", "opt", "a OPTDecoderLayer has no feed-forward of hidden states alone"),
        ("mm", "mamba", "a MambaBlock has no attention"),
        ("lora experts", "mpt", None),
    ],
)
def test_a_family_without_the_part_is_refused_in_one_line(name, family, message):
    backbone = build(family)
    if message is None:
        installed(name, backbone)
        return
    with pytest.raises(ValueError, match=message) as caught:
        installed(name, backbone)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "adapter, message",
    [
        (LoRA("nothing"), "matches no linear layer; there is .*q_proj"),
        (LoRA("("), "is not a regular expression"),
        (GatedCrossAttention(every=9, offset=5), "every 9 layers from 5 on is none of 4"),
        (HyperAttention(layers=[4]), "layers \\[4\\] are not all among the 4"),
        (AdaptionPrompt(layers=3, early=2), "3 last and 2 early layers of the 4"),
    ],
)
def test_what_does_not_fit_a_model_is_refused_in_one_line(adapter, message):
    with pytest.raises(ValueError, match=message):
        adapter.install(build().model)


def test_what_makes_no_sense_is_refused_in_one_line():
    with pytest.raises(ValueError, match="rank must be at least 1"):
        LoRA(rank=0)
    with pytest.raises(ValueError, match="top_k must be 1 to 2, got 3"):
        FeedForwardExperts(experts=2, top_k=3)
    with pytest.raises(ValueError, match="got 4 of 3"):
        LoRAExperts(top_k=4)
    with pytest.raises(ValueError, match="6 heads are no multiple of 4"):
        GatedCrossAttention(heads=6, key_value_heads=4)
    with pytest.raises(ValueError, match="nothing to be expert in"):
        VisualExpert(attention=False, feed_forward=False)
    with pytest.raises(ValueError, match="at least one adapter"):
        Several([])
    backbone = build()
    adapter = installed("visual expert", backbone)
    adapter.see(Sight(visual=torch.ones(2, 3).bool()))
    with pytest.raises(ValueError, match="told of \\(2, 3\\) tokens but read \\(2, 9\\)"):
        one_pass(backbone)
    backbone = build()
    adapter = installed("prompts", backbone)
    adapter.see(Sight(media=torch.randn(2, 2, 32)))
    with pytest.raises(ValueError, match="2 media tokens are added to 3 prompts"):
        one_pass(backbone)
