"""The tests that need MLflow run in an environment that has it: `make mlflow`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

WITHOUT_MLFLOW = {"test_facts.py", "test_reconciliation.py"}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Whether MLflow is missing for this file."""
    is_test = collection_path.name.startswith("test_") and collection_path.parent == Path(__file__).parent
    return True if is_test and collection_path.name not in WITHOUT_MLFLOW and not find_spec("mlflow") else None


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An SQLite file with MLflow's tables, which take seconds to make."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

    path = tmp_path_factory.mktemp("mlflow") / "made.db"
    SqlAlchemyStore(f"sqlite:///{path}").engine.dispose()
    return path.read_bytes()
