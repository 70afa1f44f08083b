"""The plug-in for pytest: what a test of a registry gets without an import, and what others pay for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEST = """
import asyncio
import modelready.aio
from modelready import Outcome, Publisher

FRAUD = {"name": "fraud", "version": "7", "uri": "s3://models/fraud/7/"}


def test_publisher(publisher, published):
    publisher.publish(**FRAUD)
    assert [event.model.name for event in published] == ["fraud"]


def test_from_env(fake_sidecar, published):
    fake_sidecar.answer(Outcome.SPOOLED)
    with Publisher.from_env() as publisher:
        assert publisher.publish(**FRAUD).outcome is Outcome.SPOOLED
    assert len(published) == 1


def test_asyncio(aio_publisher, published):
    async def main():
        async with aio_publisher:
            await aio_publisher.publish(**FRAUD)

    asyncio.run(main())
    assert len(published) == 1
"""
IDLE = """
import sys


def test_nothing_is_imported():
    assert "pytest_modelready" in sys.modules
    assert not {"modelready", "grpc", "redis", "google.protobuf", "protovalidate"} & sys.modules.keys()
"""


def test_its_fixtures_are_found_and_without_them_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_idle.py").write_text(IDLE)
    (tmp_path / "test_kit.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    for name, passed in (("test_idle.py", "1 passed"), ("test_kit.py", "3 passed")):
        done = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert passed in done.stdout, done.stdout + done.stderr
