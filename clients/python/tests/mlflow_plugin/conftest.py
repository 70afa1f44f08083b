"""The tests that need MLflow run in an environment that has it: `make mlflow`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from clients.python.tests.outbox.databases import server
from tests.harness.database_server import DatabaseServer

WITHOUT_MLFLOW = {"test_facts.py", "test_reconciliation.py"}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Whether MLflow is missing for this file."""
    is_test = collection_path.name.startswith("test_") and collection_path.parent == Path(__file__).parent
    return True if is_test and collection_path.name not in WITHOUT_MLFLOW and not find_spec("mlflow") else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DatabaseServer]:
    with server("postgresql") as started:
        yield started
