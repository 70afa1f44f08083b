"""What changes the registry. Each function works in the caller's transaction, and the caller commits."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry.errors import AlreadyThere, Conflict, NotFound
from registry.model_registry_hooks import after_promotion, after_registration, must_have_improved
from registry.tables import Model, Promotion, Version


def create_model(session: Session, name: str) -> Model:
    """Create a model without versions. Raises AlreadyThere."""
    model = Model(name=name)
    session.add(model)
    try:
        session.flush()
    except IntegrityError as error:
        raise AlreadyThere(f"there is a model {name} already") from error
    return model


def register(
    session: Session,
    name: str,
    *,
    uri: str,
    digest: str = "",
    framework: str = "",
    run_id: str = "",
    metrics: dict[str, float] | None = None,
    ready: bool = False,
) -> Version:
    """Register the next version of a model; a `ready` one is published without a promotion. Raises NotFound."""
    model = _locked(session, name)
    last = session.scalar(select(func.max(Version.number)).where(Version.model_id == model.id))
    version = Version(
        model=model,
        number=(last or 0) + 1,
        uri=uri,
        digest=digest,
        framework=framework,
        run_id=run_id,
        metrics=metrics or {},
    )
    session.add(version)
    if ready:
        after_registration(session, version)
    return version


def promote(
    session: Session,
    name: str,
    alias: str,
    number: int,
    *,
    must_improve: str = "",
    lower_is_better: bool = False,
    approved_by: str = "",
) -> Promotion:
    """Let an alias name this version, and write the event. Nothing happens where it names the version already.

    With `must_improve`, the name of a metric, raises NotImproved unless the version's is better than that of the
    version which the alias names now. Raises NotFound.
    """
    model = _locked(session, name)
    version = session.scalar(select(Version).where(Version.model_id == model.id, Version.number == number))
    if version is None:
        raise NotFound(f"{name} has no version {number}")
    before = current(session, model, alias)
    if before is not None and before.version is version:
        return before
    previous = before.version if before else None
    evaluation = None
    if must_improve:
        evaluation = must_have_improved(version, previous, must_improve, lower_is_better=lower_is_better)
    promotion = Promotion(version=version, alias=alias, approved_by=approved_by)
    session.add(promotion)
    after_promotion(session, promotion, previous, evaluation)
    return promotion


def roll_back(session: Session, name: str, alias: str, *, reason: str = "") -> Promotion:
    """Let an alias name the version that it named before, and write the event. Raises NotFound or Conflict."""
    model = _locked(session, name)
    bad = current(session, model, alias)
    if bad is None:
        raise NotFound(f"{name} has no alias {alias}")
    bad.rolled_back_at = func.now()
    session.flush()
    promotion = current(session, model, alias)
    if promotion is None:
        raise Conflict(f"{name} had no version as {alias} before {bad.version.number}")
    after_promotion(session, promotion, bad.version, reason=reason)
    return promotion


def current(session: Session, model: Model, alias: str) -> Promotion | None:
    """The promotion that says which version the alias names."""
    return session.scalar(
        select(Promotion)
        .join(Version)
        .where(Version.model_id == model.id, Promotion.alias == alias, Promotion.rolled_back_at.is_(None))
        .order_by(Promotion.id.desc())
        .limit(1)
    )


def _locked(session: Session, name: str) -> Model:
    """The model. No other transaction changes it before the end of this one: its events are in the order of changes."""
    session.execute(update(Model).where(Model.name == name).values(changes=Model.changes + 1))
    model = session.scalar(select(Model).where(Model.name == name))
    if model is None:
        raise NotFound(f"there is no model {name}")
    return model
