"""The gRPC server: services, limits, addresses."""

from __future__ import annotations

import socket
import ssl
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidecar.api import accepting
from sidecar.api.guard import Guard
from sidecar.api.health import HealthService
from sidecar.api.publisher_service import NAME as PUBLISHER
from sidecar.api.publisher_service import PublisherService
from sidecar.api.queue_service import NAME as QUEUE
from sidecar.api.queue_service import QueueService
from sidecar.errors import SettingsError
from sidecar.settings import ServerSettings

_SPARE_CALLS = 2000  # streams, Watches and status calls beside the events that may wait
_MESSAGE_BYTES = 4 * 1024 * 1024


def build(
    settings: ServerSettings,
    max_pending: int,
    health: HealthService,
    publisher: PublisherService,
    queue: QueueService,
) -> tuple[grpc.aio.Server, list[str]]:
    """Return a server that is bound but not started, and its addresses with their real ports.

    Raises SettingsError where an address cannot be had.
    """
    calls = max_pending + _SPARE_CALLS
    server = accepting.server(
        options=[
            # Above 1,000 calls not yet accepted grpc would cancel at random; with these the bound below is met first,
            # and a call too many gets a clean RESOURCE_EXHAUSTED.
            ("grpc.server.max_pending_requests", 1_000_000),
            ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5000),
        ],
        maximum_concurrent_rpcs=calls,
    )
    guard = Guard(settings.api_token, settings.admin_token)
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
        },
    }
    server.add_generic_rpc_handlers([
        grpc.method_handlers_generic_handler(name, methods) for name, methods in handlers.items()
    ])  # fmt: skip
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = (*handlers, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    credentials = _credentials(settings)
    return server, [_bind(server, address, credentials) for address in settings.listen]


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    authority = settings.tls_client_ca_file
    _check_pem(settings.tls_cert_file, settings.tls_key_file, authority)
    return grpc.ssl_server_credentials(
        [(settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())],
        root_certificates=authority.read_bytes() if authority else None,
        require_client_auth=authority is not None,
    )


def _check_pem(cert: Path, key: Path, authority: Path | None) -> None:
    """Name what is wrong; grpc would say that the address cannot be had. Raises SettingsError."""
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wrong = f"SIDECAR_TLS_CERT_FILE is {str(cert)!r}: it must hold a certificate, PEM, and SIDECAR_TLS_KEY_FILE its key"
    try:
        trial.load_cert_chain(cert, key)
        if authority:
            wrong = f"SIDECAR_TLS_CLIENT_CA_FILE is {str(authority)!r}: it must hold certificates, PEM"
            trial.load_verify_locations(authority)
    except ssl.SSLError:
        raise SettingsError(wrong) from None


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    path = Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
    if path is not None:
        _clear_socket(path)
    try:
        # A unix socket is guarded by its mode; TLS there would only keep the health command out.
        secure = credentials if path is None else None
        port = server.add_secure_port(address, secure) if secure else server.add_insecure_port(address)
    except RuntimeError:
        raise SettingsError(f"SIDECAR_LISTEN has {address!r}: that address cannot be had (in use?)") from None
    if path is not None:
        path.chmod(0o660)
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def _clear_socket(path: Path) -> None:
    """Remove a socket that nobody listens on. grpc would take over a live one without a word."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise SettingsError(f"SIDECAR_LISTEN has 'unix:{path}': there is a file of another kind")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        with suppress(ConnectionRefusedError, FileNotFoundError):
            probe.connect(str(path))
            raise SettingsError(f"SIDECAR_LISTEN has 'unix:{path}': another process listens there")
    path.unlink(missing_ok=True)
