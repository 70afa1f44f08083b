"""The model-ready sidecar: takes "this model version is ready" on localhost and owns it until it is in Redis."""

__version__ = "0.1.0"
