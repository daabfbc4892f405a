"""Feeding, number formats, logging, validation: what surrounds a step."""

import threading
import time

import numpy as np
import pytest
import torch
from fakes.training import TinyAgent, TinyStream, a_trainer
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from embodied.training import objective
from embodied.training.checkpoint import facts
from embodied.training.feed import Feed, shares
from embodied.training.objective import Objective, choose_precision
from embodied.training.run_folder import newest
from embodied.training.trainer import Settings

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4))
def test_every_row_is_somebodys_exactly_once(rows, processes, accumulate):
    if rows < processes * accumulate:
        with pytest.raises(ValueError, match="batch_size"):
            shares(rows, processes, accumulate)
        return
    parts = shares(rows, processes, accumulate)
    assert len(parts) == processes * accumulate and all(len(part) for part in parts)
    assert np.concatenate(parts).tolist() == list(range(rows))


def test_the_feed_gives_the_steps_in_order_and_ahead_of_time():
    stream, fetched = TinyStream(4), []
    gather = stream.gather
    stream.gather = lambda indices: (fetched.append(1), gather(indices))[1]
    feed = Feed(stream, [np.arange(4)], 5, 9, CPU, depth=2)
    time.sleep(0.3)
    assert 2 <= len(fetched) <= 3, "two steps ready and one in the making, before anybody asked"
    for step in range(5, 9):
        (part,) = feed.next()
        assert np.array_equal(part.indices, stream.indices(step)) and np.array_equal(part.seeds, stream.row_seeds(step))
        assert torch.equal(part.batch["action"], gather(part.indices)["action"])
        assert part.kept == int((~part.batch["action_is_pad"]).sum())
    feed.close()
    assert "feed" not in [t.name for t in threading.enumerate()]


def test_an_error_in_the_data_reaches_the_loop(tmp_path):
    stream = TinyStream(8)

    def corrupt(indices):
        raise ValueError("episode 3 is damaged")

    stream.gather = corrupt
    with pytest.raises(ValueError, match="episode 3 is damaged"):
        a_trainer(tmp_path, stream=stream).train()


def test_waiting_for_data_is_measured(tmp_path):
    stream = TinyStream(8)
    gather = stream.gather
    stream.gather = lambda indices: (time.sleep(0.05), gather(indices))[1]
    a_trainer(tmp_path, stream=stream, max_steps=10, log_every=10, prefetch=1).train()
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert events.Scalars("train/data_wait")[0].value > 0.5


def test_the_curves_are_means_over_windows(tmp_path):
    a_trainer(tmp_path / "each", max_steps=6).train()
    a_trainer(tmp_path / "windows", max_steps=6, log_every=3).train()
    each, windows = (EventAccumulator(str(tmp_path / run / "log")).Reload() for run in ("each", "windows"))
    names = {"loss", "first", "grad_norm", "lr", "samples_per_s", "data_wait"}
    assert set(windows.Tags()["scalars"]) == {f"train/{name}" for name in names}
    for name in ("loss", "first", "grad_norm"):
        values = [e.value for e in each.Scalars(f"train/{name}")]
        means = [(e.step, e.value) for e in windows.Scalars(f"train/{name}")]
        assert means == [(3, pytest.approx(np.mean(values[:3]))), (6, pytest.approx(np.mean(values[3:])))]


def test_what_a_killed_run_logged_beyond_its_checkpoint_is_hidden(tmp_path):
    trainer = a_trainer(tmp_path, max_steps=6, save_every=4)
    trainer._save = lambda: 0.0 if trainer.step == 6 else type(trainer)._save(trainer)
    trainer.train()
    trainer.run.close()
    a_trainer(tmp_path, resume=True, max_steps=6, save_every=4).train()
    events = EventAccumulator(str(tmp_path / "log"), purge_orphaned_data=True).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_bfloat16_computes_in_it_and_keeps_the_weights():
    agent = TinyAgent(noise=0.0)
    batch = TinyStream(8).gather(np.arange(8))
    seen = []
    agent.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    loss = Objective(agent, "bfloat16")(batch)["loss"]
    loss.backward()
    assert seen == [torch.bfloat16] and loss.dtype == torch.float32
    assert {p.dtype for p in agent.parameters()} == {p.grad.dtype for p in agent.parameters() if p.grad is not None}
    assert loss.item() == pytest.approx(Objective(agent)(batch)["loss"].item(), rel=0.05)


@pytest.mark.parametrize("slow, chosen", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_the_format_that_is_faster_here_is_chosen_and_nothing_is_changed(monkeypatch, slow, chosen):
    agent, batch = TinyAgent(), TinyStream(8).gather(np.arange(8))
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    made = Objective(agent)
    forward = Objective.forward

    def slowed(self, *arguments):
        time.sleep(0.02 if self.precision == slow else 0)
        return forward(self, *arguments)

    monkeypatch.setattr(Objective, "forward", slowed)
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    found, why = choose_precision(made, batch, lambda: None)
    assert found == chosen and "speed of float32" in why
    assert torch.equal(torch.rand(2), drawn), "the default generator is where it was"
    assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())
    assert all(p.grad is None for p in agent.parameters())


def test_a_chosen_format_is_recorded_and_not_measured_again(tmp_path, monkeypatch):
    import embodied.training.trainer as module

    monkeypatch.setattr(module, "choose_precision", lambda *arguments: ("bfloat16", "so says the test"))
    trainer = a_trainer(tmp_path, precision="auto", max_minutes=1e-9)
    trainer.train()
    assert facts(newest(tmp_path))["precision"] == "bfloat16"
    trainer.run.close()
    monkeypatch.setattr(module, "choose_precision", lambda *arguments: pytest.fail("measured again"))
    again = a_trainer(tmp_path, resume=True, precision="auto")
    assert again.objective.precision == "bfloat16" and "as recorded" in again.said[0]


def test_an_operation_without_bfloat16_falls_back():
    class Stubborn(TinyAgent):
        def loss(self, batch, generators=None):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("not implemented for 'BFloat16'")
            return super().loss(batch, generators)

    found, why = choose_precision(Objective(Stubborn()), TinyStream(4).gather(np.arange(4)), lambda: None)
    assert found == "float32" and "does not work here" in why
    assert objective.WORTH > 1


def test_validation_weighs_every_step_once_with_the_exported_weights(tmp_path):
    held_out = TinyStream(8, seed=5)
    trainer = a_trainer(tmp_path, validation=held_out, ema={"decay": 0.9}, validation_batches=3)
    results = trainer.train()
    agent = TinyAgent.from_pretrained(newest(tmp_path))
    every = np.concatenate([held_out.indices(i) for i in range(3)])
    assert results["validation_loss"] == pytest.approx(agent.loss(held_out.gather(every))["loss"].item(), rel=1e-5)
    assert trainer.agent.training and "validation loss" in " ".join(trainer.said)


def test_validating_changes_nothing_that_is_learned(tmp_path):
    one = a_trainer(tmp_path / "one")
    two = a_trainer(tmp_path / "two", validation=TinyStream(8, seed=5), validate_every=1)
    one.train(), two.train()
    assert all(torch.equal(a, b) for a, b in zip(one.agent.parameters(), two.agent.parameters(), strict=True))


def test_compiled_it_learns_the_same(tmp_path):
    one, two = a_trainer(tmp_path / "one"), a_trainer(tmp_path / "two", compile="eager")
    one.train(), two.train()
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(one.agent.parameters(), two.agent.parameters(), strict=True)
    )
    assert dict(two.agent.named_parameters()).keys() == dict(one.agent.named_parameters()).keys()


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"max_steps": 0}, "trainer.max_steps must be at least 1"),
        ({"precision": "float16"}, "one of auto, float32, bfloat16"),
        ({"clip": 0}, "trainer.clip"),
    ],
)
def test_a_mistaken_setting_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Settings(**wrong)
