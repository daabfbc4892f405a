"""The language model that everything is read by."""
