"""Who is signed in: random cookies in memory. A restart signs everybody out."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field

LIFETIME_SECONDS = 12 * 3600
_MAX_SESSIONS = 256
_MAX_FAILURES, _FAILURES_SECONDS = 10, 60.0
_MAX_PEERS = 1000


@dataclass
class Session:
    """One browser. `csrf`: what its forms must carry; `notice`: what its next page says, once, and its level."""

    admin: bool
    ends: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    notice: tuple[str, str] | None = None


class Sessions:
    """Takes tokens, gives cookies. From any thread."""

    def __init__(self, token: str, admin_token: str) -> None:
        """`token`: SIDECAR_API_TOKEN, `admin_token`: SIDECAR_ADMIN_TOKEN; one that is empty opens nothing."""
        self._tokens = {False: token.encode(), True: admin_token.encode()}
        self._sessions: dict[str, Session] = {}
        self._failures: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    @property
    def needed(self) -> bool:
        """Whether there is a token to sign in with."""
        return any(self._tokens.values())

    @property
    def admin_possible(self) -> bool:
        """Whether there is an admin token."""
        return bool(self._tokens[True])

    def may_try(self, peer: str) -> bool:
        """Whether this address may try a token now: after ten wrong ones within a minute it has to wait."""
        with self._lock:
            failures = self._failures.get(peer)
            return not failures or len(failures) < _MAX_FAILURES or time.monotonic() - failures[0] > _FAILURES_SECONDS

    def sign_in(self, sent: str, peer: str) -> str | None:
        """The cookie of a new session; None where the token is wrong."""
        same = {admin: hmac.compare_digest(sent.encode(), token) for admin, token in self._tokens.items()}
        admin = next((admin for admin in (True, False) if self._tokens[admin] and same[admin]), None)
        with self._lock:
            if admin is None:
                if peer not in self._failures and len(self._failures) >= _MAX_PEERS:
                    del self._failures[next(iter(self._failures))]
                self._failures.setdefault(peer, deque(maxlen=_MAX_FAILURES)).append(time.monotonic())
                return None
            if len(self._sessions) >= _MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            cookie = secrets.token_urlsafe(32)
            self._sessions[cookie] = Session(admin, time.monotonic() + LIFETIME_SECONDS)
            return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie; None where it has ended or never was."""
        with self._lock:
            session = self._sessions.get(cookie)
            if session is not None and session.ends < time.monotonic():
                del self._sessions[cookie]
                return None
            return session

    def sign_out(self, cookie: str) -> None:
        """End it."""
        with self._lock:
            self._sessions.pop(cookie, None)
