"""The REDIS_... variables, for the sidecar and for consumers: both refuse the same environments, in the same words."""

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
        "The primary endpoint, or the configuration endpoint of a cluster.",
        note="but it must be set, unless with `serve --embedded`",
    )
    port: int = variable("REDIS_PORT", number(1, 65535), 6379, "Its port.")
    db: int = variable("REDIS_DB", number(0, 65535), 0, "The database; 0 in a cluster.")
    cluster: bool = variable(
        "REDIS_CLUSTER", FLAG, False, "Redis is a cluster (ElastiCache: cluster mode enabled, or serverless)."
    )
    username: str = variable("REDIS_USERNAME", text("any name"), "", "ACL user.", note="the default user")
    auth_token: str = variable(
        "REDIS_AUTH_TOKEN",
        text(),
        "",
        "Password or AUTH token; a line's end behind it does not count.",
        note="no password",
        secret=True,
    )
    auth_secret_id: str = variable(
        "REDIS_AUTH_SECRET_ID",
        text("a name or an ARN"),
        "",
        "Secrets Manager secret that holds the token. It is read at run time, so a rotation needs no restart."
        " Needs the extra `aws`.",
    )
    auth_secret_key: str = variable(
        "REDIS_AUTH_SECRET_KEY", text("any name"), "password", "Where that secret is JSON, the key of the token in it."
    )
    iam_cluster: str = variable(
        "REDIS_IAM_CLUSTER",
        text("the replication group's id or the serverless cache's name"),
        "",
        "Turns on ElastiCache IAM authentication. Needs `REDIS_USERNAME`, TLS and the extra `aws`.",
    )
    iam_serverless: bool = variable("REDIS_IAM_SERVERLESS", FLAG, False, "That cache is a serverless one.")
    aws_region: str = variable(
        "AWS_REGION",
        text("a region's name"),
        "",
        "Region of secrets and of IAM authentication.",
        note="as the AWS SDK finds it",
    )
    aws_endpoint_url: str = variable(
        "AWS_ENDPOINT_URL", URL, "", "Another endpoint of Secrets Manager than AWS's own, for tests."
    )
    tls: bool | None = variable("REDIS_TLS", FLAG, None, "Speak TLS.", note="which is true unless the host is loopback")
    tls_ca_file: Path | None = variable(
        "REDIS_TLS_CA_FILE", FILE, None, "The authority to trust, PEM.", note="the system's authorities"
    )
    tls_cert_file: Path | None = variable(
        "REDIS_TLS_CERT_FILE", FILE, None, "Client certificate, PEM; together with the next."
    )
    tls_key_file: Path | None = variable("REDIS_TLS_KEY_FILE", FILE, None, "Its private key, PEM.")
    pool_size: int = variable("REDIS_POOL_SIZE", number(2, 256), 4, "Connections, all opened at start.")
    timeout: float = variable(
        "REDIS_TIMEOUT_SECONDS", seconds(0.05, 60), 2.0, "The longest that a connection attempt or a command may take."
    )
    min_replicas: int = variable(
        "REDIS_MIN_REPLICAS", number(1, 5), 1, "Replicas that must confirm an event for `DURABILITY_REPLICATED`."
    )

    def check(self) -> None:
        """Refuse what does not fit together."""
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
    """The one variable of the queue that a consumer reads, too."""

    name: str = variable("QUEUE_NAME", QUEUE, "model-ready", "The queue's name, part of all its keys.")


def queue_name(environ: Mapping[str, str]) -> str:
    """QUEUE_NAME. Raises SettingsError."""
    return read(QueueName, environ).name


def read_settings(environ: Mapping[str, str]) -> RedisSettings:
    """What a consumer's environment says. Raises SettingsError; logs what `misspelt` finds."""
    names = {setting.metadata["name"] for group in (RedisSettings, QueueName) for setting in fields(group)}
    ours = {name: value for name, value in environ.items() if name.upper().startswith(("REDIS_", "QUEUE_NAME"))}
    for sentence in misspelt(ours, names):
        log.warning("%s", sentence)
    return read(RedisSettings, environ)
