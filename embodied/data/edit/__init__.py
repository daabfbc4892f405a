"""New datasets from old ones: `merge`, `split`, `select` (filter) and `reencode`; the sources are never touched."""

from embodied.data.edit.operations import merge, reencode, select, split

__all__ = ["merge", "reencode", "select", "split"]
