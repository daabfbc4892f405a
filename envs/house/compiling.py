"""numba, which compiles the loops of the renderer and the navigator."""

try:
    from numba import njit
except ImportError:
    raise ImportError(
        "houses are drawn and walked by compiled loops, which need numba: pip install 'embodied[nav]'"
    ) from None

__all__ = ["njit"]
