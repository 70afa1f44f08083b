"""The gRPC server: services, limits, addresses."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import grpc

from modelready.redis.certificates import CertificateFiles, Contents, load_pair
from sidecar.errors import SettingsError
from sidecar.rpc import reflection
from sidecar.rpc.auth import MAX_MESSAGE_BYTES, Guard
from sidecar.rpc.groups import GroupCalls
from sidecar.rpc.health import NAME as HEALTH
from sidecar.rpc.health import HealthService
from sidecar.rpc.publisher_service import NAME as PUBLISHER
from sidecar.rpc.publisher_service import PublisherService
from sidecar.rpc.queue_service import NAME as QUEUE
from sidecar.rpc.queue_service import QueueService
from sidecar.settings import ServerSettings

_SPARE_CALLS = 2000  # streams and status calls beside the events that may wait
_RECEIVED_BYTES = 2 * MAX_MESSAGE_BYTES  # grpc refuses what is larger by itself, without details
_UNASKED_BYTES = 16 * 1024
_SOCKET_PATH_BYTES = 107  # sun_path's 108, with its end
_CERT, _KEY, _CLIENT_CA = "SIDECAR_TLS_CERT_FILE", "SIDECAR_TLS_KEY_FILE", "SIDECAR_TLS_CLIENT_CA_FILE"


def build(
    settings: ServerSettings,
    max_pending: int,
    health: HealthService,
    publisher: PublisherService,
    queue: QueueService,
    *,
    groups: GroupCalls,
) -> tuple[grpc.aio.Server, list[str], CertificateFiles[Any] | None]:
    """Return a server that is bound but not started, its addresses with their real ports, and its certificate files.

    Raises SettingsError where an address cannot be bound.
    """
    calls = max_pending + _SPARE_CALLS
    server = grpc.aio.server(
        options=[
            # Above 1,000 calls not yet accepted grpc would cancel at random; with these the bound below is met first,
            # and a call too many gets a clean RESOURCE_EXHAUSTED.
            ("grpc.server.max_pending_requests", 1_000_000),
            ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _RECEIVED_BYTES),
            # What grpc receives of a call before anybody asks for it; as measured by itself it would become megabytes.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _UNASKED_BYTES),
            # A connection whose peer has stopped reading is closed, or its calls would keep their places.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ],
        # Guard and HealthService bound their own calls; this bounds those whose last answer is still being sent.
        maximum_concurrent_rpcs=2 * calls,
    )
    guard = Guard(settings.api_token, settings.admin_token, most_calls=calls)
    handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
        PUBLISHER: {
            "Publish": guard.unary(publisher.publish),
            "PublishBatch": guard.unary(publisher.publish_batch),
            "PublishStream": guard.stream(publisher.publish_stream),
        },
        QUEUE: {
            "GetQueueStatus": guard.unary(queue.get_queue_status),
            "ListDeadLetters": guard.unary(queue.list_dead_letters),
            "GetDeadLetter": guard.unary(queue.get_dead_letter),
            "ReplayDeadLetters": guard.admin(queue.replay_dead_letters),
            "DiscardDeadLetters": guard.admin(queue.discard_dead_letters),
            "TailEvents": guard.server_stream(queue.tail_events),
            "ListGroups": guard.unary(groups.list_groups),
            "CreateGroup": guard.admin(groups.create_group),
            "RemoveGroup": guard.admin(groups.remove_group),
            "ResetGroup": guard.admin(groups.reset_group),
        },
    }
    reflected = guard.stream(reflection.answering((*handlers, HEALTH, reflection.NAME)))
    handlers |= {name: {"ServerReflectionInfo": reflected} for name in (reflection.NAME, reflection.V1_NAME)}
    server.add_generic_rpc_handlers([
        grpc.method_handlers_generic_handler(name, methods) for name, methods in handlers.items()
    ])  # fmt: skip
    # Registered by their names they have a queue of their own, and do not wait behind calls that are not accepted yet.
    server.add_registered_method_handlers(HEALTH, health.handlers())
    files = _tls_files(settings)
    return server, [_bind(server, address, files, settings) for address in settings.listen], files


def _tls_files(settings: ServerSettings) -> CertificateFiles[Any] | None:
    """Those that the settings name, as grpc takes them. Raises SettingsError."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    cert, key = (_CERT, settings.tls_cert_file), (_KEY, settings.tls_key_file)
    authority = settings.tls_client_ca_file

    def load(contents: Contents) -> Any:
        """Try them first: grpc would not say what is wrong."""
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_pair(trial, cert, key)
        if authority:
            try:
                trial.load_verify_locations(authority)
            except OSError:
                raise SettingsError(f"{_CLIENT_CA} is {str(authority)!r}: it must hold certificates, PEM") from None
        return grpc.ssl_server_certificate_configuration([(contents[_KEY], contents[_CERT])], contents.get(_CLIENT_CA))

    return CertificateFiles(dict([cert, key, (_CLIENT_CA, authority)]), load)


def _credentials(files: CertificateFiles[Any], *, ask_clients: bool) -> grpc.ServerCredentials:
    """For one address: each handshake has what the files hold then."""
    first = served = files.current()

    def renewed() -> Any:
        """What grpc asks for before a handshake, in a thread of its own, one at a time; None: as before."""
        nonlocal served
        before, served = served, files.current()
        return None if served is before else served

    return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=ask_clients)


def _bind(server: grpc.aio.Server, address: str, files: CertificateFiles[Any] | None, settings: ServerSettings) -> str:
    """Listen there, and return the address with its real port. Raises SettingsError."""
    try:
        if address.startswith("unix:"):
            _bind_socket(server, Path(address.removeprefix("unix:")), settings.socket_mode)
            return address
        if files is None:
            port = server.add_insecure_port(address)
        else:
            ask_clients = settings.tls_client_ca_file is not None
            port = server.add_secure_port(address, _credentials(files, ask_clients=ask_clients))
    except RuntimeError:
        if files is not None and _is_free(server, address):
            raise SettingsError(f"{_CERT} holds a certificate of a kind that gRPC does not know") from None
        raise SettingsError(f"SIDECAR_LISTEN has {address!r}: cannot bind (already in use?)") from None
    return f"{address.rpartition(':')[0]}:{port}"


def _is_free(server: grpc.aio.Server, address: str) -> bool:
    """Whether it can be bound without TLS, on a server that never starts: ssl knows more kinds of keys than grpc."""
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        return False
    return True


def _bind_socket(server: grpc.aio.Server, path: Path, mode: int) -> None:
    """A unix socket is guarded by its mode; TLS there would only keep the health command out."""
    _clear_socket(path)
    umask = os.umask(0o777 & ~mode)  # after a chmod it would be open to all for a moment
    try:
        server.add_insecure_port(f"unix:{path}")
    finally:
        os.umask(umask)


def _clear_socket(path: Path) -> None:
    """Remove a socket that nobody listens on. grpc would silently take over a live one.

    Raises SettingsError, also where none can be made: grpc would not say why.
    """
    problem = ""
    try:
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            problem = f"a path of more than {_SOCKET_PATH_BYTES} bytes"
        elif not path.parent.is_dir():
            problem = "its directory does not exist"
        elif path.exists():
            problem = _occupied(path)
        if not problem and not os.access(path.parent, os.W_OK | os.X_OK):
            problem = "its directory cannot be written to"
        if not problem:
            path.unlink(missing_ok=True)
    except OSError as error:
        problem = f"{error.strerror}"
    if problem:
        raise SettingsError(f"SIDECAR_LISTEN has 'unix:{path}': {problem}")


def _occupied(path: Path) -> str:
    """What stands there and must stay; "" for a socket that nobody listens on. Raises OSError."""
    if not stat.S_ISSOCK(path.stat().st_mode):
        return "there is a file of another kind"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return ""
        except (BlockingIOError, TimeoutError):
            pass  # its queue of connections is full
    return "another process listens there"
