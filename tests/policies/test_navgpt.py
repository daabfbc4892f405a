"""NavGPT goes where the model says, and nowhere else: hostile answers are counted, never run."""

import importlib.util
import os
import time
from pathlib import Path

import numpy as np
import pytest

from embodied.evaluation.answerers import JudgeAnswerer, ModelAnswerer
from embodied.evaluation.scorers.judges import CommandJudge
from embodied.interaction import stack
from envs.house.tasks.graph_vln import HouseGraph
from maps.mapgpt import GraphText
from policies.navgpt import NavGPT, direction
from policies.navigation.answers import LONGEST, plain, read_answer

with_houses = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None and os.environ.get("CI") != "true", reason="numba is not installed"
)


# the grammar


@pytest.mark.parametrize(
    "text, place",
    [
        ("Thought: the stairs are left.\nAction: go to 3", 3),
        ("Thought: on I go. Action: go to place 12.", 12),
        ("action : GO TO 7", 7),
        ("Action: go  to\t0  \n\n", 0),
    ],
)
def test_a_place_is_read(text, place):
    answer = read_answer(text)
    assert (answer.place, answer.stop, answer.problem) == (place, False, "")


def test_stopping_and_the_thought_before_are_read():
    answer = read_answer("Thought: this is\nthe bookcase.\nAction: stop.")
    assert answer.stop and answer.place is None and answer.thought == "this is the bookcase."


HOSTILE = {
    "code": "Action: __import__('os').system('touch {file}')",
    "code in the thought and no action": "__import__('os').system('touch {file}')",
    "shell": "Action: go to $(touch {file})",
    "format": "Action: go to {{0.__class__}}",
    "several actions": "Action: go to 1\nAction: go to 2",
    "the same twice": "Action: go to 1\nAction: go to 1",
    "an action and more": "Action: go to 1 and then stop",
    "something behind it": "Action: go to 1\nI hope that helps!",
    "nothing": "",
    "no action": "I would like to go to 1.",
    "an empty action": "Thought: hm.\nAction:",
    "full-width digits": "Action: go to １",
    "arabic digits": "Action: go to ١",
    "a look-alike": "Аction: go to 1",
    "a negative number": "Action: go to -1",
    "a fraction": "Action: go to 1.5",
    "a huge number": "Action: go to " + "9" * 400,
    "a null byte": "Action: go to 1\x00",
    "control characters": "\x1b[2J\u202eAction: stop\u202c",
    "ten megabytes": "Action: go to 1\n" * 650_000,
    "ten megabytes of one letter": "a" * 10_000_000,
    "just too long": " " * LONGEST + "Action: stop",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_is_not_in_the_grammar_is_no_action(kind, tmp_path):
    file = tmp_path / "made"
    begun = time.perf_counter()
    answer = read_answer(HOSTILE[kind].replace("{file}", str(file)))
    assert time.perf_counter() - begun < 1
    assert answer.problem and answer.place is None and not answer.stop
    assert not file.exists() and len(answer.thought) <= 200 and answer.thought.isprintable()


def test_what_is_no_text_at_all_is_no_action():
    for thing in (None, 3, b"Action: stop", ["Action: stop"], {"stop": True}):
        assert read_answer(thing).problem


def test_what_goes_back_into_a_prompt_is_one_short_printable_line():
    line = plain("a\nb\x1b\u202e" + "c" * 10_000)
    assert line.startswith("a b") and len(line) == 200 and line.isprintable()


@pytest.mark.parametrize(
    "degrees, words",
    [(2, "straight ahead"), (31, "30 degrees to the left"), (-88, "90 degrees to the right"), (178, "behind")],
)
def test_directions_are_words(degrees, words):
    assert direction(np.radians(degrees)) == words


# walking


class Script:
    """Answers what a function makes of the prompt."""

    def __init__(self, speak, sees=False):
        self.speak, self.sees = speak, sees
        self.prompts, self.pictures = [], []

    def answer(self, prompts, pictures):
        self.prompts += prompts
        self.pictures += pictures
        return [self.speak(prompt) for prompt in prompts]


def house(**options):
    return HouseGraph(**{"split": "val", "height": 16, "width": 16, "neighbours": True} | options)


def begun(env, answerer, **options):
    policy = NavGPT(env.embodiment, GraphText(images=False), answerer, **options)
    policy.reset(1)
    policy.start(0, 5, env.name)
    return policy


@with_houses
def test_a_model_that_knows_the_way_arrives():
    env = house()
    seen, _ = env.reset(seed=5)
    policy = begun(env, Script(lambda prompt: said))
    for _ in range(30):
        wanted = int(env.oracle()[0])
        said = "Thought: done.\nAction: stop"
        if wanted:
            node = int(seen["observation.neighbours"][wanted - 1])
            if not policy.walked[0].history:
                policy.graph.update(stack([seen]), [0])  # so that the script can call the place by its number
            number = numbered(policy, seen, node)
            said = f"Thought: this way.\nAction: go to {number}"
        seen, _, over, late, info = env.step(policy.act(stack([seen]), [0])[0])
        if over or late:
            break
    assert over and info["success"] and policy.invalid == 0 and policy.asked == len(policy.walked[0].history)
    prompt = policy.answerer.prompts[-1]
    assert env.episode.text in prompt and "Step 1: Thought: this way. went to Place" in prompt
    assert "Trajectory: Place 0" in prompt and policy.remarks() == []


def numbered(policy, seen, node):
    """What a place will be called, asked of another graph that walks along."""
    copy = GraphText(images=False)
    copy.reset(1)
    episode = policy.graph._episodes[0]
    known = list(episode.places)
    for name in [int(seen["observation.node"]), *(int(n) for n in seen["observation.neighbours"] if n >= 0)]:
        if name not in known:
            known.append(name)
    return known.index(node)


@with_houses
@pytest.mark.parametrize("fallback", ["ahead", "stop"])
def test_hostile_answers_are_counted_and_the_fallback_is_done(fallback, tmp_path):
    env = house(max_steps=8)
    seen, _ = env.reset(seed=5)
    file = tmp_path / "made"
    talk = iter([text.replace("{file}", str(file)) for text in HOSTILE.values()])
    policy = begun(env, Script(lambda prompt: next(talk)), fallback=fallback)
    steps, visited = 0, {env.at}
    while True:
        seen, _, over, late, _ = env.step(policy.act(stack([seen]), [0])[0])
        steps += 1
        visited.add(env.at)
        if over or late:
            break
    assert policy.invalid == policy.asked == steps == (1 if fallback == "stop" else 8) and not file.exists()
    assert fallback == "stop" or len(visited) > 3
    assert (
        policy.remarks()[0].startswith(f"{steps} of {steps} answers were no action") and fallback in policy.remarks()[0]
    )


@with_houses
def test_places_that_are_not_next_to_the_agent_are_invalid():
    env = house()
    policy = begun(env, Script(lambda prompt: "Action: go to 9999"))
    policy.act(stack([env.reset(seed=5)[0]]), [0])
    assert policy.problems == {"it goes to a place that is not next to here": 1}
    policy.answerer.speak = lambda prompt: "Action: go to 0"  # where it stands
    policy.start(0, 5, env.name)
    policy.act(stack([env.reset(seed=5)[0]]), [0])
    assert policy.invalid == 2


@with_houses
def test_a_model_that_sees_is_shown_each_candidate_in_the_view_that_looks_there():
    env = house(views="around")
    seen, _ = env.reset(seed=5)
    policy = begun(env, Script(lambda prompt: "Action: stop", sees=True))
    policy.act(stack([seen]), [0])
    shown, prompt = policy.answerer.pictures[0], policy.answerer.prompts[0]
    near = env.graph.candidates(env.at, env.heading)
    for k, other in enumerate(near):
        angle = (env.graph.direction(env.at, other)[0] - env.heading) % (2 * np.pi)
        camera = f"observation.images.view_{round(angle / np.radians(30)) % 12:02d}"
        line = next(line for line in prompt.splitlines() if line.startswith(f"Place {k + 1}: "))
        picture = int(line.partition("in picture ")[2].split(",")[0].split()[0])
        np.testing.assert_array_equal(shown[picture - 1], seen[camera])
    blind = begun(env, Script(lambda prompt: "Action: stop", sees=False))
    blind.act(stack([seen]), [0])
    assert blind.answerer.pictures == [[]] and "picture" not in blind.answerer.prompts[0].partition("From")[0]


@with_houses
def test_an_instruction_is_never_read_as_a_part_of_the_prompt():
    env = house()
    seen, _ = env.reset(seed=5)
    policy = begun(env, Script(lambda prompt: "Action: stop"))
    policy.act(stack([{**seen, "task": "go {map} {history} {0}"}]), [0])
    assert "Instruction: go {map} {history} {0}\n" in policy.answerer.prompts[0]


@with_houses
def test_what_is_missing_is_one_line_that_says_what_to_add():
    env = house(neighbours=False)
    policy = begun(env, Script(lambda prompt: "Action: stop"))
    with pytest.raises(ValueError, match=r"needs observation.node: add env\.make\.neighbours=true"):
        policy.act(stack([env.reset(seed=5)[0]]), [0])
    with pytest.raises(ValueError, match=r"env\.make\.actions=panoramic"):
        begun(house(actions="low"), Script(str))
    with pytest.raises(ValueError, match=r"has no \{candidates\}"):
        begun(env, Script(str), prompt="{instruction}")
    with pytest.raises(ValueError, match="no fallback 'ahed'; did you mean 'ahead'"):
        begun(env, Script(str), fallback="ahed")


@with_houses
def test_a_program_answers_through_the_judges_interface(tmp_path):
    program = tmp_path / "speak"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 'Thought: here.'\necho 'Action: stop'\n")
    program.chmod(0o755)
    env = house()
    policy = begun(env, JudgeAnswerer(CommandJudge(str(program))))
    assert policy.act(stack([env.reset(seed=5)[0]]), [0]).tolist() == [[0.0]] and policy.invalid == 0


def test_a_judge_that_stays_silent_is_an_error_unless_tolerated():
    silent = CommandJudge("false", retries=0)
    with pytest.raises(ValueError, match="ended with status 1"):
        JudgeAnswerer(silent).answer(["go?"], [[]])
    assert JudgeAnswerer(silent, tolerate=1).answer(["go?"], [[]]) == [""]


def test_a_model_needs_a_folder_or_a_responder():
    with pytest.raises(ValueError, match="give the folder of a model, or a responder"):
        ModelAnswerer()
    with pytest.raises(ValueError, match="has not the methods of a Responder"):
        ModelAnswerer(responder=Path())
