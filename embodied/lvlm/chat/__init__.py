"""Conversations as token sequences: templates, labels, places for pictures, padding and packing."""
