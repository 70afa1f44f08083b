"""The settings, read from the environment once, at the start. Each part of the sidecar gets only its own group.

A wrong value raises SettingsError: one line with the variable, its value and the allowed values. An empty variable
counts as unset. The value of a secret is never in an error, a repr or a log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_type_hints

from modelready.entry import ENCODINGS, Encoding
from modelready.keys import Keys
from modelready.redis import env
from modelready.redis.env import FILE, FLAG, Kind, SettingsError, choice, number, read, seconds, text, variable
from modelready.redis.lists import ListSettings, hash_tag
from modelready.redis.settings import QueueName, RedisSettings
from sidecar.env import ADDRESS, ADDRESSES, BEARER, DATABASE, MODE, FileMode

GIBIBYTE = 1024**3
DAY = 86400


@dataclass(frozen=True, kw_only=True)
class QueueSettings(ListSettings, QueueName):
    """The queue in Redis."""

    encoding: Encoding = variable(
        "QUEUE_ENCODING", choice(*ENCODINGS), "protobuf", "Encoding of the data in the stream's entries."
    )
    dedup_seconds: int = variable(
        "QUEUE_DEDUP_SECONDS",
        number(60, 30 * DAY, "seconds"),
        DAY,
        "How long the id of a published event is remembered. Within this time a repeated event makes no second entry.",
        note="a day",
    )
    max_depth: int = variable(
        "QUEUE_MAX_DEPTH",
        number(0, 10**12),
        0,
        "The most entries that the slowest consumer group may leave unacknowledged. Further events are spooled or"
        " refused, never dropped. Without groups it limits the longest mirror list; without lists, too, the stream.",
        note="no limit",
    )
    retention_seconds: float = variable(
        "QUEUE_RETENTION_SECONDS",
        seconds(0, 10 * 365 * DAY),
        7.0 * DAY,
        "How long entries are kept, counted from their arrival. Older ones are removed when every consumer group has"
        " acknowledged them; without groups, when the mirror lists have them. 0 keeps entries for ever.",
        note="a week",
    )


@dataclass(frozen=True, kw_only=True)
class PublishSettings:
    """How events are accepted, and how Redis is tried again."""

    durability: str = variable(
        "PUBLISH_DURABILITY",
        choice("spooled", "primary", "replicated"),
        "spooled",
        "The durability of calls that name none.",
    )
    timeout: float = variable(
        "PUBLISH_TIMEOUT_SECONDS",
        seconds(0.1, 300),
        5.0,
        "The longest that a publish may take. A call's own deadline may make it shorter.",
    )
    source: str = variable(
        "SIDECAR_SOURCE",
        text("any text, a URI reference is usual"),
        "//model-registry",
        "`source` of events that name none.",
    )
    max_pending: int = variable(
        "SIDECAR_MAX_PENDING",
        number(1, 1_000_000),
        10_000,
        "The most events that may wait in memory; they may also take at most 16 MiB there. Further events are refused"
        " with `RESOURCE_EXHAUSTED`.",
    )
    retry_base: float = variable(
        "RETRY_BASE_SECONDS",
        seconds(0.001, 60),
        0.05,
        "The longest wait before the first retry. It doubles with each retry; the wait is drawn at random below it.",
    )
    retry_max: float = variable(
        "RETRY_MAX_SECONDS",
        seconds(0.01, 3600),
        0.8,
        "The longest wait between two retries; not below `RETRY_BASE_SECONDS`.",
    )

    def check(self) -> None:
        """Raise SettingsError where two values contradict each other."""
        if self.retry_max < self.retry_base:
            raise SettingsError(
                f"RETRY_MAX_SECONDS is {self.retry_max}: it must not be below RETRY_BASE_SECONDS, {self.retry_base}"
            )


SPOOL_PLACE = "a path on a local disk, not EFS or NFS"


@dataclass(frozen=True, kw_only=True)
class SpoolSettings:
    """The spool on this task's disk."""

    directory: Path = variable(
        "SPOOL_DIR",
        Kind(SPOOL_PLACE, Path),
        Path("/var/lib/modelready-sidecar"),
        "The directory of the spool. A missing one is made, with mode 0700. Its disk needs at least 18 MB free.",
    )
    max_bytes: int = variable(
        "SPOOL_MAX_BYTES",
        number(4096, 2**50, "bytes"),
        GIBIBYTE,
        "The most bytes that the spooled events may take.",
        note="1 GiB",
    )
    max_age: float = variable(
        "SPOOL_MAX_AGE_SECONDS",
        seconds(1, 10 * 365 * DAY),
        7.0 * DAY,
        "A spooled event that is older than this becomes a dead letter.",
        note="a week",
    )


@dataclass(frozen=True, kw_only=True)
class OutboxSettings:
    """The outbox of a registry that this sidecar empties."""

    url: str = variable(
        "OUTBOX_URL",
        DATABASE,
        "",
        "The registry's database, such as `postgresql://registry@db.internal/registry`: its table `modelready_outbox`"
        " is published and emptied. Needs the extra `outbox`.",
        note="no outbox",
        secret=True,
    )
    password: str = variable(
        "OUTBOX_PASSWORD",
        text(),
        "",
        "The password of the URL's user; a line's end behind it does not count.",
        note="the URL's, if any",
        secret=True,
    )
    secret_id: str = variable(
        "OUTBOX_SECRET_ID",
        text("a name or an ARN"),
        "",
        "Secrets Manager secret that holds the password, and the user's name where the URL has none, as RDS makes it."
        " It is read at run time, so a rotation needs no restart. Needs the extra `aws`.",
    )
    secret_key: str = variable(
        "OUTBOX_SECRET_KEY", text("any name"), "password", "Where it is JSON, the key of the password in it."
    )
    iam: bool = variable(
        "OUTBOX_IAM",
        FLAG,
        False,
        "Turns on IAM authentication of RDS and Aurora for the URL's user, over TLS. Needs the extra `aws`.",
    )
    tls_ca_file: Path | None = variable(
        "OUTBOX_TLS_CA_FILE",
        FILE,
        None,
        "The authority to trust, PEM: the connection is TLS, and the server's name is verified.",
        note="what the URL and the driver say",
    )
    durability: str = variable(
        "OUTBOX_DURABILITY",
        choice("spooled", "primary", "replicated"),
        "primary",
        "The least durability for which a row is deleted.",
    )
    poll: float = variable(
        "OUTBOX_POLL_SECONDS",
        seconds(0.05, 3600),
        1.0,
        "How often the table is looked at. PostgreSQL announces rows besides, so that they need not wait for that.",
    )

    def check(self) -> None:
        """Refuse what does not fit together."""
        sources = {
            "OUTBOX_PASSWORD": self.password,
            "OUTBOX_SECRET_ID": self.secret_id,
            "OUTBOX_IAM": self.iam,
        }
        given = [name for name, value in sources.items() if value]
        if len(given) > 1:
            raise SettingsError(f"{' and '.join(given)} are set: only one of them may be")
        if given and not self.url:
            raise SettingsError(f"{given[0]} is set and OUTBOX_URL is not: it must name the database")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The local API."""

    listen: tuple[str, ...] = variable(
        "SIDECAR_LISTEN", ADDRESSES, ("127.0.0.1:50051",), "The addresses where gRPC is served."
    )
    socket_mode: FileMode = variable(
        "SIDECAR_SOCKET_MODE",
        MODE,
        FileMode(0o660),
        "The mode of the unix sockets. A user who may write to a socket may call. If the registry runs as another user,"
        " give it the sidecar's group (10001 in the image). Or set 0666, and mount the socket's directory into no other"
        " container: without `SIDECAR_ADMIN_TOKEN`, callers on the socket may also change dead letters and groups.",
    )
    api_token: str = variable(
        "SIDECAR_API_TOKEN",
        BEARER,
        "",
        "Every call but health checks must carry this bearer token.",
        note="no token needed",
        secret=True,
    )
    admin_token: str = variable(
        "SIDECAR_ADMIN_TOKEN",
        BEARER,
        "",
        "Calls that change dead letters or groups (`ReplayDeadLetters`, `DiscardDeadLetters`, `CreateGroup`,"
        " `RemoveGroup`, `ResetGroup`) must carry this bearer token. It is valid for every other call, too. An operator"
        " who signs in with it on the page may make these changes there.",
        note="those calls are answered on loopback and unix sockets only, and the page offers none of them",
        secret=True,
    )
    tls_cert_file: Path | None = variable(
        "SIDECAR_TLS_CERT_FILE",
        FILE,
        None,
        "The server's certificate, PEM; needs `SIDECAR_TLS_KEY_FILE`. It serves host:port, not unix sockets. This"
        " file and the next two are read again when they change; the next handshake uses the new ones. While the new"
        " ones do not fit together, the previous ones stay in use and the log says why. Mount the files' directory: a"
        " single mounted file, or a subPath, does not change in the container.",
        note="no TLS",
    )
    tls_key_file: Path | None = variable(
        "SIDECAR_TLS_KEY_FILE", FILE, None, "The private key of that certificate, PEM."
    )
    tls_client_ca_file: Path | None = variable(
        "SIDECAR_TLS_CLIENT_CA_FILE",
        FILE,
        None,
        "The authority, PEM, that must have signed the certificates of clients.",
        note="clients need no certificate",
    )
    http_listen: str = variable(
        "SIDECAR_HTTP_LISTEN",
        ADDRESS,
        "127.0.0.1:9464",
        "The address where HTTP is served: `/metrics`, `/healthz`, `/readyz` and, at `/`, a page for operators. The"
        " host `[::]` means every address, IPv6 and IPv4.",
    )
    shutdown: float = variable(
        "SIDECAR_SHUTDOWN_SECONDS",
        seconds(0.5, 600),
        25.0,
        "The longest that a stop may take. On ECS it must be below `stopTimeout`.",
    )

    def check(self) -> None:
        """Raise SettingsError where two values contradict each other."""
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise SettingsError("SIDECAR_TLS_CERT_FILE and SIDECAR_TLS_KEY_FILE must be set together")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise SettingsError("SIDECAR_TLS_CLIENT_CA_FILE needs SIDECAR_TLS_CERT_FILE and SIDECAR_TLS_KEY_FILE")


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    """Metrics in other forms than /metrics."""

    emf: bool = variable(
        "METRICS_EMF",
        FLAG,
        False,
        "Write metrics for CloudWatch to standard output, in the embedded metric format, once a minute and at the stop."
        " Their dimensions are Service (`SIDECAR_SOURCE`) and Queue (`QUEUE_NAME`).",
    )


@dataclass(frozen=True, kw_only=True)
class TracingSettings:
    """The variables of OpenTelemetry that turn tracing on or off. Its SDK reads these and many more."""

    endpoint: str = variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        text("a URL"),
        "",
        "The collector's URL, such as `http://localhost:4317`. A URL turns tracing on.",
    )
    traces_endpoint: str = variable(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        text("a URL"),
        "",
        "A URL for traces alone, instead of the one above. It turns tracing on, too.",
    )
    protocol: str = variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        text("grpc, or http/protobuf, which needs `opentelemetry-exporter-otlp-proto-http`"),
        "grpc",
        "The protocol that spans are sent by.",
    )
    traces_protocol: str = variable(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        text("the same"),
        "",
        "The protocol for traces alone, instead of the one above.",
    )
    exporter: str = variable(
        "OTEL_TRACES_EXPORTER",
        text("otlp or none"),
        "",
        "`otlp` turns tracing on, also without a URL: it is `http://localhost:4317` then. `none` turns tracing off.",
        note="the URLs decide",
    )
    disabled: str = variable(
        "OTEL_SDK_DISABLED",
        text("true, or any other text"),
        "",
        "`true` turns tracing off, whatever the other variables say.",
    )

    @property
    def on(self) -> bool:
        """Whether tracing is on."""
        if self.disabled.strip().lower() == "true":  # as the SDK reads it
            return False
        if self.exporter:
            return "otlp" in self.exporter.lower().replace(" ", "").split(",")
        return bool(self.endpoint or self.traces_endpoint)


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What is logged."""

    level: str = variable(
        "LOG_LEVEL",
        choice("debug", "info", "warning", "error"),
        "info",
        "The lowest level that is logged. Lines of one kind are limited to 10 at once and 5 a second; the log says how"
        " many were left out. `debug` has no limit and logs every event, which costs throughput.",
    )
    format: str = variable(
        "LOG_FORMAT", choice("json", "text"), "", "The format of the log.", note="text on a terminal and json elsewhere"
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, by group."""

    redis: RedisSettings
    queue: QueueSettings
    publish: PublishSettings
    spool: SpoolSettings
    outbox: OutboxSettings
    server: ServerSettings
    metrics: MetricsSettings
    tracing: TracingSettings
    log: LogSettings

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read all groups. `environ` defaults to os.environ. Raises SettingsError."""
        environ = os.environ if environ is None else environ
        if not environ.get("REDIS_HOST"):
            raise SettingsError("REDIS_HOST is not set: it must name the Redis host (or start with serve --embedded)")
        settings = cls(**{name: read(group, environ) for name, group in get_type_hints(cls).items()})
        keys = Keys(settings.queue.name)
        for mirror in settings.queue.lists:
            for name, key in mirror.keys.items():
                if key in (keys.events, keys.dead_letters):
                    raise SettingsError(f"{name} makes {key!r} a list: it must not be the queue's own key")
                if settings.redis.cluster and hash_tag(key) != keys.queue:
                    raise SettingsError(
                        f"{name} makes {key!r} a list: with REDIS_CLUSTER=true it must carry the queue's hash tag"
                        f" {keys.tag}, so that both are in one slot"
                    )
        return settings


GROUPS: tuple[type, ...] = tuple(get_type_hints(Settings).values())


def misspelt(environ: Mapping[str, str] | None = None) -> list[str]:
    """See modelready.redis.env.misspelt."""
    environ = os.environ if environ is None else environ
    others = ("AWS_", "OTEL_")  # their SDKs know far more variables than are listed here
    known = {setting.metadata["name"] for group in GROUPS for setting in fields(group)}
    ours = {name: value for name, value in environ.items() if not name.startswith(others)}
    return env.misspelt(ours, {name for name in known if not name.startswith(others)})
