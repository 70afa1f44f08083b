"""HTML that cannot be broken out of: whatever is put into a template is escaped, unless it is markup itself."""

from __future__ import annotations

import string
from collections.abc import Iterable
from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return value if isinstance(value, Markup) else escape(format(value, format_spec))


_FORMATTER = _Formatter()


def html(template: str, /, **values: Any) -> Markup:
    """Fill a template, in the manner of str.format: what is not Markup is escaped, for text and quoted attributes."""
    return Markup(_FORMATTER.vformat(template, (), values))


def join(parts: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("".join(parts))
