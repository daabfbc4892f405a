"""Experts, copies and low ranks: equal ones are the dense model, one is no mixture, and peft and Mixtral agree."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from embodied.lvlm.adapters.base import Sight
from embodied.lvlm.adapters.experts import Mixture, Router
from embodied.lvlm.adapters.feed_forward_experts import FeedForwardExperts
from embodied.lvlm.adapters.lora import LoRA
from embodied.lvlm.adapters.lora_experts import LoRAExperts
from embodied.lvlm.adapters.modality_adaptive import ModalityAdaptive
from embodied.lvlm.adapters.visual_expert import VisualExpert
from embodied.lvlm.connectors.base import Context
from embodied.lvlm.connectors.mixture import MixtureConnector
from embodied.lvlm.connectors.projection import MLPConnector

LLAMA = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 48, "vocab_size": 64, "max_position_embeddings": 64, "initializer_range": 0.2}
LOW = "q_proj|v_proj|down_proj"


def language_model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **LLAMA)).eval()


def ids():
    return torch.randint(4, 64, (2, 7), generator=torch.Generator().manual_seed(3))


def disturbed(module, by=0.2):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * by)
    return module


def visual(*where):
    tokens = torch.zeros(2, 7).bool()
    tokens[:, list(where)] = True
    return Sight(visual=tokens)


# Low rank


@torch.no_grad()
def test_lora_equals_pefts_and_its_weights_load_there():
    model = language_model()
    adapter = LoRA(LOW, rank=3, alpha=5.0).eval()
    adapter.install(model)
    disturbed(adapter)
    said = model(input_ids=ids()).logits
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    peft = get_peft_model(language_model(), config).eval()
    result = set_peft_model_state_dict(peft, adapter.peft_state())
    assert not result.unexpected_keys
    torch.testing.assert_close(peft(input_ids=ids()).logits, said, rtol=0, atol=1e-5)
    merged = peft.merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids()).logits, said, rtol=0, atol=1e-4)
    adapter.merge()
    torch.testing.assert_close(model(input_ids=ids()).logits, said, rtol=0, atol=1e-4)
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="merged already"):
        adapter.merge()


@torch.no_grad()
def test_partial_lora_on_no_token_is_off_and_on_all_is_lora():
    model, other = language_model(), language_model()
    before = model(input_ids=ids()).logits
    partial, whole = LoRA(LOW, rank=3, tokens="visual").eval(), LoRA(LOW, rank=3).eval()
    partial.install(model)
    whole.install(other)
    disturbed(partial)
    whole.load_state_dict(partial.state_dict())
    everywhere = other(input_ids=ids()).logits
    for sight, expected in ((visual(), before), (visual(*range(7)), everywhere)):
        partial.see(sight)
        torch.testing.assert_close(model(input_ids=ids()).logits, expected, rtol=0, atol=1e-5)
    partial.see(visual(3, 4))
    some = model(input_ids=ids()).logits
    assert torch.equal(some[:, :3], before[:, :3]) and not torch.allclose(some[:, 3:], before[:, 3:], atol=1e-2)
    with pytest.raises(ValueError, match="can't be merged into weights all tokens share"):
        partial.merge()


@pytest.mark.parametrize("top_k, normalise", [(1, True), (2, True), (0, False)])
@torch.no_grad()
def test_equal_low_rank_experts_are_one_lora_and_one_expert_is_lora(top_k, normalise):
    lora = LoRA(LOW, rank=3, alpha=6.0).eval()
    model = language_model()
    lora.install(model)
    disturbed(lora)
    expected = model(input_ids=ids()).logits
    for experts in (1, 3):
        other = language_model()
        mixed = LoRAExperts(LOW, experts, min(top_k, experts), rank=3, alpha=6.0, normalise=normalise).eval()
        mixed.install(other)
        for name, part in mixed.parts.items():
            part.router.weight.normal_()
            part.down.copy_(lora.parts[name].down.weight.expand_as(part.down))
            part.up.copy_(lora.parts[name].up.weight.expand_as(part.up))
        torch.testing.assert_close(other(input_ids=ids()).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_each_token_is_served_by_the_low_rank_expert_its_router_prefers():
    linear = nn.ModuleDict({"fc1": nn.Linear(4, 3)})
    adapter = LoRAExperts("fc1", experts=2, top_k=1, rank=1, alpha=1.0).eval()
    part_of = adapter.parts
    adapter.install(linear)
    part = part_of["fc1"]
    part.router.weight.copy_(torch.tensor([[5.0, 0, 0, 0], [-5.0, 0, 0, 0]]))
    disturbed(nn.ParameterList([part.down, part.up]), 1.0)
    tokens = torch.tensor([[[1.0, 2, 3, 4], [-1.0, 2, 3, 4]]])
    added = linear["fc1"](tokens) - nn.functional.linear(tokens, linear["fc1"].weight, linear["fc1"].bias)
    for token, expert in ((0, 0), (1, 1)):
        chance = torch.softmax(tokens[0, token] @ part.router.weight.T, -1)[expert]
        wanted = chance * part.up[expert] @ part.down[expert] @ tokens[0, token]
        torch.testing.assert_close(added[0, token], wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_soft_low_rank_experts_fit_an_encoder_decoder():
    config = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64}
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **config)).eval()
    before = model(input_ids=ids(), decoder_input_ids=ids()[:, :3]).logits
    adapter = LoRAExperts(r"\.(q|k|v|o)$|wi|wo", experts=4, top_k=0, rank=2).eval()
    adapter.install(model)
    assert len(adapter.parts) == 2 * 4 + 2 * 8 + 2 * 2 * 2  # attention of both, cross-attention, feed-forwards
    assert torch.equal(model(input_ids=ids(), decoder_input_ids=ids()[:, :3]).logits, before)
    disturbed(adapter)
    assert not torch.allclose(model(input_ids=ids(), decoder_input_ids=ids()[:, :3]).logits, before, atol=1e-2)


# Feed-forwards


@torch.no_grad()
def test_a_mixture_equals_mixtrals_block_and_its_balance():
    torch.manual_seed(1)
    config = MixtralConfig(hidden_size=16, intermediate_size=24, num_local_experts=4, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    block = MixtralSparseMoeBlock(config).train()
    for parameter in block.parameters():  # which the class leaves unset
        parameter.normal_(std=0.3)

    class Expert(nn.Module):
        def __init__(self, both, down):
            super().__init__()
            self.both, self.down = both, down

        def forward(self, states):
            gate, up = (states @ self.both.T).chunk(2, dim=-1)
            return (nn.functional.silu(gate) * up) @ self.down.T

    experts = [Expert(block.experts.gate_up_proj[i], block.experts.down_proj[i]) for i in range(4)]
    mixture = Mixture(experts, 16, top_k=2).train()
    mixture.router.weight.copy_(block.gate.weight)
    states = torch.randn(2, 9, 16)
    torch.testing.assert_close(mixture(states), block(states), rtol=0, atol=1e-5)
    present = torch.rand(2, 9) > 0.3
    for mask in (None, present):
        mixture(states, mask)
        logits = block.gate(states)[0]
        expected = load_balancing_loss_func((logits,), 4, 2, None if mask is None else mask.float())
        torch.testing.assert_close(mixture.router.balance, expected)
        counted = logits if mask is None else logits[mask.flatten()]
        torch.testing.assert_close(mixture.router.size, torch.logsumexp(counted, -1).square().mean())


@pytest.mark.parametrize("experts, top_k", [(1, 1), (4, 1), (4, 2), (3, 3)])
@torch.no_grad()
def test_upcycled_experts_are_the_dense_model_and_replace_it(experts, top_k):
    model, dense = language_model(), language_model()
    adapter = FeedForwardExperts(experts, top_k, every=2)
    adapter.install(model)
    for router in (module for module in adapter.modules() if isinstance(module, Router)):
        router.weight.normal_()
    torch.testing.assert_close(model(input_ids=ids()).logits, dense(input_ids=ids()).logits, rtol=0, atol=1e-5)
    assert sorted(adapter.mixtures) == ["0", "2"]

    def count(module):
        return sum(p.numel() for p in module.parameters())

    feed_forward = 3 * 32 * 48
    assert count(model) == count(dense) - 2 * feed_forward
    assert count(adapter) == 2 * (experts * feed_forward + experts * 32)
    if experts > top_k:
        disturbed(adapter)
        assert not torch.allclose(model(input_ids=ids()).logits, dense(input_ids=ids()).logits, atol=1e-2)


def test_the_balance_pulls_an_uneven_router_back():
    torch.manual_seed(0)
    tokens = torch.randn(64, 8)
    tokens[:, 0] = 1.0
    router = Router(8, experts=4, top_k=1).train()
    with torch.no_grad():
        router.weight[0, 0] = 2.0  # all tokens prefer the first
    assert (router(tokens) > 0).sum(0).tolist() == [64, 0, 0, 0] and router.balance > 2.5
    optimizer = torch.optim.Adam(router.parameters(), lr=0.05)
    for _ in range(100):
        router(tokens)
        optimizer.zero_grad()
        router.balance.backward()
        optimizer.step()
    assert (router(tokens) > 0).sum(0).min() >= 4 and router.balance < 1.3  # 1 is even


def test_only_a_training_pass_is_told_of_in_the_loss():
    model = language_model()
    adapter = FeedForwardExperts(experts=4, top_k=1, every=1, balance=1.0, size=0.1)
    adapter.install(model)
    assert adapter.losses() == {}
    model(input_ids=ids())
    assert set(adapter.losses()) == {"balance", "router"}
    adapter.eval()
    model(input_ids=ids())
    assert adapter.losses() == {}


def test_padding_is_not_counted_by_the_balance():
    model = language_model()
    adapter = FeedForwardExperts(experts=4, top_k=2, every=1).train()
    adapter.install(model)
    torch.manual_seed(0)
    disturbed(adapter)
    short = ids()[:, :4]
    model(input_ids=short)
    expected = adapter.losses()["balance"]
    present = torch.arange(7)[None].expand(2, -1) < 4
    adapter.see(Sight(present=present))
    model(input_ids=ids(), attention_mask=present.long())
    torch.testing.assert_close(adapter.losses()["balance"], expected)


@pytest.mark.parametrize("family", ["clip_vision_model", "siglip_vision_model"])
@torch.no_grad()
def test_a_vision_tower_is_upcycled_by_the_same_code(family):
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    tower = AutoModel.from_config(AutoConfig.for_model(family, **size, image_size=28, patch_size=14)).eval()
    pixels = torch.randn(2, 3, 28, 28)
    before = tower(pixel_values=pixels).last_hidden_state
    adapter = FeedForwardExperts(experts=4, top_k=2, every=1).eval()
    adapter.install(tower)
    adapter.see(Sight(present=torch.ones(2, 7).bool()))  # a language model's tokens are not its own
    torch.testing.assert_close(tower(pixel_values=pixels).last_hidden_state, before, rtol=0, atol=1e-5)


def test_a_mixture_of_connectors_starts_as_the_one_it_comes_from():
    torch.manual_seed(0)
    plain = MLPConnector(6, 5)
    mixture = MixtureConnector(6, 5, experts=4, top_k=2).train()
    mixture.upcycle(plain)
    features = torch.randn(2, 9, 6)
    torch.testing.assert_close(mixture(features), plain(features))
    present = torch.arange(9)[None].expand(2, -1) < 6
    mixture(features, Context(present=present))
    losses = mixture.losses()
    mixture(features[:, :6])
    torch.testing.assert_close(losses["balance"], mixture.losses()["balance"])
    (mixture(features).square().sum() + sum(mixture.losses().values())).backward()
    assert all(p.grad is not None for p in mixture.parameters())
    assert mixture.tokens(9) == 9
    single = MixtureConnector(6, 5, experts=1, top_k=1)
    single.upcycle(plain)
    torch.testing.assert_close(single(features), plain(features))
    with pytest.raises(ValueError, match="top_k must be 1 to 2"):
        MixtureConnector(6, 5, experts=2, top_k=3)


# Copies for visual tokens


@pytest.mark.parametrize("make", [VisualExpert, ModalityAdaptive])
@torch.no_grad()
def test_where_all_tokens_are_visual_the_copies_are_the_model(make):
    """A model whose own parts are the copies reads as one whose visual tokens pass through them."""
    model, swapped = language_model(), language_model()
    adapter = make().eval()
    adapter.install(model)
    disturbed(adapter)
    for name, part in adapter.copies.items():
        index, path = name.split("|", 1)
        layer = swapped.model.layers[int(index)]
        where = {"key": "self_attn.k_proj", "value": "self_attn.v_proj", "feed_forward": "mlp"}.get(path)
        where = where or path.replace("attention|", "self_attn.").replace("|", ".")
        owner, _, last = where.rpartition(".")
        setattr(layer.get_submodule(owner), last, copy.deepcopy(part))
    adapter.see(visual(*range(7)))
    torch.testing.assert_close(model(input_ids=ids()).logits, swapped(input_ids=ids()).logits, rtol=0, atol=1e-5)
    adapter.see(visual(4, 5))
    some = model(input_ids=ids()).logits
    plain = language_model()(input_ids=ids()).logits
    assert torch.equal(some[:, :4], plain[:, :4]) and not torch.allclose(some[:, 4:], plain[:, 4:], atol=1e-2)


def test_what_visual_tokens_have_for_themselves_is_what_the_papers_say():
    def own(adapter):
        adapter.install(language_model())
        return {name.split("|", 1)[1] for name in adapter.copies}

    attention = {"attention|q_proj", "attention|k_proj", "attention|v_proj", "attention|o_proj"}
    assert own(VisualExpert()) == attention | {"feed_forward"}
    assert own(ModalityAdaptive()) == {"key", "value", "input_layernorm", "post_attention_layernorm"}
    assert own(ModalityAdaptive(norms=False)) == {"key", "value"}
