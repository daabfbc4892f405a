"""Readers of the formats that multi-modal datasets come in, one file each; `conf/multimodal` has a node for each."""
