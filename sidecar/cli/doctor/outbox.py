"""The check of the registry's outbox: whether its table can be read and emptied. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sidecar.cli.doctor.findings import OUTBOX_SECONDS
from sidecar.cli.doctor.report import Report
from sidecar.errors import SettingsError
from sidecar.format import count, duration
from sidecar.settings import OutboxSettings
from sidecar.tasks import in_daemon

if TYPE_CHECKING:
    from sqlalchemy import Engine

_ANSWER_SECONDS = 15.0


def check_outbox(report: Report, settings: OutboxSettings, environ: Mapping[str, str]) -> None:
    """The connection, the table, the rights, and the rows that wait or were refused."""
    if not settings.url:
        report.ok("outbox", "OUTBOX_URL is not set: this sidecar empties none")
        return
    try:
        from sidecar.cli.outbox import engine_of

        engine = engine_of(settings, environ)
    except (SettingsError, ImportError) as error:
        report.add("outbox-settings", str(error))
        return
    try:
        found = in_daemon("outbox", lambda: _look(engine)).result(_ANSWER_SECONDS)
    except TimeoutError:
        found = [("outbox-unreachable", f"the database does not answer within {_ANSWER_SECONDS:g} s")]
    except Exception as error:  # noqa: BLE001 - each driver has its own
        said = getattr(error, "orig", None) or error
        found = [("outbox-unreachable", " ".join(f"{type(said).__name__}: {said}".split()))]
    for finding, said in found:
        if finding:
            report.add(finding, said)
        else:
            report.ok("outbox", said)


def _look(engine: Engine) -> list[tuple[str, str]]:
    """Findings and what was found; one without a finding where all is well. Raises the driver's errors."""
    from sqlalchemy import delete, inspect, update
    from sqlalchemy.exc import DBAPIError

    from modelready.outbox import status, table

    with engine.connect() as connection:
        if not inspect(connection).has_table(table.name):
            return [("outbox-table", f"the database has no table {table.name}")]
        nothing = table.c.id < 0
        try:
            connection.execute(delete(table).where(nothing))
            connection.execute(update(table).where(nothing).values(error=None))
            state = status(connection)
        except DBAPIError as error:
            return [("outbox-rights", " ".join(str(error.orig).split()))]
        finally:
            connection.rollback()
    found = []
    if state.oldest_seconds > OUTBOX_SECONDS:
        found.append(
            ("outbox-waiting", f"{count(state.waiting, 'row')}, the oldest for {duration(int(state.oldest_seconds))}")
        )
    if state.failed:
        found.append(("outbox-refused", f"{count(state.failed, 'row')} refused"))
    place = f"{engine.url.host or ''}{'/' if engine.url.host else ''}{engine.url.database or ''}"
    return found or [("", f"{place} ({engine.dialect.name}): {count(state.waiting, 'row')}")]
