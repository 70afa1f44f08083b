"""Bytes out: the queue in Redis and the spool on disk."""
