"""Policies for tests."""

import numpy as np

from embodied.interaction import Policy


class NoisyWalker(Policy):
    """Walks towards the goal with noise from the episode's own generator, and keeps a diary."""

    def __init__(self, gain=0.4, noise=0.03):
        self.gain, self.noise, self.diary = gain, noise, []

    def reset(self, slots):
        self.generators = [None] * slots

    def start(self, slot, seed, task):
        self.diary.append(("start", slot, seed, task))
        self.generators[slot] = np.random.default_rng([seed, len(task)])

    def act(self, observations, slots):
        assert len(set(slots)) == len(slots) == len(observations["task"])
        self.diary.append(("act", *slots))
        away = observations["observation.environment_state"] - observations["observation.state"]
        noise = [self.generators[slot].normal(0, self.noise, 2) for slot in slots]
        return self.gain * away + np.stack(noise)


class Constant(Policy):
    """The same action for everyone."""

    def __init__(self, action):
        self.action = np.asarray(action, np.float32)

    def reset(self, slots): ...

    def start(self, slot, seed, task): ...

    def act(self, observations, slots):
        return np.tile(self.action, (len(slots), 1))
