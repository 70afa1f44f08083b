"""Tokens are compared by `hmac.compare_digest` alone, which takes as long however much of one is right."""

from typing import Any

import pytest

from sidecar.rpc.auth import Guard
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
