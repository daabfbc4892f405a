"""Internal alignment: what changes a language model from inside so that it reads more than text."""
