"""What turns an encoder's features into tokens of the language model, (B, N, D_enc) -> (B, M, D)."""
