"""Scores of agents that walk and of questions about places, by the official rules of the benchmarks they belong to."""
