"""The routes of the page, and who may use them.

The overview needs no token: /metrics and /readyz show the same. Dead letters and consumers are shown after a sign-in
with SIDECAR_API_TOKEN or SIDECAR_ADMIN_TOKEN; if neither is set, only on this machine. Changes need a sign-in with
SIDECAR_ADMIN_TOKEN; if that is not set, they do not exist.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from sidecar.errors import InvalidRequest, NotFound, SidecarError
from sidecar.operations.dead_letters import MAX_IDS, DeadLetters, Filter, Outcome, Page
from sidecar.operations.groups import Groups
from sidecar.operations.interfaces import StoredDeadLetter
from sidecar.settings import ServerSettings
from sidecar.web import pages
from sidecar.web.auth import LIFETIME_SECONDS, Session, Sessions, peer, read_cookie, set_cookie
from sidecar.web.calls import Busy, SidecarCalls
from sidecar.web.dead_letters import describe, search
from sidecar.web.groups import ACTIONS, GroupForms
from sidecar.web.history import History
from sidecar.web.overview import overview
from sidecar.web.visit import Visit, read_form

log = logging.getLogger(__name__)

_MAX_REQUESTS = 8  # at the same time; probes and metrics have no such bound
_NEWEST, _PAGE_SIZE = 20, 50
_NEXT = re.compile(r"/(groups|dead-letters(/\d{1,20}-\d{1,20})?)?", re.ASCII)  # where a sign-in may lead
_ONLY_HERE = (
    "Dead letters and consumers are shown to this machine alone, since neither SIDECAR_API_TOKEN nor "
    "SIDECAR_ADMIN_TOKEN is set to sign in with."
)


class About(NamedTuple):
    """Which sidecar this is: the queue's name, its own, its version, and host and port of its Redis."""

    queue: str
    name: str
    version: str
    redis: str


class _EntryId(StringConvertor):
    regex = "[0-9]{1,20}-[0-9]{1,20}"


register_url_convertor("entry_id", _EntryId())


class Console:
    """The handlers."""

    def __init__(
        self,
        calls: SidecarCalls,
        dead_letters: DeadLetters,
        groups: Groups,
        history: History,
        *,
        settings: ServerSettings,
        about: About,
    ) -> None:
        self._calls = calls
        self._dead_letters = dead_letters
        self._groups = GroupForms(calls, groups)
        self._history = history
        self._about = about
        self._sessions = Sessions(settings.api_token, settings.admin_token)
        self._under_way = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        app = Starlette(
            routes=[
                self._route("/", self._overview),
                self._route("/groups", self._list_groups),
                *(self._route(f"/groups/{action}", self._change_group, "POST") for action in ACTIONS),
                self._route("/dead-letters", self._list),
                self._route("/dead-letters/{id:entry_id}", self._letter),
                self._route("/dead-letters/replay", self._change, "POST"),
                self._route("/dead-letters/discard", self._change, "POST"),
                self._route("/sign-in", self._ask_token),
                self._route("/sign-in", self._sign_in, "POST"),
                self._route("/sign-out", self._sign_out, "POST"),
            ],
            exception_handlers={HTTPException: self._refused, SidecarError: self._failed},
        )
        app.router.redirect_slashes = False
        return app

    def _route(self, path: str, handler: Callable[[Visit], Awaitable[Response]], method: str = "GET") -> Route:
        async def answer(request: Request) -> Response:
            fields = await read_form(request) if method == "POST" else request.query_params
            if self._under_way >= _MAX_REQUESTS:
                raise HTTPException(503, "too many requests at the same time")
            self._under_way += 1
            try:
                return await handler(Visit(request, fields, self._sessions.visitor(request)))
            finally:
                self._under_way -= 1

        return Route(path, answer, methods=[method])

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.method == "POST" and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            error = HTTPException(404, "not found")
        elif error.status_code == HTTPStatus.NOT_FOUND and request.method != "POST":
            return await self._message(request, HTTPStatus.NOT_FOUND, "Not found", "There is no such page.")
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)

    async def _failed(self, request: Request, error: Exception) -> Response:
        if isinstance(error, NotFound):
            text = "It was replayed or discarded in the meantime, or never existed."
            return await self._message(request, HTTPStatus.NOT_FOUND, "There is no such dead letter", text)
        if isinstance(error, InvalidRequest):
            return await self._message(request, HTTPStatus.BAD_REQUEST, "The request is not valid", str(error))
        return await self._message(request, HTTPStatus.SERVICE_UNAVAILABLE, "Not now", str(error))

    # -- the pages

    async def _overview(self, visit: Visit) -> Response:
        status = await self._calls.status()
        shown = overview(status, self._history.samples(), self._about.redis, whole=visit.visitor.reads)
        newest: dict[str, Any] = {"letters": [], "unknown": "", "more": False}
        if not visit.visitor.reads:
            newest["unknown"] = "" if self._sessions.needed else _ONLY_HERE
        elif not status.redis_up:
            newest["unknown"] = "Not known while Redis does not answer."
        else:
            try:
                letters, token = await self._find(Filter(), _NEWEST)
                newest |= {"letters": letters, "more": bool(token)}
            except SidecarError as error:
                newest["unknown"] = f"Not known: {error}"
        return await self._page(visit.request, "overview", "Overview", **shown, **newest, **search(Filter(), status))

    async def _list(self, visit: Visit) -> Response:
        if refused := await self._may_not_read(visit):
            return refused
        selected, status = visit.selected, await self._calls.status()
        letters, token = await self._find(selected, _PAGE_SIZE, visit.field("page"))
        found = search(selected, status)
        seen = int(visit.field("seen")) if visit.field("seen").isdecimal() and len(visit.field("seen")) < 10 else 0
        older = {**found["chosen"], "page": token, "seen": seen + len(letters)}
        return await self._page(
            visit.request, "dead_letters", "Dead letters", letters=letters, seen=seen,
            older=f"/dead-letters?{urlencode(older)}" if token else "", **found,
        )  # fmt: skip

    async def _letter(self, visit: Visit) -> Response:
        if refused := await self._may_not_read(visit):
            return refused
        letter = await self._calls.read(lambda: self._dead_letters.get(visit.request.path_params["id"]))
        title = f"Dead letter: {letter.subject or letter.event_id or letter.id}"
        return await self._page(visit.request, "dead_letter", title, letter=letter)

    async def _may_not_read(self, visit: Visit) -> Response | None:
        if visit.visitor.reads:
            return None
        if self._sessions.needed:
            return _redirect(f"/sign-in?next={quote(visit.request.scope['path'])}")
        return await self._message(visit.request, HTTPStatus.FORBIDDEN, "Not shown here", _ONLY_HERE)

    # -- replay and discard

    def _admin(self, visit: Visit) -> Session:
        """The session of one who may change something. Raises HTTPException."""
        if not self._sessions.admin_possible:
            raise HTTPException(404, "changes are off: SIDECAR_ADMIN_TOKEN is not set")
        visit.check_csrf()
        session = visit.visitor.session
        if session is None or not session.admin:
            raise HTTPException(403, "this needs a sign-in with SIDECAR_ADMIN_TOKEN")
        return session

    async def _change(self, visit: Visit) -> Response:
        """Ask, and when that is confirmed, do it."""
        session = self._admin(visit)
        action = visit.path.rpartition("/")[2]
        ids = [*visit.fields.getlist("id"), *",".join(visit.fields.getlist("ids")).split(",")]
        ids = [one for one in ids if one]
        if not visit.field("confirm"):
            return await self._confirm(visit, action, ids)
        try:
            everyone = visit.field("target") == "all"
            if action == "replay":
                done = await self._calls.write(lambda: self._replay(ids, everyone=everyone, dry_run=False))
            else:
                done = await self._calls.write(lambda: self._dead_letters.discard(ids, dry_run=False))
            session.notice = "ok", describe(action, done)
        except Busy as error:
            session.notice = "warning", f"Not done yet: {error}."
        return _redirect("/dead-letters")

    async def _confirm(self, visit: Visit, action: str, ids: list[str]) -> Response:
        more_match = False
        if visit.field("all"):
            letters, token = await self._find(visit.selected, MAX_IDS, newest_first=False)
            more_match = bool(token)
        else:
            letters = await self._calls.read(lambda: self._get_all(ids))
        if not letters:
            text = "None is selected, or they are gone already."
            return await self._message(visit.request, HTTPStatus.BAD_REQUEST, f"Nothing to {action}", text)
        ids = [letter.id for letter in letters]
        replays = []
        for everyone in (False, True) if action == "replay" else ():
            work = partial(self._replay, ids, everyone=everyone, dry_run=True)
            replays.append(await self._calls.read(work))
        return await self._page(
            visit.request, "confirm", f"{action.capitalize()}?", action=action, letters=letters, more_match=more_match,
            replays=replays,
        )  # fmt: skip

    async def _find(self, selected: Filter, size: int, token: str = "", *, newest_first: bool = True) -> Page:
        return await self._calls.read(lambda: self._dead_letters.list(selected, size, token, newest_first=newest_first))

    async def _get_all(self, ids: Sequence[str]) -> list[StoredDeadLetter]:
        """Those that are there."""
        found = []
        for letter_id in ids[:MAX_IDS]:
            with suppress(NotFound):
                found.append(await self._dead_letters.get(letter_id))
        return found

    async def _replay(self, ids: Sequence[str], *, everyone: bool, dry_run: bool) -> Outcome:
        return await self._dead_letters.replay(ids, everyone=everyone, dry_run=dry_run, max_per_second=0)

    # -- groups

    async def _list_groups(self, visit: Visit) -> Response:
        if refused := await self._may_not_read(visit):
            return refused
        return await self._page(visit.request, "groups", "Groups", **await self._groups.listed())

    async def _change_group(self, visit: Visit) -> Response:
        """Create one at once; of the others ask, and when that is confirmed, do it."""
        session, action = self._admin(visit), visit.path.rpartition("/")[2]
        try:
            if action != "create" and not visit.field("confirm"):
                asked = await self._groups.asked(action, visit.field("name"))
                return await self._page(visit.request, "confirm_group", f"{action.capitalize()} the group?", **asked)
            session.notice = "ok", await self._groups.change(action, visit)
        except SidecarError as error:
            session.notice = "warning", f"{'Not done yet' if isinstance(error, Busy) else 'Not done'}: {error}."
        return _redirect("/groups")

    # -- sign-in

    async def _ask_token(self, visit: Visit) -> Response:
        if visit.visitor.session is not None or not self._sessions.needed:
            return _redirect("/")
        return await self._sign_in_form(visit, HTTPStatus.OK)

    async def _sign_in(self, visit: Visit) -> Response:
        sender = peer(visit.request)
        if not self._sessions.may_try(sender):
            text = "Too many wrong tokens. Try again in a minute."
            return await self._sign_in_form(visit, HTTPStatus.TOO_MANY_REQUESTS, text, {"Retry-After": "60"})
        cookie = self._sessions.sign_in(visit.field("token"), sender)
        if cookie is None:
            log.warning("a wrong token was given to the page", extra={"peer": sender})
            return await self._sign_in_form(visit, HTTPStatus.FORBIDDEN, "The token is wrong.")
        self._sessions.sign_out(read_cookie(visit.request))
        where = visit.field("next")
        where = where if _NEXT.fullmatch(where) else "/"
        return _redirect(where, set_cookie(visit.request, cookie, LIFETIME_SECONDS))

    async def _sign_in_form(
        self, visit: Visit, status: HTTPStatus, problem: str = "", headers: Mapping[str, str] | None = None
    ) -> Response:
        return await self._page(
            visit.request, "sign_in", "Sign in", status, headers, problem=problem, next=visit.field("next")
        )

    async def _sign_out(self, visit: Visit) -> Response:
        visit.check_csrf()
        self._sessions.sign_out(read_cookie(visit.request))
        return _redirect("/", set_cookie(visit.request, "", 0))

    # -- answers

    async def _message(self, request: Request, status: HTTPStatus, title: str, text: str) -> Response:
        return await self._page(request, "message", title, status, text=text)

    async def _page(
        self, request: Request, template: str, title: str, status: HTTPStatus = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None, **values: Any,
    ) -> Response:  # fmt: skip
        visitor, notice = self._sessions.visitor(request), None
        if visitor.session is not None:
            notice, visitor.session.notice = visitor.session.notice, None
        values |= {
            "about": self._about,
            "title": title,
            "path": request.scope["path"],
            "visitor": visitor,
            "notice": notice,
        }
        # In a thread, so that probes are answered meanwhile.
        return HTMLResponse(await asyncio.to_thread(pages.render, template, **values), status, headers)


def _redirect(where: str, headers: Mapping[str, str] | None = None) -> Response:
    """Send the browser on, with GET. `where`: a path of this site."""
    return RedirectResponse(where, HTTPStatus.SEE_OTHER, headers)
