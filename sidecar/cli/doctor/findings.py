"""All that doctor can find, in one table: the checks in their order, and what to do about each finding.

docs/troubleshooting.md has the same checks in the same order and every finding by its name; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping

OK, WARNING, FAILURE, SKIPPED = "ok", "warning", "failure", "skipped"

CHECKS = (
    "settings", "dns", "tcp", "tls", "auth", "acl", "keys", "version", "role", "cluster", "replicas", "eviction",
    "memory", "latency", "probe", "spool", "outbox",
)  # fmt: skip

EXPIRES_SOON_DAYS = 30
CLOCK_SKEW_SECONDS = 240
OLDEST_ENGINE = (6, 2)
MEMORY_SHARE = 0.9
LATENCY_P50_MS = 5.0
LATENCY_P99_MS = 50.0
FSYNCS_PER_SECOND = 50
OUTBOX_SECONDS = 300

FINDINGS = {
    "settings-wrong": "Correct the variable in the task definition and start again.",
    "settings-unread": "Correct its name in the task definition, or remove it.",
    "dns-unresolved": "Set REDIS_HOST to the endpoint's name alone, without scheme or port, and look at the VPC's DNS.",
    "tcp-refused": "Compare REDIS_PORT with the endpoint's port, and see that the engine runs.",
    "tcp-timeout": "Let the task's security group reach the port: nothing answers, so something drops the packets.",
    "tcp-unreachable": "Give the task's subnet a route to that address.",
    "tcp-address-dead": "See why the node with that address does not answer, or take it out of the name.",
    "tls-server-plain": "Turn on encryption in transit for the cache, or set REDIS_TLS=false.",
    "tls-server-tls": "Set REDIS_TLS=true.",
    "tls-untrusted": "Set REDIS_TLS_CA_FILE to the authority that signed the server's certificate.",
    "tls-name": "Set REDIS_HOST to a name that the server's certificate has.",
    "tls-expired": "Renew the server's certificate.",
    "tls-not-yet-valid": "Set this machine's clock, or issue a new certificate.",
    "tls-expires-soon": "Renew the server's certificate before that day.",
    "tls-client-certificate":
        "Set REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE to a certificate of an authority that the server "
        "trusts.",
    "tls-handshake": "See that the server offers TLS 1.2 or later on this port, and that no proxy is in between.",
    "tls-no-answer": "See whether the engine hangs: the connection opens, and nothing answers on it.",
    "tls-no-redis": "Set REDIS_HOST and REDIS_PORT to a Redis or Valkey endpoint.",
    "auth-secret-missing": "Correct REDIS_AUTH_SECRET_ID or AWS_REGION: Secrets Manager has no such secret there.",
    "auth-secret-denied":
        "Allow the task role secretsmanager:GetSecretValue on the secret, and kms:Decrypt on its key.",
    "auth-secret-unreachable": "Give the task a way to Secrets Manager: a VPC endpoint or a NAT gateway, port 443.",
    "auth-secret-content": "Store the token itself, or JSON with the token under REDIS_AUTH_SECRET_KEY.",
    "auth-secret-unreadable":
        "Give the task a task role and AWS_REGION, and look at the secret's state in Secrets Manager.",
    "auth-iam-unsigned": "Give the task a task role, and set AWS_REGION.",
    "auth-iam-refused":
        "See that the user's id equals its name, that it is in the cache's user group, that REDIS_IAM_CLUSTER"
        " is the cache's id, that the task role may elasticache:Connect to both, and that the clock is right.",
    "auth-clock": "Set this machine's clock: AWS refuses signatures that are minutes off.",
    "auth-token-missing": "Set REDIS_AUTH_TOKEN, REDIS_AUTH_SECRET_ID or REDIS_IAM_CLUSTER.",
    "auth-token-refused":
        "Set the token that the server has now, or REDIS_USERNAME if the token is another user's than "
        "default's.",
    "auth-user-refused": "See that the user exists on the server, is on, and has this token.",
    "auth-not-asked": "Make the server ask for a token, or unset ours: anyone who reaches it may log in.",
    "auth-login": "Fix what the server says about the login, and run doctor again.",
    "acl-commands": "Add these commands to the user's access string: docs/redis-acl.md.",
    "acl-keys": "Add these key patterns to the user's access string: docs/redis-acl.md.",
    "acl-operating":
        "Add these to the user's access string, docs/redis-acl.md: events are published without them, but "
        "trimming, dead letters, groups or the status are incomplete.",
    "keys-wrong-type": "Set another QUEUE_NAME or QUEUE_LIST, or rename the key: something else uses it.",
    "keys-queue-full": "See which group is behind, and start its consumers: new events are spooled, or refused.",
    "version-old": "Upgrade the engine to Redis 6.2 or later, or to Valkey.",
    "role-replica": "Set REDIS_HOST to the primary endpoint, not to the reader endpoint.",
    "cluster-on": "Set REDIS_CLUSTER=true.",
    "cluster-off": "Set REDIS_CLUSTER=false.",
    "cluster-no-owner": "See that the cluster is whole and that each node can be reached from here.",
    "replicas-too-few": "Add replicas, or lower REDIS_MIN_REPLICAS, or set another PUBLISH_DURABILITY.",
    "eviction-queue":
        "Set maxmemory-policy to noeviction in the parameter group, now: acknowledged events are lost without"
        " a trace.",
    "eviction-policy": "Set maxmemory-policy to noeviction in the parameter group.",
    "memory-nearly-full": "Give the engine more memory, or see which consumer group holds the queue back.",
    "latency-high": "Run the task in the primary's Availability Zone, and look at the engine's load.",
    "probe-refused": "Fix what the server says: docs/troubleshooting.md ends with all reasons.",
    "probe-unconfirmed": "Look at the replication lag: the replicas do not confirm within REDIS_TIMEOUT_SECONDS.",
    "spool-unusable": "Set SPOOL_DIR to a directory that the sidecar's user can write to, on a mounted volume.",
    "spool-network": "Set SPOOL_DIR to a local disk: SQLite's WAL is not safe on this one.",
    "spool-memory": "Set SPOOL_DIR to a disk: what is spooled here ends with the task or the machine.",
    "spool-full": "Make room on the disk of SPOOL_DIR: nothing can be spooled.",
    "spool-room": "Lower SPOOL_MAX_BYTES, or give the disk of SPOOL_DIR more room.",
    "spool-slow": "Use a faster disk for SPOOL_DIR: each group of spooled events waits for one fsync.",
    "outbox-settings": "Correct the OUTBOX_ variable in the task definition and start again.",
    "outbox-unreachable":
        "See that OUTBOX_URL is right, that the database runs and takes this login, and that the task reaches it.",
    "outbox-table": "Create the table in that database: modelready-sidecar outbox ddl prints the statements.",
    "outbox-rights": "Grant the user SELECT, UPDATE and DELETE on modelready_outbox.",
    "outbox-waiting": "See what the sidecar logs about the outbox, or whether one runs with this OUTBOX_URL.",
    "outbox-refused": "See why with modelready-sidecar outbox list, correct the cause, then retry or discard them.",
    "connection-lost": "Run doctor again, and if it stays so look at the engine's load and its log.",
}  # fmt: skip
"""What to do about each, in one sentence. A finding's name begins with its check; any check may meet the last one."""

AWS, KUBERNETES, COMPOSE = "AWS", "Kubernetes", "Compose"
ELSEWHERE = {
    KUBERNETES: {
        "settings-wrong": "Correct the variable in the manifest or in the chart's values, and roll it out again.",
        "settings-unread": "Correct its name in the manifest or in the chart's values, or remove it.",
        "dns-unresolved":
            "See that a Service has that name, from another namespace NAME.NAMESPACE, and that the NetworkPolicy"
            " lets this pod ask DNS.",
        "tcp-refused":
            "See that the pod of Redis is running and ready, and compare REDIS_PORT with the port of its Service.",
        "tcp-timeout":
            "See that the NetworkPolicies of this pod and of Redis allow the port: nothing answers, so something"
            " drops the packets.",
        "tcp-unreachable":
            "See that the pod's network has a route to that address, and that it is of a family, IPv4 or IPv6,"
            " that the cluster has.",
        "auth-secret-denied":
            "Allow the role of the pod's service account secretsmanager:GetSecretValue on the secret, and"
            " kms:Decrypt on its key.",
        "auth-secret-unreachable":
            "See that the pod's NetworkPolicy lets it reach Secrets Manager on port 443, and that its subnet has a"
            " VPC endpoint or a NAT gateway.",
        "auth-secret-unreadable":
            "Give the pod's service account an IAM role, set AWS_REGION, and look at the secret's state in Secrets"
            " Manager.",
        "auth-iam-unsigned": "Give the pod's service account an IAM role, and set AWS_REGION.",
        "auth-iam-refused":
            "See that the user's id equals its name, that it is in the cache's user group, that REDIS_IAM_CLUSTER"
            " is the cache's id, that the role of the pod's service account may elasticache:Connect to both, and"
            " that the clock is right.",
    },
    COMPOSE: {
        "settings-wrong": "Correct the variable in the Compose file or in its env_file, and start again.",
        "settings-unread": "Correct its name in the Compose file or in its env_file, or remove it.",
        "dns-unresolved":
            "See that the container is running, that it shares a network with this one, and that REDIS_HOST is"
            " the name of its service.",
        "tcp-refused":
            "See that the container is running, that REDIS_PORT is its own port and not the published one, and"
            " that REDIS_HOST is not localhost, which is this container itself.",
        "tcp-timeout":
            "See whether the container is paused or hangs, and shares a network with this one: nothing answers.",
        "tcp-unreachable": "See that the container is running and shares a network with this one.",
        "auth-secret-denied":
            "Allow the owner of the container's AWS credentials secretsmanager:GetSecretValue on the secret, and"
            " kms:Decrypt on its key.",
        "auth-secret-unreachable":
            "See that the container reaches Secrets Manager on port 443: its network must not be internal.",
        "auth-secret-unreadable":
            "Give the container AWS credentials and AWS_REGION, and look at the secret's state in Secrets Manager.",
        "auth-iam-unsigned": "Give the container AWS credentials, and set AWS_REGION.",
        "auth-iam-refused":
            "See that the user's id equals its name, that it is in the cache's user group, that REDIS_IAM_CLUSTER"
            " is the cache's id, that the owner of the container's AWS credentials may elasticache:Connect to both,"
            " and that the clock is right.",
    },
}  # fmt: skip
"""What to do outside AWS, where that is something else."""


def place_of(environ: Mapping[str, str]) -> str:
    """Where this runs. A host without a dot is a service of Compose, unless the environment says more."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return KUBERNETES
    if "ECS_CONTAINER_METADATA_URI_V4" in environ or "." in environ.get("REDIS_HOST", "."):
        return AWS
    return COMPOSE


def todo(finding: str, place: str) -> str:
    """What to do about it there."""
    return ELSEWHERE.get(place, {}).get(finding, FINDINGS[finding])


WARNINGS = frozenset({
    "settings-unread", "tcp-address-dead", "tls-expires-soon", "auth-not-asked", "acl-operating", "keys-queue-full",
    "eviction-policy", "memory-nearly-full", "latency-high", "spool-memory", "spool-room", "spool-slow",
    "outbox-waiting", "outbox-refused",
})  # fmt: skip
"""Those after which events are published all the same; the others are failures."""


def status_of(finding: str) -> str:
    """How bad it is."""
    return WARNING if finding in WARNINGS else FAILURE


def check_of(finding: str) -> str:
    """The check that it belongs to; empty where any may meet it."""
    check = finding.partition("-")[0]
    return check if check in CHECKS else ""
