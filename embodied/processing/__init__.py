"""Reversible transforms between raw robot data and model data."""
