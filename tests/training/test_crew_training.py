"""A crew is trained as exactly as an agent: parts and processes learn what one batch does, a stop leaves no trace."""

import os
import signal
import socket

import pytest
import torch
from fakes.crew import TinyCrew, mixed_stream
from fakes.training import a_trainer, quick_processes, state, weights

from embodied.training.lora import add_lora
from embodied.training.run_folder import newest


def trained(out, batch_size=7, resume=False, **arguments):
    """A trainer of the small crew."""
    last = newest(out) if resume else None
    crew = TinyCrew.from_pretrained(last) if last else TinyCrew()
    return a_trainer(
        out, resume=resume, agent=crew, stream=mixed_stream(batch_size), batch_size=batch_size, **arguments
    )


def difference(a, b):
    a, b = weights(newest(a)), weights(newest(b))
    assert a.keys() == b.keys()
    return max((a[k] - b[k]).abs().max().item() for k in a if not k.endswith("seen"))


def train_as(rank, n, port, arguments):
    env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in env.items()})
    trained(**arguments).train()


def test_accumulated_parts_are_one_batch(tmp_path):
    trained(tmp_path / "one", ema={"decay": 0.9}).train()
    trained(tmp_path / "parts", ema={"decay": 0.9}, accumulate=4).train()
    assert difference(tmp_path / "one", tmp_path / "parts") < 1e-6


def adapted(crew):
    add_lora(crew, "model.backbone", rank=2)


@pytest.mark.parametrize("kind", [{"ema": {"decay": 0.9}}, {"prepare": adapted}], ids=["ema", "lora"])
def test_stopped_and_resumed_is_uninterrupted(tmp_path, kind):
    trained(tmp_path / "whole", save_every=100, **kind).train()
    stopped = trained(tmp_path / "stopped", save_every=100, **kind)
    update = stopped._update

    def stopping(parts, kept):
        if stopped.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(parts, kept)

    stopped._update = stopping
    with pytest.raises(SystemExit):
        stopped.train()
    stopped.run.close()
    trained(tmp_path / "stopped", resume=True, save_every=100, **kind).train()
    for read in (weights, state):
        one, two = read(newest(tmp_path / "whole")), read(newest(tmp_path / "stopped"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_each_weight_is_optimised_once_and_what_a_batch_lacks_stays(tmp_path):
    trainer = trained(tmp_path, batch_size=1, max_steps=1)
    before = {name: p.clone() for name, p in trainer.agent.named_parameters()}
    assert len({id(p) for p in trainer.parameters}) == len(trainer.parameters) == len(before)
    only = next(iter(trainer.stream.gather(trainer.stream.indices(0))["sources"]))
    trainer.train()
    changed = {name for name, p in trainer.agent.named_parameters() if not torch.equal(p, before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("agents.")} == {only}
    assert {"model.backbone.weight", "model.encoder.0.weight"} <= changed


def test_two_processes_are_one(tmp_path):
    trained(tmp_path / "one").train()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = quick_processes()
    options = {"out": tmp_path / "two", "accumulate": 2}
    started = [context.Process(target=train_as, args=(rank, 2, port, options)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
        process.kill()
    assert [process.exitcode for process in started] == [0, 0]
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-6
