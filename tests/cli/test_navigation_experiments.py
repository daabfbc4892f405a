"""Agents for houses, each a composition: demonstrated, trained and evaluated by their commands."""

import importlib.util
import os

import pytest

from embodied.cli.collect import work as collect
from embodied.cli.configs import compose
from embodied.cli.eval import work as evaluate
from embodied.cli.train import train

if importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true":
    pytest.skip("numba is not installed", allow_module_level=True)

BODY = ["env.make.body.height=16", "env.make.body.width=16", "env.make.max_steps=12"]
GRAPH = ["views=around", "depth=false", "neighbours=true", "height=16", "width=16", "max_steps=6"]
WORLDS = {
    "objectnav": ["env=house/objectnav", *BODY],
    "vln-graph": ["env=house/vln-graph", *(f"env.make.{word}" for word in GRAPH)],
}
SMALL = [
    "model.encoder.widths=[8,8]", "model.encoder.patch=2", "model.backbone.config.hidden_size=16",
    "model.backbone.config.num_hidden_layers=1", "model.backbone.config.num_attention_heads=2",
    "model.backbone.config.num_key_value_heads=2", "model.backbone.config.intermediate_size=32", "head.hidden=[16]",
    "trainer.batch_size=2", "trainer.max_steps=2", "trainer.precision=float32", "trainer.threads=1",
]  # fmt: skip
AGENTS = {
    "no map": ("objectnav", ["experiment=navigation"]),
    "waypoints": ("objectnav", ["experiment=navigation", "map=waypoints"]),
    "llarp": ("objectnav", ["experiment=llarp", "chunk.history=4"]),
    "navillm": ("vln-graph", ["experiment=navillm"]),
}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    roots = {}
    for world, words in WORLDS.items():
        roots[world] = tmp_path_factory.mktemp("data") / world
        more = ["episodes=2", "num_workers=1", "only_success=false", f"out={roots[world]}"]
        collect(compose("collect", [*words, *more]))
    return roots


@pytest.mark.parametrize("agent", AGENTS)
def test_it_learns_and_acts_in_a_house(agent, demonstrations, tmp_path):
    world, words = AGENTS[agent]
    run = tmp_path / "run"
    words = [*words, *SMALL, f"data.root={demonstrations[world]}", f"out={run}"]
    assert train(compose("train", words))["steps"] == 2
    more = ["episodes=2", "num_envs=2", "videos=0", f"policy={run}", f"out={run / 'eval'}"]
    assert evaluate(compose("eval", [*WORLDS[world], *more]))["n"] == 2
