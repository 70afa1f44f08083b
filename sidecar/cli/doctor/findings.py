"""All that doctor can find, in one table: the checks in their order, and what each finding asks of a person.

docs/troubleshooting.md has the same checks in the same order and every finding by its name; a test compares them.
"""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, FAILURE, SKIPPED = "ok", "warning", "failure", "skipped"

CHECKS = (
    "settings", "dns", "tcp", "tls", "auth", "acl", "keys", "version", "role", "cluster", "replicas", "eviction",
    "memory", "latency", "probe", "spool",
)  # fmt: skip

EXPIRES_SOON_DAYS = 30
CLOCK_SKEW_SECONDS = 240
OLDEST_ENGINE = (6, 2)
MEMORY_SHARE = 0.9
LATENCY_P50_MS = 5.0
LATENCY_P99_MS = 50.0
FSYNCS_PER_SECOND = 50


class Finding(NamedTuple):
    """What something that is not well is called, in which check, how bad it is, and what to do, in one sentence.

    `check` is empty where any check may meet it.
    """

    check: str
    status: str
    todo: str


FINDINGS = {
    "settings-wrong": Finding("settings", FAILURE, "Correct the variable in the task definition and start again."),
    "settings-unread": Finding("settings", WARNING, "Correct its name in the task definition, or remove it."),
    "dns-unresolved": Finding(
        "dns", FAILURE,
        "Set REDIS_HOST to the endpoint's name alone, without scheme or port, and look at the VPC's DNS.",
    ),
    "tcp-refused": Finding(
        "tcp", FAILURE, "Compare REDIS_PORT with the endpoint's port, and see that the engine runs."
    ),
    "tcp-timeout": Finding(
        "tcp", FAILURE, "Let the task's security group reach the port: nothing answers, so something drops the packets."
    ),
    "tcp-unreachable": Finding("tcp", FAILURE, "Give the task's subnet a route to that address."),
    "tcp-address-dead": Finding(
        "tcp", WARNING, "See why the node with that address does not answer, or take it out of the name."
    ),
    "tls-server-plain": Finding(
        "tls", FAILURE, "Turn on encryption in transit for the cache, or set REDIS_TLS=false."
    ),
    "tls-server-tls": Finding("tls", FAILURE, "Set REDIS_TLS=true."),
    "tls-untrusted": Finding(
        "tls", FAILURE, "Set REDIS_TLS_CA_FILE to the authority that signed the server's certificate."
    ),
    "tls-name": Finding("tls", FAILURE, "Set REDIS_HOST to a name that the server's certificate has."),
    "tls-expired": Finding("tls", FAILURE, "Renew the server's certificate."),
    "tls-not-yet-valid": Finding("tls", FAILURE, "Set this machine's clock, or issue the certificate anew."),
    "tls-expires-soon": Finding("tls", WARNING, "Renew the server's certificate before that day."),
    "tls-client-certificate": Finding(
        "tls", FAILURE,
        "Set REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE to a certificate of an authority that the server trusts.",
    ),
    "tls-handshake": Finding(
        "tls", FAILURE, "See that the server offers TLS 1.2 or later on this port, and that no proxy is in between."
    ),
    "tls-no-answer": Finding(
        "tls", FAILURE, "See whether the engine hangs: the connection opens, and nothing answers on it."
    ),
    "tls-no-redis": Finding("tls", FAILURE, "Set REDIS_HOST and REDIS_PORT to a Redis or Valkey endpoint."),
    "auth-secret-missing": Finding(
        "auth", FAILURE, "Correct REDIS_AUTH_SECRET_ID or AWS_REGION: Secrets Manager has no such secret there."
    ),
    "auth-secret-denied": Finding(
        "auth", FAILURE,
        "Allow the task role secretsmanager:GetSecretValue on the secret, and kms:Decrypt on its key.",
    ),
    "auth-secret-unreachable": Finding(
        "auth", FAILURE, "Give the task a way to Secrets Manager: a VPC endpoint or a NAT gateway, port 443."
    ),
    "auth-secret-content": Finding(
        "auth", FAILURE, "Store the token itself, or JSON with the token under REDIS_AUTH_SECRET_KEY."
    ),
    "auth-secret-unreadable": Finding(
        "auth", FAILURE, "Give the task a task role and AWS_REGION, and look at the secret's state in Secrets Manager."
    ),
    "auth-iam-unsigned": Finding("auth", FAILURE, "Give the task a task role, and set AWS_REGION."),
    "auth-iam-refused": Finding(
        "auth", FAILURE,
        "See that the user's id equals its name, that it is in the cache's user group, that REDIS_IAM_CLUSTER is the "
        "cache's id, that the task role may elasticache:Connect to both, and that the clock is right.",
    ),
    "auth-clock": Finding("auth", FAILURE, "Set this machine's clock: AWS refuses signatures that are minutes off."),
    "auth-token-missing": Finding(
        "auth", FAILURE, "Set REDIS_AUTH_TOKEN, REDIS_AUTH_SECRET_ID or REDIS_IAM_CLUSTER."
    ),
    "auth-token-refused": Finding(
        "auth", FAILURE,
        "Set the token that the server has now, or REDIS_USERNAME if the token is another user's than default's.",
    ),
    "auth-user-refused": Finding(
        "auth", FAILURE, "See that the user exists on the server, is on, and has this token."
    ),
    "auth-not-asked": Finding(
        "auth", WARNING, "Make the server ask for a token, or unset ours: anyone who reaches it may log in."
    ),
    "auth-login": Finding("auth", FAILURE, "Mend what the server says of the login, and run doctor again."),
    "acl-commands": Finding("acl", FAILURE, "Add these commands to the user's access string: docs/redis-acl.md."),
    "acl-keys": Finding("acl", FAILURE, "Add these key patterns to the user's access string: docs/redis-acl.md."),
    "acl-operating": Finding(
        "acl", WARNING,
        "Add these to the user's access string, docs/redis-acl.md: events are published without them, but trimming, "
        "dead letters or the status are cut short.",
    ),
    "keys-wrong-type": Finding(
        "keys", FAILURE, "Set another QUEUE_NAME or QUEUE_LIST, or rename the key: something else uses it."
    ),
    "keys-queue-full": Finding(
        "keys", WARNING, "See which group is behind, and start its consumers: new events are spooled, or refused."
    ),
    "version-old": Finding("version", FAILURE, "Upgrade the engine to Redis 6.2 or later, or to Valkey."),
    "role-replica": Finding("role", FAILURE, "Set REDIS_HOST to the primary endpoint, not to the reader endpoint."),
    "cluster-on": Finding("cluster", FAILURE, "Set REDIS_CLUSTER=true."),
    "cluster-off": Finding("cluster", FAILURE, "Set REDIS_CLUSTER=false."),
    "cluster-no-owner": Finding(
        "cluster", FAILURE, "See that the cluster is whole and that each node can be reached from here."
    ),
    "replicas-too-few": Finding(
        "replicas", FAILURE, "Add replicas, or lower REDIS_MIN_REPLICAS, or set another PUBLISH_DURABILITY."
    ),
    "eviction-queue": Finding(
        "eviction", FAILURE,
        "Set maxmemory-policy to noeviction in the parameter group, now: acknowledged events are lost without a trace.",
    ),
    "eviction-policy": Finding("eviction", WARNING, "Set maxmemory-policy to noeviction in the parameter group."),
    "memory-nearly-full": Finding(
        "memory", WARNING, "Give the engine more memory, or see which consumer group holds the queue back."
    ),
    "latency-high": Finding(
        "latency", WARNING, "Run the task in the primary's Availability Zone, and look at the engine's load."
    ),
    "probe-refused": Finding(
        "probe", FAILURE, "Mend what the server says: docs/troubleshooting.md ends with all reasons."
    ),
    "probe-unconfirmed": Finding(
        "probe", FAILURE, "Look at the replication lag: the replicas do not confirm within REDIS_TIMEOUT_SECONDS."
    ),
    "spool-unusable": Finding(
        "spool", FAILURE, "Set SPOOL_DIR to a directory that the sidecar's user can write to, on a mounted volume."
    ),
    "spool-network": Finding("spool", FAILURE, "Set SPOOL_DIR to a local disk: SQLite's WAL is not safe on this one."),
    "spool-memory": Finding(
        "spool", WARNING, "Set SPOOL_DIR to a disk: what is spooled here ends with the task or the machine."
    ),
    "spool-full": Finding("spool", FAILURE, "Make room on the disk of SPOOL_DIR: nothing can be spooled."),
    "spool-room": Finding("spool", WARNING, "Lower SPOOL_MAX_BYTES, or give the disk of SPOOL_DIR more room."),
    "spool-slow": Finding(
        "spool", WARNING, "Use a faster disk for SPOOL_DIR: each group of spooled events waits for one fsync."
    ),
    "connection-lost": Finding(
        "", FAILURE, "Run doctor again, and if it stays so look at the engine's load and its log."
    ),
}  # fmt: skip
