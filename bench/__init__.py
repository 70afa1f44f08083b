"""Measures the sidecar: each figure a ratio to a baseline of the same run. `python -m bench`, or `make bench`."""
