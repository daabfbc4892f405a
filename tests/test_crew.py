"""A crew: agents of several bodies that share what can be shared, learn together, and are loaded and used singly."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes.bodies import Body
from omegaconf import OmegaConf
from safetensors.torch import load_file

from embodied.agent import Agent
from embodied.building import ForbiddenTarget
from embodied.cli.configs import compose
from embodied.crew import Crew, create_crew
from embodied.data.mixture import ROW, SOURCES
from embodied.training.lora import add_lora, merged
from embodied.training.trainable import count, freeze, table

SMALL = [
    "data.root=unused",
    "out=unused",
    "model.encoder.widths=[8,8]",
    "model.backbone.config={model_type:llama,hidden_size:16,num_hidden_layers:1,num_attention_heads:2,"
    "num_key_value_heads:2,intermediate_size:16,max_position_embeddings:256,tie_word_embeddings:true}",
    "chunk.horizon=3",
    "execution.steps=2",
]
BODIES = {
    "flat": Body("flat", dims=2),
    "wide": Body("wide", spare=3, dims=5, cameras=("left", "right")),
    "blind": Body("blind", spare=1, dims=4, cameras=()),
}


def demonstrations(body, seed=0, scale=0.1, frames=40):
    """What a crew is fitted to: numbers and instructions."""
    g = np.random.default_rng(seed)
    dims = body.embodiment.action.dim
    columns = {"action": g.uniform(-scale, scale, (frames, dims)).astype(np.float32)}
    if body.embodiment.state:
        columns["observation.state"] = g.uniform(0, 1, (frames, body.embodiment.state.dim)).astype(np.float32)
    ends = np.array([frames // 2, frames])
    return SimpleNamespace(columns=columns, episode_ends=ends, embodiment=body.embodiment, tasks=["go", f"go {seed}"])


def a_crew(bodies=BODIES, words=(), own=("model.state", "head", "processing"), normalisation="source", **parts):
    config = OmegaConf.to_container(compose("train", [*SMALL, *words]), resolve=False)
    data = {name: demonstrations(body, i, scale=0.1 * (i + 1)) for i, (name, body) in enumerate(bodies.items())}
    torch.manual_seed(0)
    configs = {name: config | parts.get(name, {}) for name in data}
    return create_crew(configs, data, own, normalisation)


def raw(body, rows, seed=0, horizon=3):
    """A raw batch of a body."""
    g = np.random.default_rng(seed)
    e = body.embodiment
    batch = {f"observation.images.{c}": torch.from_numpy(g.integers(0, 255, (rows, 1, 16, 16, 3), np.uint8))
             for c in e.camera_names}  # fmt: skip
    if e.state:
        batch["observation.state"] = torch.from_numpy(g.uniform(0, 1, (rows, 1, e.state.dim)).astype(np.float32))
    batch["observation_is_pad"] = torch.zeros(rows, 1, dtype=torch.bool)
    batch["action"] = torch.from_numpy(g.uniform(-0.1, 0.1, (rows, horizon, e.action.dim)).astype(np.float32))
    batch["action_is_pad"] = torch.from_numpy(np.arange(horizon) >= g.integers(1, horizon + 1, (rows, 1)))
    batch["task"] = ["go"] * rows
    return batch


def mixed(bodies=BODIES, rows=(4, 3, 2)):
    parts, places = {}, iter(np.random.default_rng(1).permutation(sum(rows)).tolist())
    for i, ((name, body), n) in enumerate(zip(bodies.items(), rows, strict=True)):
        parts[name] = raw(body, n, seed=i) | {ROW: [next(places) for _ in range(n)]}
    return {SOURCES: parts}


def generators(n):
    return [torch.Generator().manual_seed(i) for i in range(n)]


def test_what_belongs_to_a_body_is_its_own_and_all_else_is_one():
    crew = a_crew()
    flat, wide, blind = crew.agents.values()
    assert flat.model.backbone is wide.model.backbone is blind.model.backbone
    assert flat.model.encoders[0] is wide.model.encoders[0] and flat.model.connectors[0] is wide.model.connectors[0]
    assert flat.model.readouts is wide.model.readouts is blind.model.readouts
    assert flat.model.tokenizer is wide.model.tokenizer
    assert wide.model.camera_embeddings is not None and flat.model.camera_embeddings is None
    for part in ("model.state", "head", "processing"):
        parts = [agent.get_submodule(part) for agent in crew.agents.values()]
        assert len({id(p) for p in parts}) == 3
    own = {name for name, _ in crew.named_parameters() if name.startswith("agents.")}
    assert {".".join(name.split(".")[2:4]) for name in own if ".model." in name} >= {"model.state"}
    assert {name.split(".")[0] for name, _ in crew.named_parameters()} == {"model", "agents"}


def test_its_loss_is_the_mean_over_all_steps_and_says_what_each_source_adds():
    crew, batch = a_crew(words=["head=diffusion"]).eval(), mixed()
    losses = crew.loss(batch, generators(9))
    sums, steps = 0.0, 0
    for name, part in batch[SOURCES].items():
        rows = [generators(9)[row] for row in part[ROW]]
        alone = crew.agents[name].loss({k: v for k, v in part.items() if k != ROW}, rows)["loss"]
        kept = int((~part["action_is_pad"]).sum())
        sums, steps = sums + kept * alone, steps + kept
        assert losses[f"loss/{name}"] / losses[f"share/{name}"] == pytest.approx(alone.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((sums / steps).item(), rel=1e-5)
    assert losses["loss"].requires_grad and not losses["loss/flat"].requires_grad


def test_shared_parts_learn_from_every_body_and_own_ones_from_their_own():
    crew, batch = a_crew().eval(), mixed()
    whole = crew.loss(batch)["loss"]
    whole.backward()
    together = {name: p.grad.clone() for name, p in crew.named_parameters() if p.grad is not None}
    apart: dict = {}
    kept = {name: int((~part["action_is_pad"]).sum()) for name, part in batch[SOURCES].items()}
    for name, part in batch[SOURCES].items():
        crew.zero_grad()
        (crew.loss({SOURCES: {name: part}})["loss"] * kept[name] / sum(kept.values())).backward()
        for parameter, p in crew.named_parameters():
            if p.grad is not None:
                apart.setdefault(parameter, {})[name] = p.grad.clone()
    for name, grad in together.items():
        torch.testing.assert_close(grad, sum(apart[name].values()), atol=1e-5, rtol=1e-4)
        users = {source for source, g in apart[name].items() if g.abs().sum() > 0}
        if name.startswith("agents."):
            assert users <= {name.split(".")[1]}
        elif name.startswith("model.backbone") and "q_proj" in name:
            assert users == set(BODIES)


def test_saved_and_loaded_it_acts_the_same_and_each_weight_is_there_once(tmp_path):
    crew = a_crew(words=["head=diffusion", "head.sample_steps=5"])
    for p in crew.parameters():
        torch.nn.init.normal_(p, std=0.1)
    crew.save_pretrained(tmp_path)
    again = Crew.from_pretrained(tmp_path)
    assert sum(t.numel() for t in load_file(tmp_path / "model.safetensors").values()) < count(crew) + 1000
    assert again.agents["flat"].model.backbone is again.agents["wide"].model.backbone
    for name, body in BODIES.items():
        batch = {k: v for k, v in raw(body, 2).items() if not k.startswith("action")}
        one, two = (c.eval().agents[name].predict(batch, generators(2)) for c in (crew, again))
        assert torch.equal(one, two) and one.shape == (2, 3, body.embodiment.action.dim)


def test_sources_of_one_body_share_all_but_their_normalisation():
    two = {"a": Body("arm", dims=3), "b": Body("arm", dims=3, cameras=("left", "right")), "c": Body("leg", spare=1)}
    crew = a_crew(two)
    a, b, c = crew.agents.values()
    assert a.head is b.head and a.head is not c.head and a.model.state is b.model.state
    assert a.processing is not b.processing
    high = [agent.processing.steps["actions"].high for agent in (a, b)]
    assert high[0].max() <= 0.1 < high[1].max()
    together = a_crew(two, normalisation="shared").agents
    assert together["a"].processing is together["b"].processing is not together["c"].processing
    assert torch.equal(together["a"].processing.steps["actions"].high, torch.maximum(*high))


def test_a_heads_trunk_is_shared_where_own_names_its_ends_only():
    bodies = {"a": Body("a"), "b": Body("b", spare=2)}
    crew = a_crew(bodies, ["head=diffusion"], own=["model.state", "processing", "head.denoiser.(enter|leave)"])
    a, b = (agent.head.denoiser for agent in crew.agents.values())
    assert a.blocks is b.blocks and a.time is b.time and a.enter is not b.enter
    assert any(name.startswith("head.denoiser.blocks") for name, _ in crew.named_parameters())


def test_a_source_may_want_its_parts_otherwise():
    config = OmegaConf.to_container(compose("train", SMALL), resolve=False)
    squared = {"head": config["head"] | {"distance": "l2"}}
    crew = a_crew({"a": Body("a"), "b": Body("b", spare=2)}, b=squared)
    assert [agent.head.regression.distance for agent in crew.agents.values()] == ["l1", "l2"]
    same = a_crew({"a": Body("a"), "b": Body("a")}, b=squared)
    assert same.agents["a"].head is not same.agents["b"].head
    assert same.agents["a"].head.net is same.agents["b"].head.net


@pytest.mark.parametrize("match", ["model.backbone.*_proj", "model.connectors", "head.net.0"])
def test_lora_adapts_a_shared_layer_for_all_and_merging_leaves_no_trace(match):
    bodies = {"a": Body("a"), "b": Body("b")}
    crew = a_crew(bodies, own=["processing", "head.net.3"] if "head" in match else ["head", "processing"])
    freeze(crew, ["model.backbone"])
    add_lora(crew, match, rank=2)
    for name, p in crew.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    batch = raw(bodies["a"], 2)
    adapted = {name: agent.eval().predict(batch) for name, agent in crew.agents.items()}
    before = [id(p) for p in crew.parameters()]
    with merged(crew):
        assert not any("lora_" in name for name, _ in crew.named_parameters())
        for name, agent in crew.agents.items():
            torch.testing.assert_close(agent.predict(batch), adapted[name], atol=1e-5, rtol=1e-4)
    assert [id(p) for p in crew.parameters()] == before
    assert all(torch.equal(agent.predict(batch), adapted[name]) for name, agent in crew.agents.items())


def test_the_table_counts_what_is_shared_once():
    crew = a_crew()
    rows = {line.rsplit(maxsplit=2)[0].strip(): line.split()[-1] for line in table(crew).splitlines()[1:]}
    assert {"model.backbone", "model.encoders", "agents.flat", "agents.wide", "all"} <= set(rows)
    numbers = {name: float(n.rstrip("k")) * (1000 if n.endswith("k") else 1) for name, n in rows.items()}
    assert sum(n for name, n in numbers.items() if name != "all") == pytest.approx(numbers["all"], rel=0.01)
    assert numbers["all"] == pytest.approx(count(crew), rel=0.01)


def test_an_environment_gets_the_agent_of_its_body():
    crew = a_crew()
    assert [crew.choose(body.embodiment) for body in BODIES.values()] == list(BODIES)
    assert crew.choose(BODIES["flat"].embodiment, "wide") == "wide"
    with pytest.raises(ValueError, match="no agent 'wid' in this crew; did you mean 'wide'"):
        crew.choose(BODIES["flat"].embodiment, "wid")
    with pytest.raises(ValueError, match=r"drives stranger; flat \(flat\): action.names: .*; wide \(wide\): action"):
        crew.choose(Body("stranger", spare=7).embodiment)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"own": ["hed"]}, "'hed' matches no part's name; did you mean 'head"),
        ({"own": ["head["]}, "is not a regular expression"),
        ({"normalisation": "mine"}, "one of source, shared"),
        ({"bodies": {"a b": BODIES["flat"]}}, "letters, digits"),
        ({"bodies": {"keys": BODIES["flat"]}}, "no word of torch"),
    ],
)
def test_a_mistake_is_named(options, says):
    with pytest.raises(ValueError, match=says):
        a_crew(**options)


def test_nothing_foreign_is_built_and_what_is_no_crew_is_said(tmp_path):
    crew = a_crew({"a": Body("a")})
    crew.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not an agent's config: format is 'embodied-crew/1'"):
        Agent.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["agents"]["a"]["head"] = {"_target_": "os.system", "command": "true"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ForbiddenTarget):
        Crew.from_pretrained(tmp_path)
    del config["agents"]["a"]["head"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json is incomplete: 'head'"):
        Crew.from_pretrained(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match="is a pickle"):
        Crew.from_pretrained(tmp_path)
