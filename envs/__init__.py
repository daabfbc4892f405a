"""Simulators behind one Gymnasium interface, and the experts that demonstrate in them.

Importing this package registers them with Gymnasium: `gymnasium.make("embodied/MetaWorld-v0", tasks=["reach"])`.
"""

from gymnasium.envs.registration import register

register("embodied/MetaWorld-v0", entry_point="envs.mujoco.metaworld:MetaWorld", disable_env_checker=True)
register("embodied/PandaGym-v0", entry_point="envs.pybullet.panda:PandaGym", disable_env_checker=True)
register("embodied/Remote-v0", entry_point="envs.remote.env:RemoteEnv", disable_env_checker=True)
