"""The routes of the page, and who may take them.

What the overview says stands in /metrics and /readyz too, and is as open. Dead letters are shown to whoever is signed
in with SIDECAR_API_TOKEN or SIDECAR_ADMIN_TOKEN; where neither is set, to who comes from this machine. Replay and
discard exist only where SIDECAR_ADMIN_TOKEN is set, for who signed in with it.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote

from modelready.redis.env import is_loopback
from modelready.v1 import queue_service_pb2 as pb
from sidecar.errors import InvalidRequest, NotFound, RequestError
from sidecar.operations.dead_letters import Filter
from sidecar.settings import ServerSettings
from sidecar.web import dead_letters, overview
from sidecar.web.auth import LIFETIME_SECONDS, Sessions
from sidecar.web.gone import MAX_IDS, Backstage, Busy
from sidecar.web.history import History
from sidecar.web.http import Page, Request
from sidecar.web.layout import Visitor, page, redirect, refusal
from sidecar.web.markup import Markup, html, join
from sidecar.web.request import Visit, is_ours, is_same_origin, parse_form, read_cookie, set_cookie

log = logging.getLogger(__name__)

_NEWEST, _PAGE_SIZE = 20, 50
_FORM = "application/x-www-form-urlencoded"
_LETTER = re.compile(r"/dead-letters/\d{1,20}-\d{1,20}", re.ASCII)

_SIGN_IN = """{problem}<form method="post" action="/sign-in" class="card">
<input type="hidden" name="next" value="{next}">
<label class="field">Token: SIDECAR_API_TOKEN to read, SIDECAR_ADMIN_TOKEN to replay and discard too
<input type="password" name="token" autocomplete="current-password" required{invalid}></label>
<div class="actions"><button>Sign in</button></div>
</form>
"""
_PROBLEM = """<div class="notice failure" role="alert"><p id="problem">{text}</p></div>
"""
_LETTERS = """<section aria-labelledby="letters"><h2 id="letters">Dead letters</h2>
{content}</section>
"""


class PageSite:
    """Answers requests, from any thread."""

    def __init__(self, backstage: Backstage, history: History, settings: ServerSettings, queue: str) -> None:
        """`queue`: its name."""
        self._backstage = backstage
        self._history = history
        self._queue = queue
        self._host = settings.http_listen.rpartition(":")[0].strip("[]").lower()
        self._sessions = Sessions(settings.api_token, settings.admin_token)
        self._gets: dict[str, Callable[[Visit], Page]] = {
            "/": self._overview,
            "/dead-letters": self._list,
            "/sign-in": self._ask_token,
        }
        self._posts: dict[str, Callable[[Visit], Page]] = {
            "/dead-letters/replay": self._mend,
            "/dead-letters/discard": self._mend,
            "/sign-in": self._sign_in,
            "/sign-out": self._sign_out,
        }

    def __call__(self, request: Request) -> Page:
        """Answer; no error's text leaves by accident."""
        host = request.headers.get("host", "")
        if not is_ours(host, self._host):
            text = "this page answers under localhost, an IP address or the name in SIDECAR_HTTP_LISTEN"
            return refusal(HTTPStatus.MISDIRECTED_REQUEST, text)
        path, _, query = request.target.partition("?")
        cookie = read_cookie(request)
        posted = request.method == "POST"
        try:
            fields = parse_form(request.body.decode() if posted else query)
        except ValueError:
            return refusal(HTTPStatus.BAD_REQUEST, "the request cannot be read, or has more fields than any form here")
        visit = Visit(request, path, fields, cookie, self._visitor(request, cookie))
        try:
            return self._post(visit) if posted else self._get(visit)
        except Exception:
            log.exception("the page failed")
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "the page failed; the log says why")

    def _visitor(self, request: Request, cookie: str) -> Visitor:
        session = self._sessions.find(cookie)
        reads = session is not None if self._sessions.needed else is_loopback(request.peer.removeprefix("::ffff:"))
        return Visitor(session, self._sessions.needed, reads, session is not None and session.admin)

    def _get(self, visit: Visit) -> Page:
        handler = self._gets.get(visit.path)
        if handler is None and _LETTER.fullmatch(visit.path):
            handler = self._letter
        if handler is None:
            if visit.path in self._posts:
                return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "this takes POST alone", [("Allow", "POST")])
            return self._message(visit, HTTPStatus.NOT_FOUND, "Not found", "There is no such page.")
        return self._answer(handler, visit)

    def _post(self, visit: Visit) -> Page:
        request, path = visit.request, visit.path
        handler = self._posts.get(path)
        if handler is None:
            return refusal(HTTPStatus.NOT_FOUND, "not found")
        if not is_same_origin(request):
            return refusal(HTTPStatus.FORBIDDEN, "the request comes from another site")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            return refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"a form is sent as {_FORM}")
        if path != "/sign-in":
            if path != "/sign-out" and not self._sessions.admin_possible:
                return refusal(HTTPStatus.NOT_FOUND, "replay and discard are off: SIDECAR_ADMIN_TOKEN is not set")
            csrf = visit.visitor.csrf
            if not csrf or not hmac.compare_digest(visit.field("csrf").encode(), csrf.encode()):
                return refusal(HTTPStatus.FORBIDDEN, "the form is not of this session: go back, load the page anew")
        return self._answer(handler, visit)

    def _answer(self, handler: Callable[[Visit], Page], visit: Visit) -> Page:
        try:
            return handler(visit)
        except NotFound:
            text = "It was replayed or discarded meanwhile, or never was."
            return self._message(visit, HTTPStatus.NOT_FOUND, "There is no such dead letter", text)
        except InvalidRequest as error:
            return self._message(visit, HTTPStatus.BAD_REQUEST, "That cannot be asked", str(error))
        except (RequestError, Busy) as error:
            return self._message(visit, HTTPStatus.SERVICE_UNAVAILABLE, "Not now", f"{error}")

    def _overview(self, visit: Visit) -> Page:
        status = self._backstage.status()
        newest = html(_LETTERS, content=self._newest(visit, status))
        content = join([overview.overview(status, self._history.samples(), whole=visit.visitor.reads), newest])
        return self._page(visit, "Overview", content)

    def _newest(self, visit: Visit, status: pb.GetQueueStatusResponse) -> Markup:
        if not visit.visitor.reads:
            if self._sessions.needed:
                return Markup('<p><a href="/sign-in">Sign in</a> to see them.</p>\n')
            return html('<p class="soft">{text}</p>\n', text=_ONLY_HERE)
        if not status.redis_up:
            return Markup('<p class="soft">Not known while Redis does not answer.</p>\n')
        try:
            found = self._backstage.find(Filter(), _NEWEST)
        except (RequestError, Busy) as error:
            return html('<p class="soft">Not known: {error}</p>\n', error=error)
        if not found.letters:
            return Markup('<p class="soft">There are none.</p>\n')
        rest = Markup('<p><a href="/dead-letters">All dead letters</a></p>\n') if found.next_token else Markup()
        caption = f"The newest {len(found.letters)}" if found.next_token else "All of them, the newest first"
        listed = dead_letters.table(found.letters, visit.visitor, caption)
        return join([dead_letters.search(Filter(), status), listed, rest])

    def _list(self, visit: Visit) -> Page:
        if refused := self._may_not_read(visit):
            return refused
        selected, token = visit.selected, visit.field("page")
        found = self._backstage.find(selected, _PAGE_SIZE, token)
        parts = [dead_letters.search(selected, self._backstage.status())]
        if found.letters:
            shown = f"{len(found.letters)} shown, the newest first"
            parts.append(dead_letters.table(found.letters, visit.visitor, shown))
        elif found.next_token:
            parts.append(Markup("<p>None among those that were looked through; there are older ones.</p>\n"))
        else:
            parts.append(Markup("<p>None is found.</p>\n"))
        parts.append(dead_letters.more(selected, found.next_token))
        if found.letters:
            parts.append(dead_letters.all_that_match(selected, visit.visitor))
        return self._page(visit, "Dead letters", join(parts))

    def _letter(self, visit: Visit) -> Page:
        if refused := self._may_not_read(visit):
            return refused
        letter = self._backstage.get(visit.path.rpartition("/")[2])
        title = f"Dead letter: {letter.subject or letter.event_id or letter.id}"
        return self._page(visit, title, dead_letters.letter_page(letter, visit.visitor))

    def _may_not_read(self, visit: Visit) -> Page | None:
        if visit.visitor.reads:
            return None
        if self._sessions.needed:
            return redirect(f"/sign-in?next={quote(visit.path)}")
        return self._message(visit, HTTPStatus.FORBIDDEN, "Dead letters", _ONLY_HERE)

    def _mend(self, visit: Visit) -> Page:
        """Ask, and when that is confirmed, do it."""
        session = visit.visitor.session
        if session is None or not session.admin:
            return refusal(HTTPStatus.FORBIDDEN, "this needs a sign-in with SIDECAR_ADMIN_TOKEN")
        action = visit.path.rpartition("/")[2]
        ids = dead_letters.ids_of([*visit.fields.get("id", []), *visit.fields.get("ids", [])])
        if not visit.field("confirm"):
            return self._confirm(visit, action, ids)
        try:
            if action == "replay":
                done = self._backstage.replay(ids, everyone=visit.field("target") == "all")
            else:
                done = self._backstage.discard(ids)
            session.notice = "ok", dead_letters.told(action, done)
        except Busy as error:
            session.notice = "warning", f"Not done yet: {error}."
        return redirect("/dead-letters")

    def _confirm(self, visit: Visit, action: str, ids: list[str]) -> Page:
        more_match = False
        if visit.field("all"):
            found = self._backstage.find(visit.selected, MAX_IDS, newest_first=False)
            chosen, more_match = list(found.letters), bool(found.next_token)
        else:
            chosen = self._backstage.get_all(ids)
        if not chosen:
            text = "None is selected, or they have gone already."
            return self._message(visit, HTTPStatus.BAD_REQUEST, f"Nothing to {action}", text)
        ids = [letter.id for letter in chosen]
        replays = []
        if action == "replay":
            replays = [self._backstage.replayable(ids, everyone=everyone) for everyone in (False, True)]
        content = dead_letters.confirm(action, chosen, visit.visitor.csrf, more_match=more_match, replays=replays)
        return self._page(visit, f"{action.capitalize()}?", content)

    def _ask_token(self, visit: Visit) -> Page:
        if visit.visitor.session is not None or not self._sessions.needed:
            return redirect("/")
        return self._sign_in_form(visit, "")

    def _sign_in(self, visit: Visit) -> Page:
        peer = visit.request.peer
        if not self._sessions.may_try(peer):
            text = "Too many wrong tokens. Try again in a minute."
            return self._sign_in_form(visit, text, HTTPStatus.TOO_MANY_REQUESTS, [("Retry-After", "60")])
        cookie = self._sessions.sign_in(visit.field("token"), peer)
        if cookie is None:
            log.warning("a wrong token was given to the page", extra={"peer": peer})
            return self._sign_in_form(visit, "The token is wrong.", HTTPStatus.FORBIDDEN)
        self._sessions.sign_out(visit.cookie)
        return redirect(visit.next, [set_cookie(visit.request, cookie, LIFETIME_SECONDS)])

    def _sign_in_form(
        self,
        visit: Visit,
        problem: str,
        status: HTTPStatus = HTTPStatus.OK,
        headers: list[tuple[str, str]] | None = None,
    ) -> Page:
        content = html(
            _SIGN_IN,
            problem=html(_PROBLEM, text=problem) if problem else Markup(),
            invalid=Markup(' aria-invalid="true" aria-describedby="problem"') if problem else Markup(),
            next=visit.next,
        )
        return page(visit.visitor, self._queue, "/sign-in", "Sign in", content, status=status, headers=headers or ())

    def _sign_out(self, visit: Visit) -> Page:
        self._sessions.sign_out(visit.cookie)
        return redirect("/", [set_cookie(visit.request, "", 0)])

    def _page(self, visit: Visit, title: str, content: Markup) -> Page:
        return page(visit.visitor, self._queue, visit.path, title, content)

    def _message(self, visit: Visit, status: HTTPStatus, title: str, text: str) -> Page:
        content = html('<p>{text}</p>\n<p><a href="/">Back to the overview</a></p>\n', text=text)
        return page(visit.visitor, self._queue, visit.path, title, content, status=status)


_ONLY_HERE = (
    "Dead letters are shown to this machine alone, since neither SIDECAR_API_TOKEN nor SIDECAR_ADMIN_TOKEN is set to "
    "sign in with."
)
