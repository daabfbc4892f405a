"""Made-up parts for tests, found through EMBODIED_PLUGINS=fakes."""
