"""Which sidecar a publisher uses, by the variables of its environment. Commands have options that count before them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar

from modelready._channel import TLS, call_metadata, checked_address
from modelready.receipt import Durability

DEFAULT_ADDRESS = "127.0.0.1:50051"

Value = TypeVar("Value")


class PublisherOptions(TypedDict, total=False):
    """The keywords of a publisher."""

    target: str
    token: str | None
    tls: TLS | None
    timeout: float
    durability: Durability | str
    source: str


def sidecar_options(environ: Mapping[str, str], given: PublisherOptions) -> PublisherOptions:
    """The options, with those that are not given from the environment. Raises ValueError, which names the variable."""
    options = given.copy()
    if "target" not in options:
        options["target"] = _checked("MODELREADY_SIDECAR", checked_address, environ) or DEFAULT_ADDRESS
    if "token" not in options:
        options["token"] = _checked("SIDECAR_API_TOKEN", _checked_token, environ)
    if "tls" not in options:
        options["tls"] = _tls(environ)
    return options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of a command that publishes; `options_of` reads them."""
    add = parser.add_argument
    add("--sidecar", help=f"host:port or unix:/path (default: MODELREADY_SIDECAR, else {DEFAULT_ADDRESS})")
    add("--ca-file", metavar="FILE", help="speak TLS to the sidecar and trust this (default: MODELREADY_TLS_CA_FILE)")
    add("--cert-file", metavar="FILE", help="client certificate, if it asks for one (MODELREADY_TLS_CERT_FILE)")
    add("--key-file", metavar="FILE", help="its private key (MODELREADY_TLS_KEY_FILE)")


def options_of(arguments: argparse.Namespace) -> PublisherOptions:
    """What was given of `add_options`."""
    options = PublisherOptions()
    if arguments.sidecar:
        options["target"] = arguments.sidecar
    files = {name: getattr(arguments, name) for name in ("ca_file", "cert_file", "key_file")}
    if any(files.values()):
        options["tls"] = TLS(**files)
    return options


def _tls(environ: Mapping[str, str]) -> TLS | None:
    files = {
        name: _checked(f"MODELREADY_TLS_{name.upper()}", _readable, environ)
        for name in ("ca_file", "cert_file", "key_file")
    }
    server_name = environ.get("MODELREADY_TLS_SERVER_NAME") or None
    wanted = _checked("MODELREADY_TLS", _flag, environ)
    if wanted is False:
        return None
    if not (wanted or any(files.values())):
        if server_name:
            raise ValueError("MODELREADY_TLS_SERVER_NAME is set without TLS: MODELREADY_TLS must be true or false")
        return None
    if (files["cert_file"] is None) != (files["key_file"] is None):
        raise ValueError("MODELREADY_TLS_CERT_FILE and MODELREADY_TLS_KEY_FILE must be set together")
    return TLS(**files, server_name=server_name)


def _checked(name: str, check: Callable[[str], Value], environ: Mapping[str, str]) -> Value | None:
    value = environ.get(name)
    if not value:
        return None
    try:
        return check(value)
    except (OSError, ValueError) as error:
        why = f"{value!r} cannot be read ({error.strerror})" if isinstance(error, OSError) else error
        raise ValueError(f"{name}: {why}") from None


def _checked_token(token: str) -> str:
    call_metadata(token)
    return token


def _readable(path: str) -> str:
    with Path(path).open("rb"):
        return path


def _flag(text: str) -> bool:
    word = text.lower()
    if word not in {"true", "1", "yes", "on", "false", "0", "no", "off"}:
        raise ValueError(f"it is {text!r}; it may be true or false")
    return word in {"true", "1", "yes", "on"}
