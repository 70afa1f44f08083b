"""What the registry calls when a version is ready: the check before, and the event after."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.orm import Session

from modelready import outbox
from registry.errors import NotImproved
from registry.tables import Promotion, Version


def after_registration(session: Session, version: Version) -> None:
    """The hook after a registration: the event commits with the version, or neither does."""
    name, number = version.model.name, version.number
    outbox.add(session, name=name, version=number, uri=version.uri, digest=version.digest, metrics=version.metrics)


class Evaluation(NamedTuple):
    """Why a version is ready. `baseline` is None where it is the first."""

    metric: str
    baseline: float | None
    value: float


def after_promotion(
    session: Session,
    promotion: Promotion,
    previous: Version | None,
    evaluation: Evaluation | None = None,
    reason: str = "",
) -> str:
    """Write the event into the session's transaction; return its id. Deployers roll back to `previous`."""
    version = promotion.version
    return outbox.add(
        session,
        name=version.model.name,
        version=version.number,
        uri=version.uri,
        digest=version.digest,
        framework=version.framework,
        run_id=version.run_id,
        metrics=version.metrics,
        alias=promotion.alias,
        previous_version=previous.number if previous else "",
        approved_by=promotion.approved_by,
        reason=reason,
        metric_name=evaluation.metric if evaluation else "",
        baseline_value=evaluation.baseline if evaluation else None,
        current_value=evaluation.value if evaluation else None,
    )


def must_have_improved(
    version: Version, baseline: Version | None, metric: str, *, lower_is_better: bool = False
) -> Evaluation:
    """Raise NotImproved unless the version's metric is better than the baseline's. The first needs the metric alone."""
    value = version.metrics.get(metric)
    if value is None:
        raise NotImproved(f"{version.model.name} {version.number} has no metric {metric}")
    if baseline is None:
        return Evaluation(metric, None, value)
    known = baseline.metrics.get(metric)
    if known is None:
        raise NotImproved(f"{version.model.name} {baseline.number}, the baseline, has no metric {metric}")
    if (value >= known) if lower_is_better else (value <= known):
        raise NotImproved(
            f"{metric} of {version.model.name} {version.number} is {value}, "
            f"no better than {known} of version {baseline.number}"
        )
    return Evaluation(metric, known, value)
