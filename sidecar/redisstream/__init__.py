"""The queue in Redis: a stream, its groups and its dead letters."""
