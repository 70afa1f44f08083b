"""The spool: one SQLite file on the task's disk."""
