"""What works on this machine, found by doing it, and how to mend what doesn't (`embodied-doctor`)."""
