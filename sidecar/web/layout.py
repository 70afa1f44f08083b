"""What every page has around it, and in its headers: one style and one script, both inline and named by their hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import quote

from sidecar.web.auth import Session
from sidecar.web.http import Page
from sidecar.web.markup import Markup, html, join

_STYLE = files(__package__).joinpath("static", "page.css").read_text(encoding="utf-8")
_SCRIPT = files(__package__).joinpath("static", "page.js").read_text(encoding="utf-8")
_ICON = "data:image/svg+xml," + quote(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="#0b57b0"/>'
    '<path d="M3 8.5l3.5 3.5L13 5" fill="none" stroke="white" stroke-width="2"/></svg>'
)


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


_POLICY = "; ".join((
    "default-src 'none'",
    f"style-src {_hash(_STYLE)}",
    f"script-src {_hash(_SCRIPT)}",
    "img-src data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip
_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    # Not no-referrer, with which a browser would send no Origin with our own forms.
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - {queue}</title>
<link rel="icon" href="{icon}">
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<span class="name">model-ready sidecar <span class="soft">queue {queue}</span></span>
<nav aria-label="Pages"><ul>{links}</ul></nav>
{account}</header>
<main id="main" tabindex="-1">
<h1>{title}</h1>
{notice}{content}</main>
<footer>For programs: <a href="/metrics">/metrics</a>, <a href="/healthz">/healthz</a>, \
<a href="/readyz">/readyz</a></footer>
<script>{script}</script>
</body>
</html>
"""
_NOTICE = """<div class="notice {level}" role="status"><p>{text}</p></div>
"""
_SIGN_OUT = """<form method="post" action="/sign-out"><input type="hidden" name="csrf" value="{csrf}">\
<button class="plain">Sign out</button></form>
"""


class Visitor(NamedTuple):
    """Who looks. `may_sign_in`: there is a token to sign in with; `reads`: dead letters; `mends`: replays, discards."""

    session: Session | None
    may_sign_in: bool
    reads: bool
    mends: bool

    @property
    def csrf(self) -> str:
        """What forms must carry; empty without a session."""
        return self.session.csrf if self.session else ""


def page(
    visitor: Visitor,
    queue: str,
    path: str,
    title: str,
    content: Markup,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Sequence[tuple[str, str]] = (),
) -> Page:
    """Return a whole page. `path`: its own, which the navigation marks."""
    notice = Markup()
    if visitor.session is not None and visitor.session.notice is not None:
        level, text = visitor.session.notice
        notice = html(_NOTICE, level=level, text=text)
        visitor.session.notice = None
    body = html(
        _PAGE,
        title=title,
        queue=queue.strip("{}"),
        icon=Markup(_ICON),
        style=Markup(_STYLE),
        script=Markup(_SCRIPT),
        links=join(_link(where, name, path) for where, name in (("/", "Overview"), ("/dead-letters", "Dead letters"))),
        account=_account(visitor, path),
        notice=notice,
        content=content,
    )
    return Page(status, "text/html; charset=utf-8", body.encode(), (*_HEADERS, *headers))


def redirect(where: str, headers: Sequence[tuple[str, str]] = ()) -> Page:
    """Send the browser on, with GET. `where`: a path of this site."""
    return Page(HTTPStatus.SEE_OTHER, "text/plain; charset=utf-8", b"", (*_HEADERS, ("Location", where), *headers))


def refusal(status: HTTPStatus, text: str, headers: Sequence[tuple[str, str]] = ()) -> Page:
    """Return one line, for requests that no form of ours makes."""
    return Page(status, "text/plain; charset=utf-8", text.encode() + b"\n", (*_HEADERS, *headers))


def _link(where: str, name: str, path: str) -> Markup:
    current = Markup(' aria-current="page"') if where == path else Markup()
    return html('<li><a href="{where}"{current}>{name}</a></li>', where=where, current=current, name=name)


def _account(visitor: Visitor, path: str) -> Markup:
    if visitor.session is not None:
        return html(_SIGN_OUT, csrf=visitor.csrf)
    if visitor.may_sign_in and path != "/sign-in":
        return Markup('<a href="/sign-in">Sign in</a>\n')
    return Markup()
