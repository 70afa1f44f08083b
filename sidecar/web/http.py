"""What a page's code is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()


class Request(NamedTuple):
    """What a site is asked. `target`: path and query; `headers`: by their lower-case names; `peer`: an IP address."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    peer: str


Site = Callable[[Request], Page]
