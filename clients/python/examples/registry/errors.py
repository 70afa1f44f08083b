"""Why the registry refuses a change. `status` is HTTP's.

Refused
├── NotFound         404
└── Conflict         409
    ├── AlreadyThere
    └── NotImproved
"""

from typing import ClassVar


class Refused(Exception):
    """The change is not made, and the transaction must be rolled back."""

    status: ClassVar[int]


class NotFound(Refused):
    """What is to be changed is not there."""

    status = 404


class Conflict(Refused):
    """What is there forbids it."""

    status = 409


class AlreadyThere(Conflict):
    """A model has this name."""


class NotImproved(Conflict):
    """The metric is not better than its baseline."""
