"""The registry's tables. `python -m registry.tables` creates them, with the outbox's, in DATABASE_URL."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, String, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """Holds the metadata of the tables below."""


class Model(Base):
    """A model by its name."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(256), unique=True)
    changes: Mapped[int] = mapped_column(default=0)
    """Each change of the model counts it first, and so has the row's lock until its commit."""


class Version(Base):
    """A version of a model, which never changes."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey(Model.id))
    number: Mapped[int]
    uri: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(71))
    framework: Mapped[str] = mapped_column(String(128))
    run_id: Mapped[str] = mapped_column(String(256))
    metrics: Mapped[dict[str, float]] = mapped_column(JSON)
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())

    model: Mapped[Model] = relationship()


class Promotion(Base):
    """An alias was set. The newest promotion that is not rolled back has the alias's version."""

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey(Version.id))
    alias: Mapped[str] = mapped_column(String(256))
    approved_by: Mapped[str] = mapped_column(String(256))
    promoted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    rolled_back_at: Mapped[datetime | None]

    version: Mapped[Version] = relationship()


if __name__ == "__main__":
    from modelready import outbox
    from registry.database import engine

    Base.metadata.create_all(engine)
    outbox.metadata.create_all(engine)
