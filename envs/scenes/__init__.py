"""Table-top scenes with captions, questions, referring expressions and films whose answers are true by construction."""
