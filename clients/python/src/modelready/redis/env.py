"""Environment variables: what values they allow, and how a group of them is read."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

Group = TypeVar("Group")

# Names that other programs use, and ours.
_ELSEWHERE = {
    "REDIS_PASSWORD": "REDIS_AUTH_TOKEN",
    "REDIS_TOKEN": "REDIS_AUTH_TOKEN",
    "REDIS_URL": "REDIS_HOST",
    "REDIS_SSL": "REDIS_TLS",
    "REDIS_USER": "REDIS_USERNAME",
}
_FILE_BYTES = 1024 * 1024  # four times the size of a bundle of all public authorities


class SettingsError(ValueError):
    """A variable is missing or wrong; the text has its name, its value (secrets masked) and the allowed values."""


class Kind(NamedTuple):
    """What a variable may be. `accepts` completes the sentence "it must be ..."; the documents have it, too."""

    accepts: str
    parse: Callable[[str], Any]
    """Returns the value. Raises ValueError, or OSError, whose reason is shown, too."""


def variable(name: str, kind: Kind, default: Any, doc: str, *, note: str = "", secret: bool = False) -> Any:
    """Return a dataclass field that is read from the environment variable `name`.

    `doc` says what it is, `note` what the default means; scripts/configuration.py generates the documents from both.
    """
    metadata = {"name": name, "kind": kind, "doc": doc, "note": note, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


def text(accepts: str = "any text") -> Kind:
    """Any text; `accepts` says which is useful."""
    return Kind(accepts, str)


def number(low: float, high: float, unit: str = "", kind: type[int | float] = int) -> Kind:
    """Numbers from `low` to `high`."""

    def parse(value: str) -> int | float:
        result = kind(value)
        if not low <= result <= high:
            raise ValueError
        return result

    what = "a whole number" if kind is int else "a number"
    return Kind(f"{what}{unit and f' of {unit}'} from {low} to {high}", parse)


def seconds(low: float, high: float) -> Kind:
    """Durations."""
    return number(low, high, "seconds", float)


def choice(*allowed: str) -> Kind:
    """One of a few words."""

    def parse(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError
        return value.lower()

    return Kind(f"one of {', '.join(allowed)}", parse)


def _flag(value: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if value.lower() not in words:
        raise ValueError
    return words[value.lower()]


def file_contents(path: Path) -> bytes:
    """Read a file of at most 1 MiB. Raises OSError.

    Files that would block, such as a FIFO, or never end, fail at once. A network mount that hangs blocks all the same:
    the kernel has no open() that does not.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no file")
        size, contents = min(found.st_size, _FILE_BYTES) + 1, b""  # one more: it may grow
        while chunk := os.read(descriptor, size):
            contents += chunk
            if len(contents) > _FILE_BYTES:
                raise OSError(errno.EFBIG, "is larger than 1 MiB")
        return contents
    finally:
        os.close(descriptor)


def _readable_file(value: str) -> Path:
    path = Path(value)
    file_contents(path)
    return path


def _queue_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}", value):  # keys have it between braces
        raise ValueError
    return value


def _host(value: str) -> str:
    name, ipv6 = r"[A-Za-z0-9._-]+", r"[0-9A-Fa-f.]*(:[0-9A-Fa-f.]*){2,}"
    if not re.fullmatch(f"{name}|{ipv6}", value):
        raise ValueError
    return value


def _url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s]+(/\S*)?", value):
        raise ValueError
    return value


HOST = Kind("a host name or an address, without scheme and port", _host)
URL = Kind("a URL, http:// or https://, without a user", _url)
FLAG = Kind("true or false", _flag)
FILE = Kind("a file that can be read", _readable_file)
QUEUE = Kind("1 to 100 of the characters A-Z a-z 0-9 . _ : -, the first a letter or a digit", _queue_name)


def masked(text: str) -> str:
    """The text without what is before an @: somebody may set a URL, with a password, where a host name belongs."""
    return re.sub(r"(?s)^(['\"]?).*@", r"\1***@", text)


def read(group: type[Group], environ: Mapping[str, str]) -> Group:
    """Read one group from the environment. Raises SettingsError."""
    values: dict[str, Any] = {}
    for setting in fields(cast("Any", group)):
        name, kind, secret = (setting.metadata[key] for key in ("name", "kind", "secret"))
        value = environ.get(name, "")
        if not value:
            continue
        try:
            value.encode()
            values[setting.name] = kind.parse(value)
        except UnicodeEncodeError:
            raise SettingsError(f"{name} is {'***' if secret else repr(value)}: it must be UTF-8") from None
        except (ValueError, OSError) as error:
            why = f" ({error.strerror})" if isinstance(error, OSError) else ""
            shown = "***" if secret else masked(repr(value))
            raise SettingsError(f"{name} is {shown}: it must be {kind.accepts}{why}") from None
    result = group(**values)
    check = getattr(result, "check", None)
    if check is not None:
        check()
    return result


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    host = host.strip("[]").removesuffix(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def misspelt(environ: Mapping[str, str], names: Collection[str]) -> list[str]:
    """A sentence for each variable that nothing reads and that seems to mean one of `names`."""
    found = []
    for name in sorted(environ.keys() - names):
        known = _ELSEWHERE.get(name.upper())
        close = [known] if known else get_close_matches(name.upper(), sorted(names), n=1, cutoff=0.85)
        found += [f"nothing reads {name!r}: is {meant} meant?" for meant in close if meant in names]
    return found
