"""The action half of the output space: heads that turn a readout into motion, and how their chunks are executed."""
