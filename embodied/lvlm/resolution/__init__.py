"""How an image of any size becomes what a fixed encoder reads: resized, tiled, or kept as it is."""
