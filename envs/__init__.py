"""Simulators behind one Gymnasium interface, and the experts that demonstrate in them."""
