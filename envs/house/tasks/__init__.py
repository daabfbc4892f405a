"""Tasks in houses, as Gymnasium environments: each draws episodes and says when one is solved."""
