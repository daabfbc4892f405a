"""A robot is a language model whose input and output spaces were extended.

`embodied` holds the contracts, the language model core, the data path, training, evaluation and the commands.
Simulators live in `envs`, action heads in `policies`, map memories in `maps`, and `conf` wires them together.
"""

__version__ = "0.1.0"
