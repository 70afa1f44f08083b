"""How the commands reach the sidecar: address, token, TLS; and what a failure means."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sidecar.cli.exits import Failed, Misused

if TYPE_CHECKING:
    import grpc

    from modelready import TLS, PublishError
    from modelready.v1.queue_service_pb2_grpc import QueueServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")

_API, _ADMIN = "SIDECAR_API_TOKEN", "SIDECAR_ADMIN_TOKEN"
# By what modelready finds in the words of grpc.
_NOT_REACHED = {
    "untrusted": "its certificate is not trusted: give the authority's with --ca-file",
    "other name": "its certificate is for another name: give that name with --server-name",
    "no TLS": "it does not speak TLS: leave out --ca-file and unset SIDECAR_TLS_CERT_FILE",
    "no PEM": "one of the certificate files holds no PEM",
    "silent": "it accepts connections and does not answer: check whether it hangs",
    "closed": "it closes the connection: give --ca-file if it speaks TLS, and --cert-file if it asks for a certificate",
    "unresolved": "the name does not resolve: --address is host:port or unix:/path",
    "no socket": "there is no such socket: check that it runs, or give another --address",
    "refused": "it is refused: check that it runs, or give another --address",
}
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - read, not bound


def add_options(parser: argparse.ArgumentParser, *, admin: bool = False) -> None:
    """The options that say where the sidecar is. `admin`: the command needs SIDECAR_ADMIN_TOKEN where it is set."""
    group = parser.add_argument_group("the sidecar")
    group.add_argument(
        "--address", help="host:port or unix:/path; default: a unix socket of SIDECAR_LISTEN, else its first"
    )
    group.add_argument("--token", help=f"default: {f'{_ADMIN}, else ' if admin else ''}{_API}")
    group.add_argument(
        "--ca-file", metavar="FILE", help="use TLS and trust this authority; default: SIDECAR_TLS_CERT_FILE, if set"
    )
    group.add_argument("--cert-file", metavar="FILE", help="client certificate, if the sidecar asks for one")
    group.add_argument("--key-file", metavar="FILE", help="its private key")
    group.add_argument("--server-name", metavar="NAME", help="the name in the sidecar's certificate, if another")
    parser.set_defaults(admin=admin)


def own_address() -> str:
    """Where the sidecar of this environment listens; a unix socket first, since TLS is not spoken there."""
    listen = [address.strip() for address in os.environ.get("SIDECAR_LISTEN", "").split(",") if address.strip()]
    return next((address for address in listen if address.startswith("unix:")), (*listen, "127.0.0.1:50051")[0])


def reachable(address: str) -> str:
    """Where to call what listens at that address: loopback in place of every interface."""
    host, colon, port = address.rpartition(":")
    return f"{_EVERYWHERE.get(host, host)}{colon}{port}"


class Target(NamedTuple):
    """Where the sidecar is and how to call it. `token_from`: the option or variable; empty without a token."""

    address: str
    token: str
    token_from: str
    tls: TLS | None

    def explain(self, error: PublishError) -> Failed:
        """The error of a call in one line, with what to do."""
        from modelready._retry import is_transient

        code, reason, said = error.code.name, error.reason, " ".join(error.message.split())
        if reason:
            text = self._refused(reason, said)
        elif code == "UNAVAILABLE":
            text = self._not_reached(error)
        elif code == "UNIMPLEMENTED":
            text = f"the sidecar at {self.address} is older than this command and does not support it: update it"
        elif code == "DEADLINE_EXCEEDED":
            text = f"no answer from {self.address} in time: its log may say whether the sidecar hangs"
        else:
            text = f"{self.address} answers {code}: {said}"
        waits = reason != "TOO_MANY_TAILS" and (is_transient(error) or code == "DEADLINE_EXCEEDED")
        return Failed(text, transient=waits)

    def _refused(self, reason: str, said: str) -> str:
        """What the sidecar answered, and what to do about it."""
        if reason == "TOKEN_MISSING":
            return f"the sidecar asks for a token: give its {_API} with --token or as {_API}"
        if reason == "TOKEN_WRONG":
            return f"the token from {self.token_from} is not the sidecar's"
        if reason == "ADMIN_ONLY":
            where = "if the sidecar has none, call it on its loopback address or unix socket"
            return f"this needs the sidecar's {_ADMIN}: give it with --token or as {_ADMIN}; {where}"
        if reason in ("INVALID_EVENT", "INVALID_REQUEST", "NOT_FOUND", "GROUP_EXISTS", "GROUP_IN_USE"):
            return said
        return f"{said.rstrip('.')}: docs/troubleshooting.md has {reason}"

    def _not_reached(self, error: PublishError) -> str:
        """What grpc says about a failed connection, with what to do."""
        from modelready._unreached import cause

        said = " ".join((error.details or error.message).split())
        return f"no connection to the sidecar at {self.address}: {_NOT_REACHED.get(cause(said), said)}"


def target(options: argparse.Namespace) -> Target:
    """What the options and the environment say. Raises Misused for a token or files that cannot be used."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else its C core writes lines of its own; read at its import
    address = reachable(options.address or own_address())
    token, token_from = _token(options)
    return Target(address, token, token_from, _tls(options, address))


def _token(options: argparse.Namespace) -> tuple[str, str]:
    found = [("--token", options.token)] if options.token else []
    found += [(name, os.environ.get(name, "")) for name in ((_ADMIN, _API) if options.admin else (_API,))]
    name, token = next((one for one in found if one[1]), ("", ""))
    if token.strip() != token or not (token.isascii() and token.isprintable()):
        raise Misused(f"{name} cannot be a token: it must be printable ASCII without blanks at either end")
    return token, name


def _tls(options: argparse.Namespace, address: str) -> TLS | None:
    """As the options say; by default with the certificate of the sidecar of this environment."""
    own = os.environ.get("SIDECAR_TLS_CERT_FILE", "")
    asked = options.ca_file or options.cert_file or options.key_file
    if address.startswith("unix:") or not (asked or own):
        return None
    from modelready import TLS

    ca, cert, key, name = options.ca_file, options.cert_file, options.key_file, options.server_name
    if not asked:
        ca = own
        name = name or _name_of(address, own)
        if os.environ.get("SIDECAR_TLS_CLIENT_CA_FILE"):  # its own pair may be accepted
            cert, key = own, os.environ.get("SIDECAR_TLS_KEY_FILE")
    tls = TLS(ca_file=ca, cert_file=cert, key_file=key, server_name=name)
    try:
        tls.credentials()
    except OSError as error:
        raise Misused(f"{error.filename} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Misused("--cert-file and --key-file belong together") from None
    return tls


def _name_of(address: str, certificate: str) -> str | None:
    """A name in the sidecar's own certificate, for an address that is not in it; only the sidecar has its key."""
    import socket
    import ssl

    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        with socket.create_connection((host, int(port)), 2) as plain, context.wrap_socket(plain) as connection:
            names = [str(entry[1]) for entry in (connection.getpeercert() or {}).get("subjectAltName", ())]
    except (OSError, ValueError):
        return None  # the call itself says what is wrong
    return None if host in names or not names else names[0]


class Sidecar:
    """One connection."""

    def __init__(self, where: Target, channel: grpc.Channel) -> None:
        from modelready.v1.queue_service_pb2_grpc import QueueServiceStub

        self.target = where
        self.channel = channel
        self.stub: QueueServiceStub = QueueServiceStub(channel)
        self.metadata = (("authorization", f"Bearer {where.token}"),) if where.token else ()

    def call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, *, timeout: float = 5.0
    ) -> Response:
        """The answer within `timeout` seconds. Raises Failed."""
        import grpc

        from modelready.errors import from_call

        try:
            return method(request, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            raise self.target.explain(from_call(error)) from None


@contextmanager
def connect(options: argparse.Namespace) -> Iterator[Sidecar]:
    """A connection by the options of `add_options`; it is made at the first call. Raises Misused."""
    where = target(options)
    import grpc

    from modelready._channel import channel_options

    settings = channel_options(where.tls)
    if where.tls is None:
        channel = grpc.insecure_channel(where.address, settings)
    else:
        channel = grpc.secure_channel(where.address, where.tls.credentials(), settings)
    with channel:
        yield Sidecar(where, channel)
