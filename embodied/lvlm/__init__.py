"""The language model whose input space was extended: encoders and connectors in, one backbone, readouts out."""
