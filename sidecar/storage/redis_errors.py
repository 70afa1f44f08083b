"""The one taxonomy of what Redis can answer: transient, refused credentials, a fault of set-up, or refused for good.

redis-py's classes are not enough: AuthenticationError is a ConnectionError, TimeoutError is not one, and several
replies arrive as a plain ResponseError of which only the first word tells.
"""

from __future__ import annotations

import re
import ssl

from redis import exceptions

from modelready.credentials import NoCredentials
from sidecar.errors import AuthFailed, QueueError, Refused, SetupFault, Unavailable

# Replies that pass by themselves. An unknown reply is a fault of set-up: a person looks, and nothing is lost meanwhile.
_TRANSIENT = frozenset({
    "LOADING", "TRYAGAIN", "ASK", "MOVED", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "OOM", "BUSY", "NOREPLICAS",
    "MISCONF", "UNBLOCKED",
})  # fmt: skip
_AUTH = frozenset({"WRONGPASS", "NOAUTH"})
_OLD_AUTH = ("invalid password", "Client sent AUTH", "AUTH <password> called", "unauthenticated bulk length")
_NOPERM = ("The user executing the script", "ACL failure in script", "can't run this command or subcommand")
_REFUSED = ("invalid bulk length", "invalid multibulk length", "string exceeds maximum allowed size")
# What TLS tells a client whose own certificate is missing or not accepted: it has no effect until a person acts.
_OUR_CERTIFICATE = re.compile(r"ALERT_(?:\w*CERTIFICATE\w*|UNKNOWN_CA)")
_MAXCLIENTS = "max number of clients reached"
# Redis 6.2 wraps what a script met: "ERR Error running script (call to f_...): @user_script:9: -OOM command not ..."
_IN_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")


def translate(error: BaseException, *, sent: bool) -> QueueError:
    """The error in our own words. `sent`: a write may have reached Redis before it."""
    words = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    code = _code(error, words)
    if isinstance(error.__cause__, NoCredentials):
        return AuthFailed(f"there are no credentials for Redis: {words}")
    if isinstance(error, exceptions.AuthenticationError) or code in _AUTH or any(mark in words for mark in _OLD_AUTH):
        return AuthFailed(f"Redis refused the credentials: {words}")
    if code:
        return _reply(code, words)
    if "CERTIFICATE_VERIFY_FAILED" in words or isinstance(error, ssl.SSLCertVerificationError):
        return SetupFault(f"the certificate of Redis was not accepted: {words}", reason="REDIS_CERTIFICATE")
    if _OUR_CERTIFICATE.search(words):
        text = f"Redis did not accept our certificate, REDIS_TLS_CERT_FILE: {words}"
        return SetupFault(text, reason="REDIS_CERTIFICATE")
    if isinstance(error, exceptions.DataError):
        return Refused(f"Redis cannot take it: {words}")
    if isinstance(error, exceptions.InvalidResponse):
        return SetupFault(f"that is no Redis: {words}", reason="REDIS_PROTOCOL")
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return Unavailable("Redis did not answer in time", ambiguous=sent)
    return Unavailable(f"no connection to Redis: {words}", ambiguous=sent)


def _code(error: BaseException, words: str) -> str:
    """The code that the server answered with, e.g. OOM; empty where no server answered."""
    code: str | None = getattr(error, "status_code", None)
    if code is None and not isinstance(error, exceptions.ResponseError):
        return ""
    if code is None:
        code = words.partition(" ")[0].rstrip(":")
    inner = _IN_SCRIPT.search(words)
    return inner.group(1) if inner else code


def _reply(code: str, words: str) -> QueueError:
    """What the server answered: the command was not carried out."""
    if code == "NOPERM" or any(mark in words for mark in _NOPERM):
        return SetupFault(f"the Redis user lacks a right: {words}", reason="REDIS_NO_PERMISSION")
    if any(mark in words for mark in _REFUSED):
        return Refused(f"Redis cannot take it: {words}")
    if code == "WRONGTYPE":
        return SetupFault(f"a key of the queue holds another type: {words}", reason="REDIS_WRONG_TYPE")
    if code == "CROSSSLOT":
        return SetupFault(f"keys in several slots: {words}", reason="REDIS_CROSS_SLOT")
    if code in _TRANSIENT:
        return Unavailable(f"Redis answered {code}: {words}", reason=f"REDIS_{code}")
    if _MAXCLIENTS in words:
        return Unavailable(f"Redis answered: {words}", reason="REDIS_MAXCLIENTS")
    return SetupFault(f"Redis answered: {words}", reason="REDIS_UNEXPECTED")
