"""Fills the templates. Jinja2 takes 3 MB: it is imported with the first page."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToJson, SerializeToJsonError

from modelready.v1.event_pb2 import ModelReadyToDeploy
from sidecar.format import count, duration, seconds
from sidecar.web import plots

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_HERE = files(__package__)
_STYLE = _HERE.joinpath("static", "page.css").read_text(encoding="utf-8")
_SCRIPT = _HERE.joinpath("static", "page.js").read_text(encoding="utf-8")
_SHORT = 24  # a name fits into a line of any screen
_LAST_MS = 253_402_300_799_999  # the end of the year 9999


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


# One style and one script, both in the page and named by their hash.
POLICY = "; ".join((
    "default-src 'none'",
    f"style-src {_hash(_STYLE)}",
    f"script-src {_hash(_SCRIPT)}",
    "img-src data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
))  # fmt: skip


def render(template: str, **values: Any) -> str:
    """The page. All values are escaped."""
    return environment().get_template(f"{template}.html").render(values)


@cache
def environment() -> Environment:
    """The templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(str(_HERE.joinpath("templates"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "age": age, "as_json": as_json, "breakable": breakable, "count": count, "duration": duration, "exact": exact,
        "milliseconds": lambda moment: int(seconds(moment) * 1000), "number": plots.number,
    }  # fmt: skip
    made.globals |= {"plots": plots, "script": _SCRIPT, "style": _STYLE}
    return made


def breakable(name: str) -> Markup:
    """A long name that may break into lines behind its separators, and nowhere else unless it must.

    To a screen reader such a place is a blank: where the name is that of a row or a link, give an aria-label.
    """
    from markupsafe import Markup, escape

    if isinstance(name, Markup) or len(name) <= _SHORT:
        return escape(name)
    return Markup("<wbr>").join(re.split(r"(?<=[-/_.:@])(?=[^-/_.:@])", name))


def exact(unix_ms: int) -> str:
    """In UTC, to the second; as a number past the year 9999."""
    if unix_ms > _LAST_MS:
        return f"{unix_ms} ms"
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def age(unix_ms: int | None) -> str:
    """`5m 2s ago`; `-` where the time is not known, or lies past the year 9999."""
    if unix_ms is None or unix_ms > _LAST_MS:
        return "-"
    return f"{duration(time.time() - unix_ms / 1000)} ago"


def as_json(event: ModelReadyToDeploy) -> str:
    """The event as JSON, or as protobuf's text where JSON cannot have it, such as a time past the year 9999."""
    try:
        return MessageToJson(event, preserving_proto_field_name=True, ensure_ascii=False)
    except (ValueError, SerializeToJsonError):
        return str(event)
