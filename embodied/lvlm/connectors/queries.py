"""What connectors have in common whose tokens are answers to learned queries."""

from __future__ import annotations

from embodied.lvlm.connectors.base import Connector, Context


class QueryConnector(Connector):
    """A connector whose tokens are as many as it has queries, and make no grid, however many there are."""

    def grid(self, features: tuple[int, int]) -> tuple[int, int]:
        return 1, self.tokens(features[0] * features[1], Context(grid=features))
