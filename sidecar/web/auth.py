"""Who is signed in (random cookies in memory, so a restart signs everybody out), and whether a request is local."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from modelready.redis.env import is_loopback

LIFETIME_SECONDS = 12 * 3600
_MAX_SESSIONS = 256
_MAX_FAILURES, _FAILURES_SECONDS = 10, 60.0
_MAX_PEERS = 1000


@dataclass
class Session:
    """One browser. `csrf`: what its forms must carry; `notice`: level and text that its next page shows once."""

    admin: bool
    ends: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    notice: tuple[str, str] | None = None


class Visitor(NamedTuple):
    """The sender of a request.

    `may_sign_in`: a token is set; `reads`: may see dead letters and consumers; `changes`: may change them.
    """

    session: Session | None
    may_sign_in: bool
    reads: bool
    changes: bool

    @property
    def csrf(self) -> str:
        """What forms must carry; empty without a session."""
        return self.session.csrf if self.session else ""


class Sessions:
    """Takes tokens, gives cookies. For one thread."""

    def __init__(self, token: str, admin_token: str) -> None:
        """`token`: SIDECAR_API_TOKEN, `admin_token`: SIDECAR_ADMIN_TOKEN; an empty one opens nothing."""
        self._tokens = {False: token.encode(), True: admin_token.encode()}
        self._sessions: dict[str, Session] = {}
        self._failures: dict[str, deque[float]] = {}

    @property
    def needed(self) -> bool:
        """Whether there is a token to sign in with."""
        return any(self._tokens.values())

    @property
    def admin_possible(self) -> bool:
        """Whether there is an admin token."""
        return bool(self._tokens[True])

    def visitor(self, request: Request) -> Visitor:
        """Who sent the request. Without tokens, this machine alone may read."""
        session = self.find(read_cookie(request))
        reads = session is not None if self.needed else is_loopback(peer(request).removeprefix("::ffff:"))
        return Visitor(session, self.needed, reads, session is not None and session.admin)

    def may_try(self, peer: str) -> bool:
        """Whether this address may try a token now: after ten wrong ones within a minute it has to wait."""
        failures = self._failures.get(peer)
        return not failures or len(failures) < _MAX_FAILURES or time.monotonic() - failures[0] > _FAILURES_SECONDS

    def sign_in(self, sent: str, peer: str) -> str | None:
        """The cookie of a new session; None where the token is wrong."""
        same = {admin: hmac.compare_digest(sent.encode(), token) for admin, token in self._tokens.items()}
        admin = next((admin for admin in (True, False) if self._tokens[admin] and same[admin]), None)
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
        session = self._sessions.get(cookie)
        if session is not None and session.ends < time.monotonic():
            del self._sessions[cookie]
            return None
        return session

    def sign_out(self, cookie: str) -> None:
        """End its session."""
        self._sessions.pop(cookie, None)


def peer(request: Request) -> str:
    """The address of the client."""
    return request.client.host if request.client else ""


def _cookie_name(request: Request) -> str:
    """One for each port: cookies ignore ports, and several sidecars may be forwarded to one localhost."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"modelready_{port if port.isdecimal() else '80'}"


def read_cookie(request: Request) -> str:
    """The session's cookie; empty where there is none."""
    return request.cookies.get(_cookie_name(request), "")


def set_cookie(request: Request, value: str, seconds: int) -> dict[str, str]:
    """The header that gives the browser the session's cookie for that many seconds."""
    about = f"Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    return {"Set-Cookie": f"{_cookie_name(request)}={value}; {about}"}


def is_own_name(host: str, listen: str) -> bool:
    """Whether `host`, the header, is an IP address, localhost or `listen`, the name in SIDECAR_HTTP_LISTEN.

    A site whose name its owner points at this address could otherwise read the page with its scripts.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name != "" and name in ("localhost", listen)
    return True


def is_same_origin(request: Request) -> bool:
    """Whether a form of this page sent it. A program that is no browser sends neither header."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    host = request.headers.get("host", "").lower()
    return site in ("same-origin", "none") and (origin is None or origin.lower().partition("://")[2] == host)
