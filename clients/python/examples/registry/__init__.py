"""A small model registry that publishes what it promotes."""
