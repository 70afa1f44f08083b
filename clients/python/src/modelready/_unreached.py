"""Why no sidecar answered: gRPC's words for a connection that failed, and what to do about each."""

from __future__ import annotations

_MARKS = {
    "CERTIFICATE_VERIFY_FAILED": "untrusted",
    "Hostname Verification": "other name",
    "WRONG_VERSION_NUMBER": "no TLS",
    "security handshaker": "no PEM",
    "SETTINGS frame": "silent",
    "Handshake read failed": "silent",
    "Socket closed": "closed",
    "reset": "closed",
    "errors resolving": "unresolved",
    "No such file": "no socket",
    "refused": "refused",
}

_TEXTS = {
    "untrusted": "the sidecar at {} has a certificate that is not trusted: give its authority's, TLS(ca_file=...)",
    "other name": "the sidecar at {} has a certificate for another name: give that name, TLS(server_name=...)",
    "no TLS": "the sidecar at {} does not speak TLS: make the publisher without `tls`",
    "no PEM": "no connection to the sidecar at {}: one of the files of TLS(...) holds no PEM",
    "silent": "the sidecar at {} accepts connections and does not answer: does it hang, or speak TLS?",
    "closed": (
        "the sidecar at {} closed the connection: it restarts; or it speaks TLS (give tls=TLS(...)), "
        "or asks for a certificate (cert_file, key_file)"
    ),
    "unresolved": "no sidecar at {} (the name does not resolve): is the name right?",
    "no socket": "no sidecar at {} (no such socket): is it running?",
    "refused": "no sidecar at {} (connection refused): is it running?",
}


def cause(details: str) -> str:
    """A key of `_TEXTS`, the first that fits gRPC's words; "" where none does."""
    return next((why for mark, why in _MARKS.items() if mark in details), "")


def text(target: str, details: str) -> str:
    """What an error says where gRPC alone spoke, and no sidecar at `target`."""
    known = _TEXTS.get(cause(details))
    return known.format(target) if known else f"no connection to the sidecar at {target}: {details}"
