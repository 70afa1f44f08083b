"""The REDIS_... variables. The sidecar and the consumers read them here, so both refuse the same environments alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from modelready.redis.env import (
    FILE,
    FLAG,
    HOST,
    QUEUE,
    URL,
    SettingsError,
    is_loopback,
    misspelt,
    number,
    read,
    seconds,
    text,
    variable,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """How to reach Redis."""

    host: str = variable(
        "REDIS_HOST",
        HOST,
        "",
        "The host of the primary, or of a cluster's configuration endpoint.",
        note="but required, except with `serve --embedded`",
    )
    port: int = variable("REDIS_PORT", number(1, 65535), 6379, "The port of that host.")
    db: int = variable("REDIS_DB", number(0, 65535), 0, "The database's number; 0 in a cluster.")
    cluster: bool = variable(
        "REDIS_CLUSTER", FLAG, False, "Redis is a cluster (ElastiCache: cluster mode enabled, or serverless)."
    )
    username: str = variable("REDIS_USERNAME", text("any name"), "", "The ACL user.", note="the default user")
    auth_token: str = variable(
        "REDIS_AUTH_TOKEN",
        text(),
        "",
        "The password or AUTH token. A line break at its end is ignored.",
        note="no password",
        secret=True,
    )
    auth_secret_id: str = variable(
        "REDIS_AUTH_SECRET_ID",
        text("a name or an ARN"),
        "",
        "The secret in Secrets Manager that holds the token. It is read at run time, so a rotation needs no restart."
        " Needs the extra `aws`.",
    )
    auth_secret_key: str = variable(
        "REDIS_AUTH_SECRET_KEY",
        text("any name"),
        "password",
        "The key of the token in that secret, if the secret is JSON.",
    )
    iam_cluster: str = variable(
        "REDIS_IAM_CLUSTER",
        text("the replication group's id or the serverless cache's name"),
        "",
        "Turns on ElastiCache IAM authentication. Needs `REDIS_USERNAME`, TLS and the extra `aws`.",
    )
    iam_serverless: bool = variable(
        "REDIS_IAM_SERVERLESS", FLAG, False, "The cache of `REDIS_IAM_CLUSTER` is a serverless one."
    )
    aws_region: str = variable(
        "AWS_REGION",
        text("a region's name"),
        "",
        "The AWS region of secrets and of IAM authentication.",
        note="the AWS SDK finds it",
    )
    aws_endpoint_url: str = variable(
        "AWS_ENDPOINT_URL", URL, "", "An endpoint of Secrets Manager in place of AWS's own, for tests."
    )
    tls: bool | None = variable("REDIS_TLS", FLAG, None, "Connect with TLS.", note="true unless the host is loopback")
    tls_ca_file: Path | None = variable(
        "REDIS_TLS_CA_FILE", FILE, None, "The certificate authority to trust, PEM.", note="the system's authorities"
    )
    tls_cert_file: Path | None = variable(
        "REDIS_TLS_CERT_FILE", FILE, None, "The client certificate, PEM; needs `REDIS_TLS_KEY_FILE`."
    )
    tls_key_file: Path | None = variable("REDIS_TLS_KEY_FILE", FILE, None, "The private key of that certificate, PEM.")
    pool_size: int = variable(
        "REDIS_POOL_SIZE", number(2, 256), 4, "The number of connections. All are opened at the start."
    )
    timeout: float = variable(
        "REDIS_TIMEOUT_SECONDS", seconds(0.05, 60), 2.0, "The longest that a connection attempt or a command may take."
    )
    min_replicas: int = variable(
        "REDIS_MIN_REPLICAS", number(1, 5), 1, "How many replicas must confirm an event for `DURABILITY_REPLICATED`."
    )

    def check(self) -> None:
        """Raise SettingsError where two values contradict each other."""
        if not self.host:
            raise SettingsError("REDIS_HOST is not set: it must name the Redis host")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise SettingsError("REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE must be set together")
        if self.tls is None:
            object.__setattr__(self, "tls", not is_loopback(self.host))
        sources = {
            "REDIS_AUTH_TOKEN": self.auth_token,
            "REDIS_AUTH_SECRET_ID": self.auth_secret_id,
            "REDIS_IAM_CLUSTER": self.iam_cluster,
        }
        given = [name for name, value in sources.items() if value]
        if len(given) > 1:
            raise SettingsError(f"{' and '.join(given)} are set: only one of them may be")
        if self.iam_cluster and not (self.tls and self.username):
            raise SettingsError("REDIS_IAM_CLUSTER needs REDIS_USERNAME (the IAM user's name) and REDIS_TLS=true")
        if self.cluster and self.db:
            raise SettingsError(f"REDIS_DB is {self.db}: it must be 0 with REDIS_CLUSTER=true")


@dataclass(frozen=True, kw_only=True)
class QueueName:
    """The variable of the queue that consumers read, too."""

    name: str = variable("QUEUE_NAME", QUEUE, "model-ready", "The queue's name, part of all its keys.")


def queue_name(environ: Mapping[str, str]) -> str:
    """QUEUE_NAME. Raises SettingsError."""
    return read(QueueName, environ).name


def read_settings(environ: Mapping[str, str]) -> RedisSettings:
    """Read a consumer's environment. Raises SettingsError; logs what `misspelt` finds."""
    names = {setting.metadata["name"] for group in (RedisSettings, QueueName) for setting in fields(group)}
    ours = {name: value for name, value in environ.items() if name.upper().startswith(("REDIS_", "QUEUE_NAME"))}
    for sentence in misspelt(ours, names):
        log.warning("%s", sentence)
    return read(RedisSettings, environ)
