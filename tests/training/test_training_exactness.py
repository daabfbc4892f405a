"""What is learned depends on the batches and the seed, not on who computes which part of them."""

import os
import socket
from pathlib import Path

import pytest
import torch
from fakes.training import TinyAgent, TinyStream, a_trainer, quick_processes, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import get_cosine_schedule_with_warmup


def curve(run, name="train/loss"):
    events = EventAccumulator(str(Path(run) / "log")).Reload()
    return [(e.step, e.value) for e in events.Scalars(name)]


def difference(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    return max((a[k] - b[k]).abs().max().item() for k in a if k != "seen")


def test_it_is_plain_adamw_on_the_batch_mean(tmp_path):
    a_trainer(tmp_path / "ours", max_steps=6, clip=0.5).train()
    torch.manual_seed(0)
    agent, stream = TinyAgent(), TinyStream(8)
    matrices, vectors = [p for p in agent.parameters() if p.ndim > 1], [p for p in agent.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, fused=False, foreach=False)
    schedule = get_cosine_schedule_with_warmup(optimizer, 1, 6)
    for step in range(6):
        generators = [torch.Generator().manual_seed(int(seed)) for seed in stream.row_seeds(step)]
        optimizer.zero_grad()
        agent.loss(stream.gather(stream.indices(step)), generators)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    ours = weights(tmp_path / "ours" / "checkpoints" / "last")
    assert all(torch.allclose(ours[k], v, atol=1e-6) for k, v in agent.state_dict().items())


@pytest.mark.parametrize("batch_size, accumulate", [(8, 2), (7, 3)])
def test_accumulated_parts_are_one_batch(tmp_path, batch_size, accumulate):
    a_trainer(tmp_path / "whole", batch_size=batch_size).train()
    a_trainer(tmp_path / "parts", batch_size=batch_size, accumulate=accumulate).train()
    assert difference(tmp_path / "whole/checkpoints/last", tmp_path / "parts/checkpoints/last") < 1e-6
    one, many = curve(tmp_path / "whole"), curve(tmp_path / "parts")
    assert [step for step, _ in one] == list(range(1, 7))
    assert [v for _, v in one] == pytest.approx([v for _, v in many], abs=1e-6)


def train_as(rank, n, port, said, bad, arguments):
    env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in env.items()})
    try:
        a_trainer(stream=TinyStream(arguments["batch_size"], bad=bad), **arguments).train()
    except ValueError as error:
        said.put(str(error))
        raise SystemExit(1) from None


def gloo(n, bad=None, **arguments):
    """`a_trainer` trained by `n` processes; their exit codes and their errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = quick_processes()
    said = context.Queue()
    started = [context.Process(target=train_as, args=(rank, n, port, said, bad, arguments)) for rank in range(n)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        process.kill()
    codes, errors = [process.exitcode for process in started], []
    while not said.empty():
        errors.append(said.get())
    return codes, errors


def test_two_processes_are_one(tmp_path):
    assert gloo(2, out=tmp_path / "two", batch_size=7, accumulate=2, ema={"decay": 0.9}) == ([0, 0], [])
    a_trainer(tmp_path / "one", batch_size=7, ema={"decay": 0.9}).train()
    assert difference(tmp_path / "one/checkpoints/last", tmp_path / "two/checkpoints/last") < 1e-6
    for name in ("train/loss", "train/first", "train/grad_norm"):
        one, two = curve(tmp_path / "one", name), curve(tmp_path / "two", name)
        assert [v for _, v in one] == pytest.approx([v for _, v in two], abs=1e-5)


def test_two_processes_stop_together_at_a_loss_that_is_not_finite(tmp_path):
    codes, errors = gloo(2, bad=3, out=tmp_path / "two", batch_size=8, max_steps=50)
    assert codes == [1, 2] and len(errors) == 1 and "samples 3;" in errors[0]


def test_a_batch_too_small_for_its_parts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"trainer.batch_size is 2, .* at least 3 rows"):
        a_trainer(tmp_path, batch_size=2, accumulate=3)
