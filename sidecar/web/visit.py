"""One request to the page: its fields, and who sent it."""

from __future__ import annotations

import hmac
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sidecar.operations.dead_letters import MAX_IDS, Filter
from sidecar.web.auth import Visitor, is_same_origin

MAX_BYTES = 64 << 10  # of a form
FIELDS = {"text": "Text", "reason": "Reason", "model": "Model", "origin": "Given up by"}  # of a search
_FORM = "application/x-www-form-urlencoded"

Fields = ImmutableMultiDict[str, str]


class Visit(NamedTuple):
    """One request: the fields of its query or form, and who sent it."""

    request: Request
    fields: Fields
    visitor: Visitor

    @property
    def path(self) -> str:
        """Of the request; that of its URL comes from the Host, too."""
        return str(self.request.scope["path"])

    def check_csrf(self) -> None:
        """Raise HTTPException unless a page of this session made the form."""
        csrf = self.visitor.csrf
        if not csrf or not hmac.compare_digest(self.field("csrf").encode(), csrf.encode()):
            raise HTTPException(403, "the form is not of this session: go back and load the page again")

    def field(self, name: str) -> str:
        """The first value; empty where there is none."""
        return (self.fields.getlist(name) or [""])[0].strip()

    @property
    def selected(self) -> Filter:
        """What the search form selects."""
        text, reason, model, origin = (self.field(name) for name in FIELDS)
        return Filter(text=text, reason=reason, model=model, origin=origin)


async def read_form(request: Request) -> Fields:
    """The fields of a form that this page sent. Raises HTTPException."""
    if not is_same_origin(request):
        raise HTTPException(403, "the request comes from another site")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise HTTPException(415, f"a form is sent as {_FORM}")
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise HTTPException(411, "a form needs its Content-Length")
    if len(length) > 9 or int(length) > MAX_BYTES:
        raise HTTPException(413, f"a form has at most {MAX_BYTES} bytes")
    try:
        text = (await request.body()).decode()
        return ImmutableMultiDict(parse_qsl(text, max_num_fields=MAX_IDS + 20))
    except ValueError:
        raise HTTPException(400, "the form cannot be read, or has more fields than any form here") from None
