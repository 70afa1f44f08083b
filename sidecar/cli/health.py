"""The health command: /healthz by HTTP, else one gRPC call.

HTTP is answered in milliseconds while thousands of calls wait, and a gRPC call waits behind them. A container's health
check runs every few seconds beside the sidecar on a fraction of a CPU, where importing grpc costs half a second: it is
imported only if the sidecar at that gRPC address does not answer by HTTP (docs/adr/0007).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys

from sidecar.cli import connection
from sidecar.cli.exits import Failed

_SERVING = 1
_MAX_BYTES = 64 * 1024


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The parser of the command."""
    parser = parsers.add_parser("health", help="exit 0 if the sidecar serves; for a container's health check")
    parser.add_argument("--address", help="default: a unix socket of SIDECAR_LISTEN, else its first")
    parser.add_argument("--service", default="", help="modelready.v1.PublisherService or redis; default: the process")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds (default: 2)")
    parser.add_argument("--json", action="store_true", help="as JSON: address, service, status, error")
    parser.set_defaults(run=run, token="", admin=False, ca_file=None, cert_file=None, key_file=None, server_name=None)


def run(options: argparse.Namespace) -> int:
    """Print the status and return 0 where it is SERVING, else 1."""
    address = options.address or connection.own_address()
    http = "" if options.address else os.environ.get("SIDECAR_HTTP_LISTEN") or "127.0.0.1:9464"
    try:
        status = ask_http(http, address, options.service, options.timeout) if http else None
        if status is None:
            status = _ask_grpc(options)
    except (OSError, ValueError, Failed) as error:
        if options.json:
            print(_as_json(options, address, "UNKNOWN", str(error)))
        else:
            print(f"not healthy: {address}: {error}", file=sys.stderr)
        return 1
    name = "SERVING" if status == _SERVING else "NOT_SERVING"
    print(_as_json(options, address, name) if options.json else name)
    return 0 if status == _SERVING else 1


def _as_json(options: argparse.Namespace, address: str, status: str, error: str = "") -> str:
    return json.dumps({"address": address, "service": options.service, "status": status, "error": error})


def ask_http(http: str, address: str, service: str, timeout: float) -> int | None:
    """The number of the serving status; None if another sidecar answers at `http`, or none.

    Raises TimeoutError, and ValueError for an unknown name.
    """
    host, _, port = connection.reachable(http).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout) as client:
            client.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            with client.makefile("rb") as stream:
                head, _, body = stream.read(_MAX_BYTES).partition(b"\r\n\r\n")
    except TimeoutError:
        raise
    except OSError:
        return None
    try:
        answer = json.loads(body)
        if address not in answer["listen"]:
            return None
        statuses = answer["statuses"]
    except (ValueError, LookupError, TypeError):
        return None
    if service not in statuses:
        raise ValueError(f"no service {service!r}")
    return int(statuses[service]) if b" 200 " in head.partition(b"\r\n")[0] else 0


def _ask_grpc(options: argparse.Namespace) -> int:
    """The number of the serving status. Raises Failed."""
    with connection.connect(options) as sidecar:
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        request = health_pb2.HealthCheckRequest(service=options.service)
        check = health_pb2_grpc.HealthStub(sidecar.channel).Check
        status: int = sidecar.call(check, request, timeout=options.timeout).status
    return status
