"""A process that works on a spool until it is killed: `python -m tests.integration.spool_writer DIRECTORY`.

For each line on its standard input it forks a child and answers `pid <n>`. The child puts events in groups of 20 and
forgets 30 of the oldest after every third group, and says on standard output what has been done: `put <n>`, the
events up to number n; `forgot <n>`. (A fork is quicker than a start: the test kills many.)
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sidecar.publishing.interfaces import Attempts
from sidecar.spool.spool import SqliteSpool
from tests.fakes.events import events

GROUP = 20
FORGET = 30


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def work(directory: Path) -> None:
    spool = await SqliteSpool.open(directory, max_bytes=1 << 30)
    oldest = await spool.advance([], 1 << 30)
    number = int(oldest[-1].event_id.split("-")[1]) + 1 if oldest else 0
    while True:
        for _ in range(3):
            await spool.put(events(number, number + GROUP), Attempts())
            number += GROUP
            say(f"put {number - 1}")
        rows = await spool.advance([], FORGET, 1)
        await spool.advance([row.seq for row in rows], 0)
        say(f"forgot {int(rows[-1].event_id.split('-')[1])}")


def main() -> None:
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            asyncio.run(work(Path(sys.argv[1])))
        say(f"pid {child}")
        os.waitpid(child, 0)
        say("killed")


if __name__ == "__main__":
    main()
