"""A registry that registers versions until it is killed: python -m clients.python.tests.outbox.writer URL NAME LOG.

Of each event it logs `begun`, and then `committed` or `rolled-back` when the database has said so.
"""

from __future__ import annotations

import itertools
import os
import sys
import time

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from modelready import outbox
from modelready.ids import uuid7


def main() -> None:
    url, name, path = sys.argv[1:]
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(word: str, ids: list[str]) -> None:
        os.write(log, "".join(f"{word} {one}\n" for one in ids).encode())

    engine = create_engine(url, pool_pre_ping=True)
    for number in itertools.count():
        ids = [uuid7(), uuid7()]
        note("begun", ids)
        try:
            with Session(engine) as session:
                for one in ids:
                    version = time.time_ns()
                    outbox.add(session, event_id=one, name=f"{name}-{number % 3}", version=version, uri="s3://m/")
                if number % 5 == 4:
                    session.flush()
                    session.rollback()
                    note("rolled-back", ids)
                else:
                    session.commit()
                    note("committed", ids)
        except SQLAlchemyError:
            pass  # the database is away: whether it committed is not known
        time.sleep(0.02)  # the rest of the registry's work


if __name__ == "__main__":
    main()
