"""gRPC and HTTP in."""
