"""The rules of publishing: imports neither grpc nor redis nor sqlite3."""
