"""The recipes of docs/registries.md run as they stand, but for addresses: with a real gunicorn, Celery and Django."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from clients.python.tests.fake_sidecar import FakeSidecar, arrived
from clients.python.tests.outbox.documents import examples
from modelready import Publisher, outbox
from tests.harness.child import Child
from tests.harness.databases import on, status
from tests.harness.ports import LOOPBACK, PortLease
from tests.harness.waiting import patience, until

DATABASE = "postgresql+psycopg://registry@localhost/registry"

DJANGO_SETTINGS = """
import os
from sqlalchemy import make_url

url = make_url(os.environ["URL"])
kind = "sqlite3" if url.drivername == "sqlite" else "postgresql"
DATABASES = {"default": {
    "ENGINE": f"django.db.backends.{kind}",
    "NAME": url.database, "HOST": url.host or "", "PORT": str(url.port or ""), "USER": url.username or "",
}}
INSTALLED_APPS = ["shop"]
"""

DJANGO_SCRIPT = """
import django
django.setup()

from django.core.management import call_command
from django.db import transaction
from shop.versions import register

call_command("migrate", "shop")
register("fraud", "7", "s3://m/")
try:
    with transaction.atomic():
        register("fraud", "8", "s3://m/")
        raise LookupError
except LookupError:
    pass
register("fraud", "9", "s3://m/")
"""


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a module of Python in the test's directory; what still runs is killed at the end."""
    children: list[Child] = []

    def start(*command: str, **env: str) -> Child:
        child = Child(
            [sys.executable, *command],
            tmp_path / "log",
            {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path), **env},
        )
        children.append(child)
        child.start()
        return child

    yield start
    for child in children:
        child.kill()


def write(directory: Path, name: str, code: str, sidecar: FakeSidecar, url: str = "") -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code.replace("127.0.0.1:50051", sidecar.address).replace(DATABASE, url))


@pytest.mark.parametrize("options", [[], ["--preload"], ["--threads", "4"]], ids=" ".join)
@on("sqlite")
def test_flask_under_gunicorn(
    url: str, options: list[str], tmp_path: Path, sidecar: FakeSidecar, spawn: Callable[..., Child]
) -> None:
    pytest.importorskip("gunicorn")
    (flask,), (gunicorn,) = examples("Flask"), examples("Gunicorn: a relay in each worker")
    write(tmp_path, "app.py", flask, sidecar, url)
    write(tmp_path, "gunicorn.conf.py", gunicorn, sidecar)
    outbox.metadata.create_all(create_engine(url))
    lease = PortLease()
    address = f"{LOOPBACK}:{lease.port}"
    server = spawn(
        "-m", "gunicorn", "-c", f"{tmp_path}/gunicorn.conf.py", "-w", "2", "-b", address, *options, "app:app"
    )

    def register(version: int) -> bool:
        request = urllib.request.Request(
            f"http://{address}/models/fraud/versions/{version}",
            json.dumps({"uri": "s3://m/"}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.status == 201)

    until(lambda: register(1), 30, f"gunicorn answers\n{server.tail()}")
    assert register(2)
    arrived(sidecar, 1, 2)
    assert server.terminate(30) == 0
    assert "Traceback" not in server.output()
    lease.release()


@on("sqlite")
def test_celery_prefork(url: str, tmp_path: Path, sidecar: FakeSidecar, spawn: Callable[..., Child]) -> None:
    pytest.importorskip("celery")
    (code,) = examples("Celery")
    for folder in ("queue", "processed"):
        (tmp_path / folder).mkdir()
    code = code.replace("redis://localhost/1", "filesystem://")  # a broker that needs no server
    code += f"""
app.conf.broker_transport_options = {{
    "data_folder_in": "{tmp_path}/queue", "data_folder_out": "{tmp_path}/queue", "control_folder": "{tmp_path}",
}}
"""
    write(tmp_path, "training.py", code, sidecar, url)
    engine = create_engine(url)
    outbox.metadata.create_all(engine)
    options = ["-P", "prefork", "-c", "2", "--without-mingle", "--without-gossip", "--without-heartbeat"]
    worker = spawn("-m", "celery", "-A", "training", "worker", *options)
    send = (
        "import training\n"
        "for version in (7, 7, 8): training.register.apply_async(('fraud', version, 's3://m/'), task_id=f't{version}')"
    )
    assert spawn("-c", send).process.wait(patience(30)) == 0
    until(lambda: {event.model.version for event in sidecar.entries} == {"7", "8"}, 60, worker.tail())
    until(lambda: status(engine).waiting == 0, 30, "the outbox is empty")
    assert len(sidecar.entries) == 2
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(patience(30)) == 0, worker.tail()


@on("sqlite", "postgresql+psycopg")
def test_django(url: str, tmp_path: Path, sidecar: FakeSidecar, spawn: Callable[..., Child]) -> None:
    pytest.importorskip("django")
    versions, migration = examples("Django")
    for package in ("shop", "shop/migrations"):
        write(tmp_path, f"{package}/__init__.py", "", sidecar)
    write(tmp_path, "shop/versions.py", versions, sidecar)
    write(tmp_path, "shop/migrations/0001_outbox.py", migration, sidecar)
    write(tmp_path, "shop_settings.py", DJANGO_SETTINGS, sidecar)
    engine = create_engine(url)
    outbox.metadata.drop_all(engine)
    script = spawn("-c", DJANGO_SCRIPT, DJANGO_SETTINGS_MODULE="shop_settings", URL=url)
    assert script.process.wait(patience(60)) == 0, script.tail()
    with Publisher(sidecar.address) as publisher:
        assert outbox.Relay(engine, publisher).run_once() == 2
    arrived(sidecar, 7, 9)
    engine.dispose()
