"""What the command line calls a policy: `expert`, `random`, the folder of a run, a checkpoint or an agent, or one that
a config composes: a name of `conf/policies`, a YAML file, or a node with a `_target_`."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from embodied.evaluation.composed import (
    build_policy,
    called,
    compose_policy,
    composed_names,
    is_composed,
    takes_embodiment,
)
from embodied.interaction import Observation, Policy
from embodied.spec import Embodiment
from embodied.workers import EXPERT_ACTION

if TYPE_CHECKING:
    from embodied.agent import Agent

CHECKPOINTS, LAST, CONFIG, WEIGHTS = "checkpoints", "last", "config.json", "model.safetensors"


class RandomPolicy(Policy):
    """Actions drawn uniformly between the embodiment's bounds, from the episode's seed.

    Raises:
        ValueError: the embodiment takes text or commands, which have no bounds to draw between.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        if embodiment.action.kind not in ("continuous", "categorical"):
            kind = embodiment.action.kind
            raise ValueError(f"{embodiment.name} takes {kind} actions: there is no random policy for it")
        self.embodiment = embodiment
        self._generators: list[np.random.Generator] = []

    def reset(self, slots: int) -> None:
        self._generators = [np.random.default_rng() for _ in range(slots)]

    def start(self, slot: int, seed: int, task: str) -> None:
        self._generators[slot] = np.random.default_rng([seed, *task.encode()])

    def act(self, observations: Observation, slots: Sequence[int]) -> np.ndarray:
        assert self.embodiment is not None
        spec = self.embodiment.action
        if spec.kind == "categorical":
            return np.array([[self._generators[slot].integers(spec.dim)] for slot in slots], np.float32)
        draws = [self._generators[slot].uniform(spec.low, spec.high) for slot in slots]
        return np.stack(draws).astype(np.float32)


class ExpertPolicy(Policy):
    """The environment's expert. It runs beside the environment, whose worker sends its action with the observation."""

    wants_expert = True

    def reset(self, slots: int) -> None: ...

    def start(self, slot: int, seed: int, task: str) -> None: ...

    def act(self, observations: Observation, slots: Sequence[int]) -> np.ndarray:
        return np.asarray(observations[EXPERT_ACTION], np.float32)


@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from.

    Attributes:
        spec: as it was named.
        kind: what it is.
        folder: the agent's files; None unless it is an agent.
        source: which agent of a crew; None: the first that drives the body.
        node: how a composed one is built; None unless it is one.
        settings: options of an agent's head, otherwise than trained; None leaves all as they are.
    """

    spec: str
    kind: Literal["expert", "random", "agent", "composed"]
    folder: Path | None = None
    source: str | None = None
    node: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def wants_body(self) -> bool:
        """Whether loading it takes the environment's embodiment: to draw actions, to choose one agent of a crew, or
        because the class that is composed asks for it."""
        return self.kind == "random" or self._crew or (self.node is not None and takes_embodiment(self.node))

    @property
    def _crew(self) -> bool:
        if self.folder is None:
            return False
        from embodied.crew import is_crew

        return is_crew(self.folder)

    def load(self, embodiment: Embodiment | None = None, device: str = "auto", exact: bool | None = None) -> Policy:
        """The policy.

        Args:
            embodiment: the environment's; needed where `wants_body` says so.
            device: for an agent: `auto`, or torch's name of one.
            exact: for an agent: compute each row alone, so that results do not depend on how many environments run at
                once; None does so on the CPU, where batches gain little.

        Raises:
            ValueError: the agent's files are damaged, or of another kind; no agent of a crew drives this body; its head
                does not take the settings; what is composed is no policy, or does not fit this body.
        """
        if self.kind == "expert":
            return ExpertPolicy()
        if self.node is not None:
            return build_policy(self.node, self.spec, embodiment)
        if self.kind == "random":
            assert embodiment is not None
            return RandomPolicy(embodiment)
        import torch

        assert self.folder is not None
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            place = torch.device(chosen)
        except RuntimeError:
            raise ValueError(f"device '{device}' is none of auto, cpu, cuda, cuda:<number>") from None
        if place.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device={device}: this machine offers torch no GPU; use device=cpu")
        agent = self._chosen(embodiment).to(place)
        if self.settings:
            agent.choose_by(self.settings)
        agent.rows_per_pass = 1 if exact or (exact is None and place.type == "cpu") else None
        return agent

    def _chosen(self, embodiment: Embodiment | None) -> Agent:
        from embodied.agent import Agent
        from embodied.crew import Crew

        assert self.folder is not None
        if not self._crew:
            if self.source is not None:
                raise ValueError(f"source={self.source}: {self.spec} is a single agent, not a crew of several")
            return Agent.from_pretrained(self.folder)
        assert embodiment is not None
        crew = Crew.from_pretrained(self.folder)
        try:
            chosen: Agent = crew.agents[crew.choose(embodiment, self.source)]
        except ValueError as error:
            raise ValueError(f"policy={self.spec}: {error}") from None
        return chosen

    def identity(self) -> dict[str, Any]:
        """What decides its actions, as JSON: an agent's files by their content."""
        if self.node is not None:
            return {"policy": self.spec, "node": dict(self.node)}
        if self.folder is None:
            return {"policy": self.kind}
        digest = hashlib.sha256()
        for name in (CONFIG, WEIGHTS):
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        chosen: dict[str, Any] = {"source": self.source} if self.source else {}
        if self.settings:
            chosen["settings"] = dict(self.settings)
        return {"policy": "agent", "weights": digest.hexdigest(), **chosen}


def locate_policy(
    spec: str | Mapping[str, Any],
    key: str = "policy",
    source: str | None = None,
    settings: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> PolicySource:
    """Find what `spec` names, without loading it.

    Args:
        spec: as it was given.
        key: what it was given as, for messages.
        source: which agent of a crew; None leaves that to the environment.
        settings: of a composed policy, see `embodied.evaluation.composed`; or of an agent's head, see
            `embodied.agent.Agent.choose_by`.
        config: what a composed policy's interpolations refer to.

    Raises:
        ValueError: there is no such folder (the nearest one is named), it holds no agent, or it is a kind of policy
            that this version cannot drive; a composed one's config is wrong, or another has settings.
    """
    if is_composed(spec):
        return PolicySource(called(spec), "composed", node=compose_policy(spec, settings, config))
    spec = str(spec)
    if spec in ("expert", "random"):
        if settings:
            raise ValueError(f"settings= is for an agent, or one that a config composes, and {spec} has none")
        return PolicySource(spec, "expert" if spec == "expert" else "random")
    if spec.startswith(("ws://", "wss://")):
        raise ValueError(f"{key}={spec} is a policy server, which needs the deploy extra: this version has none yet")
    folder = Path(spec).expanduser()
    if not folder.exists():
        raise ValueError(f"{key}={spec}: there is no such folder{_near(folder)}")
    if not folder.is_dir():
        raise ValueError(f"{key}={spec} is a file: name the folder of a run, a checkpoint or an agent")
    for candidate in (folder / CHECKPOINTS / LAST, folder / LAST, folder):
        if (candidate / CONFIG).is_file() and (candidate / WEIGHTS).is_file():
            if settings is not None and not isinstance(settings, Mapping):
                raise ValueError(f"settings is a mapping such as {{temperature: 0.5}}, got settings={settings}")
            return PolicySource(spec, "agent", candidate.resolve(), source, settings=settings)
    if (folder / CHECKPOINTS).exists() or (folder / "config.yaml").exists():
        raise ValueError(f"{key}={spec} is a run without a complete checkpoint yet: there is no {CHECKPOINTS}/{LAST}")
    missing = f"there is no {CONFIG} with {WEIGHTS}, and no {CHECKPOINTS}/{LAST}, in it"
    raise ValueError(f"{key}={spec} holds no agent: {missing}")


def newest_stage(runs: str | Path) -> Path | None:
    """The last stage that has begun of a recipe's runs (`embodied-tune`); None where the folder holds no such runs."""
    stages = sorted(found.parent for found in Path(runs).glob(f"[0-9]*-*/{CHECKPOINTS}"))
    return stages[-1] if stages else None


def split_name(env: Mapping[str, Any]) -> str:
    """An environment's name with what its arguments perturb: `metaworld/mt10+camera+start0.5`; 1 is not written."""
    perturbed = (env.get("make") or {}).get("perturb") or {}
    kinds = [kind if level == 1 else f"{kind}{level}" for kind, level in sorted(perturbed.items()) if level]
    return "+".join([str(env.get("name", "the environment")), *kinds])


def result_folder(spec: str | Mapping[str, Any], env_name: str, seed: int) -> Path:
    """Where an evaluation's result goes unless told otherwise: `<run>/eval/<env>_<seed>`.

    A checkpoint that was named itself adds its own name; the results of one that is no folder are in `runs/<it>`.
    """
    name = f"{env_name.replace('/', '_')}_{seed}"
    if spec in ("expert", "random") or is_composed(spec):
        return Path("runs") / called(spec) / "eval" / name
    folder = Path(str(spec))
    if folder.name == CHECKPOINTS:
        return folder.parent / "eval" / name
    if folder.parent.name == CHECKPOINTS:
        return folder.parent.parent / "eval" / (name if folder.name == LAST else f"{name}_{folder.name}")
    return folder / "eval" / name


def _near(folder: Path) -> str:
    """`; did you mean ...?` with the nearest word or existing folder, or what there is."""
    parent = folder.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    siblings = [path for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    options: Mapping[str, str] = {path.name: str(path) for path in siblings}
    if len(folder.parts) == 1:
        options = {**options, **{name: name for name in ("expert", "random", *composed_names())}}
    wanted = folder.parts[len(parent.parts)] if len(folder.parts) > len(parent.parts) else folder.name
    close = difflib.get_close_matches(wanted if parent != Path() else folder.parts[0], options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{options[close[0]]}'?"
    names = ", ".join(["expert", "random", *composed_names()])
    return f"; a policy is {names}, or the folder of a run, a checkpoint or an agent"
