"""One request, taken apart, and whether a page of ours may have made it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from sidecar.operations.dead_letters import Filter
from sidecar.web.gone import MAX_IDS
from sidecar.web.http import Request
from sidecar.web.layout import Visitor

_NEXT = re.compile(r"/(dead-letters(/\d{1,20}-\d{1,20})?)?", re.ASCII)


class Visit(NamedTuple):
    """One request, taken apart. `fields`: of the query or of the form."""

    request: Request
    path: str
    fields: Mapping[str, list[str]]
    cookie: str
    visitor: Visitor

    def field(self, name: str) -> str:
        """The first value; empty where there is none."""
        return self.fields.get(name, [""])[0].strip()

    @property
    def selected(self) -> Filter:
        """What the search form selects."""
        return Filter(
            text=self.field("text"), reason=self.field("reason"), model=self.field("model"), origin=self.field("origin")
        )

    @property
    def next(self) -> str:
        """Where a sign-in leads: a page of ours."""
        where = self.field("next")
        return where if _NEXT.fullmatch(where) else "/"


def is_ours(host: str, listen: str) -> bool:
    """Whether the name is our own: under any other, which somebody points here, their scripts could read this.

    `host`: the header; `listen`: the name in SIDECAR_HTTP_LISTEN.
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


def parse_form(text: str) -> dict[str, list[str]]:
    """The fields of a query or a form. Raises ValueError, also where they are more than any form of ours has."""
    return parse_qs(text, max_num_fields=MAX_IDS + 20)


def _cookie_name(request: Request) -> str:
    """One for each port: cookies do not tell ports apart, and several sidecars may be forwarded to one localhost."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"modelready_{port if port.isdecimal() else '80'}"


def read_cookie(request: Request) -> str:
    """The session's; empty where there is none."""
    name = _cookie_name(request)
    for part in request.headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def set_cookie(request: Request, value: str, seconds: int) -> tuple[str, str]:
    """The header that gives it to the browser for so many seconds."""
    name = _cookie_name(request)
    return "Set-Cookie", f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"


def is_same_origin(request: Request) -> bool:
    """Whether a page of ours made it. A program that is no browser sends neither header."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    host = request.headers.get("host", "").lower()
    return site in ("same-origin", "none") and (origin is None or origin.lower().partition("://")[2] == host)
