"""Choose an action by its name from a recurrent state: the navigation policy of habitat-baselines.

DD-PPO (Wijmans et al. 2020, arXiv 1911.00357; `PointNavResNetNet` in habitat-baselines' `resnet_policy.py`): what is
seen at a step goes through a recurrent layer whose state begins with the episode, then one linear layer that starts
near zero says how likely each action is. Two things differ. Its loss is the demonstration's surprise, as LLaRP's here
(`policies.heads.categorical`). And the previous action is no input: demonstrations may be stored with what the expert
would have done, not with what was done, and one who is shown the previous action learns to repeat it.

It wants `model.attention=framewise` and `chunk.whole_episodes=true`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from embodied.contracts import Generators, Memory, Readout, SequentialHead
from embodied.spec import ActionSpec
from policies.heads.categorical import NamedHead
from policies.heads.cells import Cell, begin, read_next, recurrent
from policies.heads.pooling import Pool, Pooling
from policies.heads.sequential import gapless


class RecurrentCategoricalHead(NamedHead, SequentialHead):
    """LSTM or GRU over the steps, then a distribution over the names of actions.

    Args:
        width, horizon, action_dim, readout_tokens, action, temperature: see `NamedHead`.
        cell: `lstm` (DD-PPO) or `gru`.
        size: width of the recurrent state (DD-PPO: 512).
        layers: recurrent layers (DD-PPO: 2).
        hidden: widths of layers between the state and the choice (DD-PPO: none).
        pooling: `mean`, `max` or `flatten` (`policies.heads.pooling`).

    Raises:
        ValueError: the actions are not categorical, or an option is not possible.
    """

    def __init__(
        self,
        width: int,
        horizon: int,
        action_dim: int,
        readout_tokens: int = 1,
        *,
        action: ActionSpec,
        cell: Cell = "lstm",
        size: int = 512,
        layers: int = 2,
        hidden: Sequence[int] = (),
        temperature: float = 0.0,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(width, horizon, action_dim, readout_tokens, action, temperature)
        self.pool = Pool(pooling, width, readout_tokens)
        self.rnn = recurrent(type(self).__name__, cell, self.pool.width, size, layers)
        self.net = self.decoder(size, hidden)

    def loss(
        self, readout: Readout, actions: Tensor, mask: Tensor, generators: Generators | None = None
    ) -> dict[str, Tensor]:
        seen = self._read(readout)
        if actions.dim() == 3:  # the chunk of the latest step alone
            seen = readout.latest(seen)
        return self.surprise(self._logits(seen), actions, mask)

    def sample(self, readout: Readout, generators: Generators | None = None) -> Tensor:
        return self.choice(self._logits(readout.latest(self._read(readout))), generators)

    def begin(self, rows: int) -> Memory:
        return begin(self.rnn, rows)

    def sample_next(
        self, readout: Readout, memory: Memory, generators: Generators | None = None
    ) -> tuple[Tensor, Memory]:
        seen, memory = read_next(self.rnn, self.pool.steps(readout), memory)
        return self.choice(self._logits(seen), generators), memory

    def _read(self, readout: Readout) -> Tensor:
        return gapless(lambda steps: self.rnn(steps)[0], self.pool.steps(readout), readout.steps)

    def _logits(self, seen: Tensor) -> Tensor:
        return self.logits(self.net(seen))
