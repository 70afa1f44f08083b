"""The registry's HTTP API, and the relay of its outbox.

DATABASE_URL       the database, sqlite:///registry.db by default
MODELREADY_SIDECAR where the sidecar is, 127.0.0.1:50051 by default; Publisher.from_env has its other variables
SIDECAR_API_TOKEN  its token, where it asks for one
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, FiniteFloat
from sqlalchemy import select

from modelready import Publisher, outbox
from registry import changes
from registry.database import Session, engine
from registry.errors import NotFound, Refused
from registry.tables import Model, Promotion, Version

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\w.-]+$")]
Text = Annotated[str, Field(max_length=256)]


class NewModel(BaseModel):
    """A model without versions."""

    name: Name


class NewVersion(BaseModel):
    """What a training run leaves behind. A `ready` version is published at once, without a promotion."""

    uri: Annotated[str, Field(max_length=2048, pattern=r"^[^\x00-\x20\x7f-\x9f@?]+$")]  # nor a login, nor a signature
    digest: Annotated[str, Field(pattern=r"^$|^sha256:[0-9a-f]{64}$")] = ""
    framework: Annotated[str, Field(max_length=128)] = ""
    run_id: Text = ""
    metrics: Annotated[dict[Name, FiniteFloat], Field(max_length=100)] = {}
    ready: bool = False


class NewPromotion(BaseModel):
    """The version that an alias is to name; `must_improve` is the metric in which it must be better than the last."""

    version: int
    must_improve: Text = ""
    lower_is_better: bool = False
    approved_by: Text = ""


class NewRollback(BaseModel):
    """Why the version that an alias names is bad."""

    reason: Annotated[str, Field(max_length=4096)] = ""


class Named(BaseModel):
    """A version of a model and, where it was promoted, its alias."""

    name: str
    version: int
    alias: str = ""


class Known(BaseModel):
    """What the registry knows about a model."""

    name: str
    versions: list[int]
    aliases: dict[str, int]


class Health(BaseModel):
    """The outbox: events that wait, for how many seconds the oldest does, and those that the sidecar refused."""

    waiting: int
    oldest_seconds: float
    refused: int


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Begins in each worker, after a fork: so each has its own connection and its own relay."""
    with Publisher.from_env(source="//example-registry") as publisher, outbox.Relay(engine, publisher):
        yield
    engine.dispose()


app = FastAPI(title="Example registry", lifespan=lifespan)


@app.exception_handler(Refused)
def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": str(error)}, error.status)


# Each function commits before it returns. A dependency that commits after its `yield` does so when the answer is sent.


@app.post("/models", status_code=201)
def create_model(new: NewModel) -> Known:
    """Create a model."""
    with Session.begin() as session:
        changes.create_model(session, new.name)
    return Known(name=new.name, versions=[], aliases={})


@app.post("/models/{name}/versions", status_code=201)
def register(name: str, new: NewVersion) -> Named:
    """Register the model's next version."""
    with Session.begin() as session:
        version = changes.register(session, name, **new.model_dump())
        return Named(name=name, version=version.number)


@app.put("/models/{name}/aliases/{alias}")
def promote(name: str, alias: Name, new: NewPromotion) -> Named:
    """Let an alias name a version, and publish that."""
    with Session.begin() as session:
        changes.promote(
            session,
            name,
            alias,
            new.version,
            must_improve=new.must_improve,
            lower_is_better=new.lower_is_better,
            approved_by=new.approved_by,
        )
    return Named(name=name, version=new.version, alias=alias)


@app.post("/models/{name}/aliases/{alias}/rollback")
def roll_back(name: str, alias: str, new: NewRollback) -> Named:
    """Let an alias name the version that it named before, and publish that."""
    with Session.begin() as session:
        promotion = changes.roll_back(session, name, alias, reason=new.reason)
        return Named(name=name, version=promotion.version.number, alias=alias)


@app.get("/models/{name}")
def show(name: str) -> Known:
    """What the registry knows about a model."""
    with Session() as session:
        model = session.scalar(select(Model).where(Model.name == name))
        if model is None:
            raise NotFound(f"there is no model {name}")
        numbers = select(Version.number).where(Version.model_id == model.id).order_by(Version.number)
        promotions = (
            select(Promotion.alias, Version.number)
            .join(Version)
            .where(Version.model_id == model.id, Promotion.rolled_back_at.is_(None))
            .order_by(Promotion.id)
        )
        aliases = dict(session.execute(promotions).tuples().all())  # the newest of each is the last
        return Known(name=name, versions=list(session.scalars(numbers)), aliases=aliases)


@app.get("/healthz")
def health() -> Health:
    """Whether the database answers; and how much of the outbox is not published yet."""
    with engine.connect() as connection:
        status = outbox.status(connection)
    return Health(waiting=status.waiting, oldest_seconds=status.oldest_seconds, refused=status.failed)
