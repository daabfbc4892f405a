"""The training loop: it knows batches, losses, devices and folders, and nothing of what an agent is made of.

What is learned depends on the config and the seed alone. One optimizer step works on one batch; processes and
accumulation parts share its rows, each weighing by the action steps it kept, so their sum is the gradient of the whole
batch. A row's noise comes from the row's own seed, dropout from (seed, step, process). Killed at any moment, a run
continues from its newest checkpoint to the very weights it would have had.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from embodied.progress import Progress
from embodied.training import checkpoint
from embodied.training.ema import EMA
from embodied.training.feed import Feed, Part, Stream, fetch, shares, to_device
from embodied.training.log import Board, Window, per_source
from embodied.training.objective import PRECISIONS, Objective, choose_precision
from embodied.training.optimizer import OptimizerRecipe
from embodied.training.processes import signals, total
from embodied.training.run_folder import RunFolder

if TYPE_CHECKING:
    from embodied.training.objective import Learner


@dataclass(frozen=True)
class Settings:
    """How to train; `conf/trainer/default.yaml` says what each is for.

    Raises:
        ValueError: a number is out of range.
    """

    batch_size: int = 64
    max_steps: int = 1000
    max_minutes: float | None = None
    accumulate: int = 1
    clip: float | None = 1.0
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    compile: bool | str = False
    deterministic: bool = False
    prefetch: int = 2
    save_every: int = 500
    keep: int = 2
    log_every: int = 20
    validate_every: int = 200
    validation_batches: int = 8

    def __post_init__(self) -> None:
        every = ("save_every", "log_every", "validate_every", "validation_batches")
        for name in ("batch_size", "max_steps", "accumulate", "prefetch", "keep", *every):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name} must be at least 1, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"trainer.precision is one of {', '.join(PRECISIONS)}, got '{self.precision}'")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"trainer.clip is the largest gradient norm, positive, or null for none; got {self.clip}")


class Trainer:
    """Trains an agent in a run's folder.

    Args:
        settings: how.
        agent: or a crew of several; frozen and adapted as wanted; loaded from `run.checkpoint` where there is one.
        stream: where batches come from.
        run: the folder, opened.
        accelerator: this process among others.
        recipe: makes the optimizer.
        schedule: learning-rate factor of a step.
        ema: decay and power of the averaged weights; None trains without.
        seed: for dropout.
        validation: batches of held-out episodes.
        data: identifies the dataset's content; a run continues only on the same.
        name: what a sample is called, to a person.
        say: shows a line.

    Raises:
        ValueError: the checkpoint does not fit, or a pattern matches nothing.
    """

    def __init__(
        self,
        settings: Settings,
        agent: Learner,
        stream: Stream,
        run: RunFolder,
        accelerator: Accelerator,
        recipe: OptimizerRecipe,
        schedule: Callable[[int], float],
        ema: Mapping[str, float] | None = None,
        seed: int = 0,
        validation: Stream | None = None,
        data: str = "",
        name: Callable[[int], str] = str,
        say: Callable[[str], None] = print,
    ) -> None:
        self.settings, self.agent, self.stream, self.run, self.accelerator = settings, agent, stream, run, accelerator
        self.schedule, self.seed, self.validation, self.data, self.name = schedule, seed, validation, data, name
        self.say = say if accelerator.is_main_process else lambda line: None
        if settings.threads:
            torch.set_num_threads(settings.threads)
        if settings.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.device = accelerator.device
        self.processes, self.rank = accelerator.num_processes, accelerator.process_index
        self.rows = self._own(stream.batch_size, settings.accumulate)
        agent.to(self.device).train()
        trained = {name: p for name, p in agent.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        self.ema = EMA(trained, **ema) if ema else None
        facts = checkpoint.facts(run.checkpoint) if run.checkpoint else {}
        if facts.get("data", data) != data:
            raise ValueError(f"resume: {run.path} was trained on other data; another out= starts a new run")
        if run.checkpoint:
            checkpoint.load_raw(run.checkpoint, agent, self.ema)
        self.optimizer = recipe.make(recipe.groups(trained))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        if run.checkpoint:
            checkpoint.load_optimizer(run.checkpoint, self.optimizer)
        self.step, self.loss = int(facts.get("step", 0)), facts.get("loss")
        self.objective = Objective(agent)
        self._precision(facts)
        self._circumstances(facts)
        if settings.compile:
            self.objective.compile(**({"backend": settings.compile} if isinstance(settings.compile, str) else {}))
        self.wrapped = accelerator.prepare(self.objective) if self.processes > 1 else self.objective
        self.validation_loss: float | None = None

    def train(self) -> dict[str, Any]:
        """Train to `max_steps`, the time budget, or a signal; the last state is saved.

        Returns:
            `loss` (mean of the last window), `samples_per_s`, `seconds`, `steps`, `parameters`, and `validation_loss`
            where episodes are held out.

        Raises:
            ValueError: the loss or a gradient is not finite; nothing is saved from it.
            SystemExit: after a signal, with 128 + its number, and the state saved.
        """
        last, first, start = self.settings.max_steps, self.step, time.perf_counter()
        if self.accelerator.is_main_process:
            self.run.begin()
        board = Board(self.run.log if self.accelerator.is_main_process else None, first)
        feed = Feed(self.stream, self.rows, first, last, self.device, self.settings.prefetch)
        progress = None
        if self.accelerator.is_main_process and first < last:
            progress = Progress(last, "steps", done=first, stream=sys.stderr)
        window, note, rate = Window(first, self._total), "", math.nan
        try:
            with signals() as noted:
                while self.step < last:
                    parts = feed.next()
                    late = self._spent(start) or bool(noted)
                    kept, stop = self._agree(parts, late, at_window=len(window) == 0)
                    if stop:
                        break
                    window.add(self._update(parts, kept))
                    if len(window) == self.settings.log_every or self.step == last:
                        note, rate = self._look(window, feed, board)
                        window = Window(self.step, self._total)
                    if self._due(self.settings.validate_every, last) and self.validation is not None:
                        window.pause(self._validate(self.validation, board))
                    if self.step % self.settings.save_every == 0 and self.step < last:
                        self._check(window)
                        window.pause(self._save())
                    if progress:
                        progress.advance(1, note)
                if len(window):
                    note, rate = self._look(window, feed, board)
                self._save()
        finally:
            feed.close()
            board.close()
        seconds = time.perf_counter() - start
        if noted:
            self.say(f"stopped by a signal at step {self.step}: saved; resume=true continues {self.run.path}")
            raise SystemExit(128 + noted[0])
        if self.step < last:
            self.say(f"trainer.max_minutes is spent at step {self.step} of {last}: saved; resume=true continues")
        elif first == last:
            self.say(f"{self.run.path} is trained already: {last} steps")
        results: dict[str, Any] = {"loss": self.loss, "samples_per_s": rate, "seconds": seconds, "steps": self.step}
        results["parameters"] = sum(p.numel() for p in self.agent.parameters())
        if self.validation_loss is not None:
            results["validation_loss"] = self.validation_loss
        return results

    def _update(self, parts: list[Part], kept: Tensor | int) -> dict[str, Tensor]:
        """One optimizer step; this process's shares of its scalars."""
        mixed = np.random.SeedSequence([self.seed, self.step, self.rank]).generate_state(1, np.uint64)
        torch.default_generator.manual_seed(int(mixed[0]))  # torch.manual_seed formats three stack traces to do this
        if self.device.type == "cuda":
            torch.cuda.manual_seed(int(mixed[0]))
        factor = self.schedule(self.step)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        shown: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            apart = self.processes > 1 and i + 1 < len(parts)
            with self.accelerator.no_sync(self.wrapped) if apart else nullcontext():
                losses = self.wrapped(part.batch, part.generators())
                share = part.kept / kept
                (losses["loss"] * (share * self.processes)).backward()  # DDP divides by the processes
            for name, value in losses.items():
                shown[name] = shown.get(name, 0.0) + value.detach() * share
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        if self.device.type == "cpu":  # a GPU would be waited for, and is asked at the window's end
            fine = torch.isfinite(norm) and (self.processes > 1 or torch.isfinite(shown["loss"]))
            if not fine:
                self._not_finite(self.step, parts)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.step)
        self.step += 1
        return {**shown, "grad_norm": norm / self.processes}

    def _agree(self, parts: list[Part], late: bool, at_window: bool) -> tuple[Tensor | int, bool]:
        """How many action steps the whole batch keeps, and whether to stop: the same in all processes.

        A GPU is asked about stopping only where a window starts, because asking waits for it.
        """
        kept = sum(part.kept for part in parts)
        if self.processes == 1:
            return max(kept, 1), late
        both = self._total(torch.tensor([kept, late], dtype=torch.float64, device=self.device))
        stop = (at_window or self.device.type == "cpu") and bool(both[1] > 0)
        return both[0].clamp(min=1).float(), stop

    def _look(self, window: Window, feed: Feed, board: Board) -> tuple[str, float]:
        """End a window: check, log, and say how it goes."""
        values = self._check(window)
        rate = len(window) * self.stream.batch_size / window.seconds
        waited = min(feed.waited / window.seconds, 1.0)
        feed.waited = 0.0
        means = per_source({name: sum(column) / len(column) for name, column in values.items()})
        self.loss = means["loss"]
        extra = {"lr": self.optimizer.param_groups[0]["lr"], "samples_per_s": rate, "data_wait": waited}
        board.write({f"train/{name}": value for name, value in {**means, **extra}.items()}, self.step)
        sources = ", ".join(f"{n.removeprefix('loss/')} {v:.4g}" for n, v in means.items() if n.startswith("loss/"))
        loss = f"loss {self.loss:.4g}" + (f" ({sources})" if sources else "")
        return f"{loss}  {rate:.0f} samples/s  data wait {waited:.0%}", rate

    def _check(self, window: Window) -> dict[str, list[float]]:
        """The window's values, if all losses are finite."""
        values = window.values()
        for name in ("loss", "grad_norm"):
            for i, value in enumerate(values.get(name, ())):
                if not math.isfinite(value):
                    self._not_finite(window.first + i, None)
        return values

    def _not_finite(self, step: int, parts: list[Part] | None) -> None:
        """Stop, naming the samples: those whose own loss is not finite where the weights are still at hand."""
        indices = np.asarray(self.stream.indices(step))
        guilty = torch.zeros(len(indices), device=self.device)
        if parts is not None:
            with torch.no_grad():
                for rows, part in zip(self.rows, parts, strict=True):
                    for i, row in enumerate(rows):
                        one = part.row(i)
                        loss = self.objective(one.batch, one.generators())["loss"]
                        guilty[int(row)] = float(not torch.isfinite(loss))
        found = indices[self._total(guilty).cpu().numpy() > 0]
        samples = found if len(found) else indices
        few = ", ".join(self.name(int(i)) for i in samples[:8])
        few += f" and {len(samples) - 8} more" if len(samples) > 8 else ""
        last = self.run.saved
        saved = "no checkpoint was written" if last is None else f"{self.run.place(last)} is untouched"
        if not self.accelerator.is_main_process:
            raise SystemExit(2)
        what = "loss" if len(found) else "loss or gradient"
        raise ValueError(
            f"the {what} is not finite at step {step + 1}, samples {few}; {saved}. "
            "Look at those samples, or lower optimizer.lr"
        )

    @torch.no_grad()
    def _validate(self, stream: Stream, board: Board) -> float:
        """Loss of the held-out episodes with the weights that would be exported; returns the seconds it took."""
        start, rows = time.perf_counter(), self._own(stream.batch_size, 1)
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.agent.eval()
        with self.ema.applied() if self.ema else nullcontext():
            for i in range(self.settings.validation_batches):
                for part in fetch(stream, i, rows):
                    loss = self.objective(to_device(part.batch, self.device), part.generators())["loss"]
                    sums += torch.stack([loss.double() * part.kept, torch.tensor(float(part.kept), device=self.device)])
        self.agent.train()
        weighted, kept = self._total(sums).tolist()
        self.validation_loss = weighted / max(kept, 1)
        board.write({"validation/loss": self.validation_loss}, self.step)
        self.say(f"step {self.step}: validation loss {self.validation_loss:.4g}")
        return time.perf_counter() - start

    def _save(self) -> float:
        """Write a checkpoint unless this step has one; returns the seconds it took."""
        start = time.perf_counter()
        if self.accelerator.is_main_process and self.step != self.run.saved:
            facts = {"step": self.step, "loss": self.loss, "data": self.data, **self._facts()}
            checkpoint.save(self.run.place(self.step), self.agent, self.optimizer, self.ema, facts)
            self.run.point(self.step)
            self.run.prune(self.settings.keep)
        self.run.saved = self.step
        self.accelerator.wait_for_everyone()
        return time.perf_counter() - start

    def _precision(self, facts: Mapping[str, Any]) -> None:
        """Set the number format: as asked, as recorded, or as measured by the main process."""
        chosen, why = self.settings.precision, ""
        if chosen == "auto" and "precision" in facts:
            chosen, why = facts["precision"], "as recorded in the checkpoint"
        elif chosen == "auto":
            part = fetch(self.stream, self.step, self.rows[:1])[0]
            chosen, why = choose_precision(self.objective, to_device(part.batch, self.device), part.generators)
            mine = float(chosen == "bfloat16" and self.accelerator.is_main_process)
            chosen = "bfloat16" if self._total(torch.tensor([mine], device=self.device)).item() > 0 else "float32"
        self.objective.precision = chosen  # type: ignore[assignment]
        self.say(f"precision: {chosen}" + (f" ({why})" if why else ""))

    def _circumstances(self, facts: Mapping[str, Any]) -> None:
        """Say what is otherwise than when the checkpoint was made, and may therefore round otherwise."""
        now = self._facts()
        changed = [f"{key} {facts[key]} -> {now[key]}" for key in now if facts and facts.get(key, now[key]) != now[key]]
        if changed:
            self.say(f"continuing under other circumstances, so the last digits may differ: {', '.join(changed)}")

    def _facts(self) -> dict[str, Any]:
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type
        return {
            "precision": self.objective.precision,
            "processes": self.processes,
            "threads": torch.get_num_threads(),
            "device": device,
            "torch": torch.__version__,
        }

    def _own(self, batch_size: int, accumulate: int) -> list[np.ndarray]:
        every = shares(batch_size, self.processes, accumulate)
        return every[self.rank * accumulate : (self.rank + 1) * accumulate]

    def _due(self, every: int, last: int) -> bool:
        return self.step % every == 0 or self.step == last

    def _spent(self, start: float) -> bool:
        budget = self.settings.max_minutes
        return budget is not None and time.perf_counter() - start > 60 * budget

    def _total(self, tensor: Tensor) -> Tensor:
        return total(self.accelerator, tensor)
