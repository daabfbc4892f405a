"""Scores of answers by the official rules of the benchmarks they belong to: pure functions of records."""
