"""google.rpc's Status and error details, whether googleapis-common-protos is installed or not.

Where it is, its classes are used, since the descriptor pool takes one definition of a file alone; where it is not, the
ones generated beside this file, so that the client needs nothing but grpcio and protobuf.
"""

try:
    from google.rpc import error_details_pb2, status_pb2
except ImportError:  # pragma: no cover - tested in an environment of its own
    from modelready.rpc import error_details_pb2, status_pb2  # type: ignore[no-redef, attr-defined]

__all__ = ["error_details_pb2", "status_pb2"]
