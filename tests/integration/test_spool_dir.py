"""A SPOOL_DIR that cannot be used: the error says what it may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.embedded import embedded_redis
from sidecar.errors import SettingsError
from sidecar.spool.spool import SqliteSpool

ALLOWED = "it may be a path on a local disk, not EFS or NFS, that this user may write to"


@pytest.fixture(params=["below a file", "in proc"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    if request.param == "in proc":
        return Path("/proc/self/spool"), "No such file or directory"
    (tmp_path / "file").touch()
    return tmp_path / "file" / "spool", "Not a directory"


async def test_the_spool_says_what_it_may_be(unusable: tuple[Path, str]) -> None:
    path, problem = unusable
    with pytest.raises(SettingsError, match=f"^SPOOL_DIR {path}: {problem}; {ALLOWED}$"):
        await SqliteSpool.open(path, max_bytes=1 << 30)


async def test_the_embedded_server_says_what_it_may_be(unusable: tuple[Path, str]) -> None:
    path, problem = unusable
    with pytest.raises(SettingsError, match=f"^SPOOL_DIR is '{path}': {problem}; {ALLOWED}$"):
        async with embedded_redis({"SPOOL_DIR": str(path)}):
            pass
