"""The commands, one module each, and what they share.

Importing them is cheap: grpc and protobuf are imported only when a command runs, since `health` must start fast.
"""
