"""What turns an image or a state into features, (B, N, D_enc)."""
