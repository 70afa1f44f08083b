"""Tokens are compared in constant time, by `hmac.compare_digest` alone; what a handler raises becomes a status."""

import logging
from typing import Any

import grpc.aio
import pytest

from sidecar.rpc.auth import Guard, Places, answered
from sidecar.web.auth import Sessions


class Refused(Exception):
    """How the call ended."""


class Call:
    """One with a token."""

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def abort_with_status(self, status: Any) -> None:
        raise Refused(status.details)


@pytest.fixture
def all_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmac.compare_digest", lambda *_: False)


async def test_the_right_tokens_are_taken() -> None:
    guard = Guard("api-token", "admin-token", most_calls=1)
    for token in ("api-token", "admin-token"):
        await guard._authenticate(Call(token))  # type: ignore[arg-type]
    assert Sessions("api-token", "admin-token").sign_in("admin-token", "127.0.0.1")


@pytest.mark.usefixtures("all_differ")
async def test_and_not_where_that_comparison_says_no() -> None:
    guard = Guard("api-token", "admin-token", most_calls=1)
    for token in ("api-token", "admin-token"):
        with pytest.raises(Refused):
            await guard._authenticate(Call(token))  # type: ignore[arg-type]
    assert Sessions("api-token", "admin-token").sign_in("admin-token", "127.0.0.1") is None


async def test_a_client_that_left_while_it_was_answered_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    async def write_to_nobody(_: object) -> None:
        raise grpc.aio.InternalError("Failed grpc_call_start_batch: 8")

    caplog.set_level(logging.DEBUG)
    with pytest.raises(grpc.aio.InternalError):  # grpc's own, which it drops; no status is sent
        await answered(write_to_nobody, Places(1))(None, Call(""))  # type: ignore[arg-type]
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
