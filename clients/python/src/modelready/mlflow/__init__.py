"""The MLflow plug-in: an event is committed with the change of MLflow's registry, or neither is.

    mlflow server --registry-store-uri modelready+postgresql://user:password@host/mlflow …

MLflow finds `store` through an entry point. It is imported by every process that has MLflow and this client, so it
imports nothing until MLflow asks for a store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore


def store(store_uri: str, tracking_uri: str | None = None) -> SqlAlchemyStore:  # noqa: ARG001 - MLflow's signature
    """MLflow's SQL store of the registry in `modelready+<database URL>`, which writes the outbox, too."""
    from modelready.mlflow.registry_store import make  # noqa: PLC0415

    return make(store_uri)
