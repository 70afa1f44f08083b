"""The one table of what Redis can answer: transient, refused credentials, a fault of set-up, or refused for ever.

redis-py's classes are not enough: AuthenticationError is a ConnectionError, TimeoutError is not one, and several
replies arrive as a plain ResponseError of which only the first word tells.
"""

from __future__ import annotations

import re
import ssl
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from redis import exceptions

from modelready.credentials import NoCredentials

RedisError = exceptions.RedisError
RedisConnectionError = exceptions.ConnectionError
NoScriptError = exceptions.NoScriptError
AuthenticationError = exceptions.AuthenticationError

E = TypeVar("E", bound=BaseException)


class Kind(Enum):
    """What can be done about an error."""

    TRANSIENT = "a later attempt may succeed"
    AUTH = "the credentials were refused, or there are none; they may have been rotated"
    SETUP = "a person must fix the set-up"
    PERMANENT = "Redis can never take it"


class Fault(NamedTuple):
    """What an error means."""

    kind: Kind
    text: str
    """In our own words. It holds no secret and no argument of a command."""
    reason: str = ""
    """A stable constant, such as REDIS_OOM; empty where there is none beyond the kind."""
    answered: bool = False
    """The server answered, so it did not carry the command out. Else nobody knows."""


# Replies that pass by themselves. An unknown reply is a fault of set-up: a person looks, and nothing is lost meanwhile.
TRANSIENT = frozenset({
    "LOADING", "TRYAGAIN", "ASK", "MOVED", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "OOM", "BUSY", "NOREPLICAS",
    "MISCONF", "UNBLOCKED",
})  # fmt: skip
NOT_THE_OWNER = frozenset({"MOVED", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "UNBLOCKED"})
"""Replies after which the owner of the queue is to be looked up again."""
_AUTH = frozenset({"WRONGPASS", "NOAUTH"})
_OLD_AUTH = ("invalid password", "Client sent AUTH", "AUTH <password> called", "unauthenticated bulk length")
_NOPERM = ("The user executing the script", "ACL failure in script", "can't run this command or subcommand")
_REFUSED = ("invalid bulk length", "invalid multibulk length", "string exceeds maximum allowed size")
# What TLS tells a client whose own certificate is missing or not accepted: it has no effect until a person acts.
_OUR_CERTIFICATE = re.compile(r"ALERT_(?:\w*CERTIFICATE\w*|UNKNOWN_CA)")
# Redis's words for an unknown command, and those of redis-py's parser in Python for what is no reply.
_QUOTED = re.compile(r"(?is)(, with args beginning with|(?<=protocol error): b['\"]).*")
_SHORTEST_SECRET = 4  # a shorter one is a part of many words
# What a proxy says when it cannot reach the server behind it.
_TRANSPORT = re.compile(
    r"(?i)no (healthy )?upstream|upstream (failure|connect)|timed out|connection (refused|reset|closed)"
    r"|no route to host|host is (down|unreachable)|network is unreachable|broken pipe|no server connection"
)
_MAXCLIENTS = "max number of clients"
# Redis 6.2 wraps what a script met: "ERR Error running script (call to f_...): @user_script:9: -OOM command not ..."
_IN_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")


def fault(error: BaseException) -> Fault:
    """What the error means: one of redis-py's, or any that a connection raised."""
    words = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    found = code(error)
    if isinstance(error.__cause__, NoCredentials):
        return Fault(Kind.AUTH, f"there are no credentials for Redis: {words}")
    if isinstance(error, AuthenticationError) or found in _AUTH or any(mark in words for mark in _OLD_AUTH):
        return Fault(Kind.AUTH, f"Redis refused the credentials: {words}")
    if found:
        return _reply(found, words)
    if "CERTIFICATE_VERIFY_FAILED" in words or isinstance(error, ssl.SSLCertVerificationError):
        return Fault(Kind.SETUP, f"the certificate of Redis was not accepted: {words}", reason="REDIS_CERTIFICATE")
    if _OUR_CERTIFICATE.search(words):
        text = f"Redis did not accept our certificate, REDIS_TLS_CERT_FILE: {words}"
        return Fault(Kind.SETUP, text, reason="REDIS_CERTIFICATE")
    if isinstance(error, exceptions.ClusterError):
        return _set_up(words, reason="REDIS_CLUSTER_MODE")
    if isinstance(error, exceptions.DataError):
        return Fault(Kind.PERMANENT, f"Redis cannot take it: {words}", answered=True)
    if isinstance(error, exceptions.InvalidResponse):
        return Fault(Kind.SETUP, f"that is no Redis: {words}", reason="REDIS_PROTOCOL")
    if isinstance(error, exceptions.TimeoutError):
        return Fault(Kind.TRANSIENT, "Redis did not answer in time")
    return Fault(Kind.TRANSIENT, f"no connection to Redis: {words}")


def is_transient(error: RedisError) -> bool:
    """Whether a later attempt may succeed with nobody's help."""
    return fault(error).kind is Kind.TRANSIENT


def is_no_group(error: RedisError) -> bool:
    """The group, or the stream with it, is gone."""
    return code(error) == "NOGROUP" or "no such key" in str(error)  # the second is XINFO's word


def code(error: BaseException) -> str:
    """The code that the server answered with, e.g. OOM; empty where no server answered."""
    found: str | None = getattr(error, "status_code", None)
    if found is None and not isinstance(error, exceptions.ResponseError):
        return ""
    text = str(error)
    if inner := _IN_SCRIPT.search(text):
        return inner[1]
    return found or (text.split(maxsplit=1) or [""])[0].rstrip(":")


def checked(reply: Any) -> Any:
    """The reply. Raises it where it is an error."""
    if isinstance(reply, RedisError):
        raise reply
    return reply


def cleaned(error: E, secret: str = "") -> E:
    """The error without what we sent: a server that does not know a command quotes its arguments, AUTH's among them."""
    text = str(error)
    clean = _QUOTED.sub("", text)
    if len(secret) >= _SHORTEST_SECRET:
        clean = clean.replace(secret, "***")
    if clean != text:
        error.args = (clean,)
    return error


def _reply(code: str, words: str) -> Fault:
    """What the server answered."""
    if code == "NOPERM" or any(mark in words for mark in _NOPERM):
        return _set_up(f"the Redis user lacks a right: {words}", reason="REDIS_NO_PERMISSION")
    if any(mark in words for mark in _REFUSED):
        return Fault(Kind.PERMANENT, f"Redis cannot take it: {words}", answered=True)
    if code == "WRONGTYPE":
        return _set_up(f"a key of the queue holds another type: {words}", reason="REDIS_WRONG_TYPE")
    if code == "CROSSSLOT":
        return _set_up(f"keys in several slots: {words}", reason="REDIS_CROSS_SLOT")
    if code in TRANSIENT:
        return Fault(Kind.TRANSIENT, f"Redis answered {code}: {words}", reason=f"REDIS_{code}", answered=True)
    if _MAXCLIENTS in words:
        return Fault(Kind.TRANSIENT, f"Redis answered: {words}", reason="REDIS_MAXCLIENTS", answered=True)
    if _TRANSPORT.search(words):
        return Fault(Kind.TRANSIENT, f"a proxy answered: {words}")
    return _set_up(f"Redis answered: {words}", reason="REDIS_UNEXPECTED")


def _set_up(text: str, *, reason: str) -> Fault:
    return Fault(Kind.SETUP, text, reason, answered=True)
