"""What an operator does with the queue: dead letters, groups, following it, trimming, metrics."""

UNREAD_SECONDS = 300.0
"""A group is being read if one of its consumers asked Redis for something within this time."""
