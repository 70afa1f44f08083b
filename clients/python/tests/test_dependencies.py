"""What the client needs: grpcio and protobuf to publish, redis to consume, and neither more nor earlier."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import grpc
import pytest

import modelready
from clients.python.tests.fake_sidecar import FakeSidecar, failure

NEEDED = ("grpc", "google/protobuf", "google/_upb", "typing_extensions.py")
SOURCE = Path(modelready.__file__).parent.parent


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A place with the two distributions that the client depends on, and theirs, and no other."""
    (tmp_path / "google").mkdir()
    installed = Path(sysconfig.get_paths()["platlib"])
    for name in NEEDED:
        (tmp_path / name).symlink_to(installed / name)
    return tmp_path


def run(bare: Path, code: str) -> subprocess.CompletedProcess[str]:
    """In a Python that sees the standard library, the client and `bare` alone."""
    paths = f"import sys; sys.path += [{str(SOURCE)!r}, {str(bare)!r}]\n"
    command = [sys.executable, "-I", "-S", "-c", paths + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_publishing_needs_grpcio_and_protobuf_alone(bare: Path, sidecar: FakeSidecar) -> None:
    code = f"""
import modelready.aio
from modelready import Publisher, model_ready
with Publisher({sidecar.address!r}) as publisher:
    print(publisher.publish(name="fraud", version="7", uri="s3://m/").outcome)
    print([result.outcome.value for result in publisher.publish_many([model_ready(name="m", version=1, uri="u")])])
print({{"redis", "google.rpc", "protovalidate"}} & sys.modules.keys())
"""
    done = run(bare, code)
    assert done.stdout.splitlines() == ["stored", "['stored']", "set()"], done.stderr


def test_errors_have_their_details_without_google_s_package(bare: Path, sidecar: FakeSidecar) -> None:
    sidecar.failures.append(failure(grpc.StatusCode.INVALID_ARGUMENT, violations=[("event.model.name", "is required")]))
    code = f"""
from modelready import InvalidEvent, Publisher
try:
    Publisher({sidecar.address!r}).publish(name="", version="7", uri="s3://m/")
except InvalidEvent as error:
    print(error.message)
"""
    done = run(bare, code)
    assert done.stdout == "event.model.name: is required\n", done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "import modelready.consumer",
        "from modelready.aio import Consumer",
        "import modelready.seen",
        "from modelready.testing import FakeQueue",
    ],
)
def test_without_redis_the_extra_is_named(bare: Path, statement: str) -> None:
    done = run(bare, statement)
    assert (
        "ImportError: the consumer needs redis: pip install 'modelready[consumer]', or 'modelready[testing]'"
        in done.stderr
    )


def test_without_the_kit_s_extra_it_is_named(bare: Path) -> None:
    done = run(bare, "from modelready.testing import FakeSidecar; FakeSidecar().start()")
    assert "ImportError: the test kit needs its extra: pip install 'modelready[testing]'" in done.stderr


def test_without_sqlalchemy_the_extra_is_named(bare: Path) -> None:
    done = run(bare, "from modelready import outbox")
    assert "ImportError: the outbox needs SQLAlchemy: pip install 'modelready[sqlalchemy]'" in done.stderr


def test_mlflow_is_imported_by_its_plug_in_alone(bare: Path) -> None:
    done = run(bare, "import modelready.mlflow; print({'mlflow', 'sqlalchemy', 'yaml'} & sys.modules.keys())")
    assert done.stdout == "set()\n", done.stderr
    done = run(bare, "import modelready.reconcile as command; sys.exit(command.main(['--state', 'state.json']))")
    assert done.returncode == 2
    assert "pip install 'modelready[mlflow]'" in done.stderr
