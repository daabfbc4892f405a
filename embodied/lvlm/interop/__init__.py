"""Released checkpoints of the families that the LVLM composes, loaded and written in transformers' own form."""
