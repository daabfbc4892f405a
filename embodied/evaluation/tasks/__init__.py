"""Multi-modal tasks: which samples a model is asked, how, and by which rule its answers are scored."""
