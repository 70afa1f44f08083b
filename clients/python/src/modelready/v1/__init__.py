"""Generated from proto/modelready/v1 by `make proto`."""
