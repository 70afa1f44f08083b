"""Rotates ElastiCache's AUTH token: a Lambda function of Secrets Manager, which repeats a step until it succeeds.

Redis takes two tokens, and ROTATE drops the older for the new one: AWSCURRENT must be the newer before. A token that
Redis was given in a rotation that never ended is newer still; the stage IN_REDIS names it, and it is used again.
docs/adr/0016 has the rest.
"""

import json
import os
import secrets
import socket
import ssl
import string
import time
from typing import Any

import boto3
from botocore.config import Config

KEY = "password"  # the token's, in the secret's JSON
GIVEN = "IN_REDIS"  # the stage of a version whose token Redis was given, until it is AWSCURRENT
SPARE = 20  # seconds of Lambda's time
PAUSE = 5.0


def handler(event: dict[str, str], context: Any) -> None:
    """Do one step. Raises what went wrong, never with a token in it."""
    rotation = _Rotation(event, time.monotonic() + context.get_remaining_time_in_millis() / 1000 - SPARE)
    stages = rotation.stages.get(rotation.version, [])
    if "AWSCURRENT" in stages:  # it is done
        if GIVEN in stages:
            rotation.move(GIVEN, "")
        return
    if "AWSPENDING" not in stages:
        raise ValueError("this version is not staged as AWSPENDING")
    steps = {f"{name}Secret": getattr(rotation, name) for name in ("create", "set", "test", "finish")}
    steps[event["Step"]]()
    print(event["Step"], "done")


class _Rotation:
    def __init__(self, event: dict[str, str], deadline: float) -> None:
        self.arn, self.version, self.deadline = event["SecretId"], event["ClientRequestToken"], deadline
        if self.arn != os.environ["SECRET_ARN"]:
            raise ValueError("this function rotates another secret")
        patience = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard"})
        self.store = boto3.client("secretsmanager", config=patience)
        self.cache = boto3.client("elasticache", config=patience)
        about = self.store.describe_secret(SecretId=self.arn)
        if not about.get("RotationEnabled"):
            raise ValueError("rotation is not enabled")
        self.stages: dict[str, list[str]] = about["VersionIdsToStages"]

    def create(self) -> None:
        try:
            self.secret(self.version)
        except self.store.exceptions.ResourceNotFoundException:
            current = self.secret(self.having("AWSCURRENT"))
            token = self.secret(self.having(GIVEN) or self.having("AWSCURRENT"))[KEY]
            if token == current[KEY]:
                token = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(64))
            text = json.dumps({**current, KEY: token})
            self.store.put_secret_value(
                SecretId=self.arn, ClientRequestToken=self.version, SecretString=text, VersionStages=["AWSPENDING"]
            )

    def set(self) -> None:
        token = self.secret(self.version)[KEY]
        if self.accepts(token):
            return
        self.move(GIVEN, self.version)
        self.cache.modify_replication_group(
            ReplicationGroupId=os.environ["GROUP_ID"],
            AuthToken=token,
            AuthTokenUpdateStrategy="ROTATE",
            ApplyImmediately=True,
        )
        while not self.accepts(token):
            self.wait("Redis does not take the new token yet")
        if not self.accepts(self.secret(self.having("AWSCURRENT"))[KEY]):
            self.finish()  # tokens were changed by hand: do not wait for the next step

    def test(self) -> None:
        if not self.accepts(self.secret(self.version)[KEY]):
            raise ValueError("Redis refuses the token of AWSPENDING")

    def finish(self) -> None:
        self.move("AWSCURRENT", self.version)
        self.move(GIVEN, "")  # a token that was current once is never used again

    def secret(self, version: str) -> dict[str, str]:
        value = json.loads(self.store.get_secret_value(SecretId=self.arn, VersionId=version)["SecretString"])
        if not (isinstance(value, dict) and isinstance(value.get(KEY), str)):
            raise ValueError(f"the secret is no JSON object with the text {KEY!r}")
        return value

    def having(self, stage: str) -> str:
        return next((version for version, stages in self.stages.items() if stage in stages), "")

    def move(self, stage: str, to: str) -> None:
        before = self.having(stage)
        if before != to:
            where = {"MoveToVersionId": to, "RemoveFromVersionId": before}
            where = {name: version for name, version in where.items() if version}
            self.store.update_secret_version_stage(SecretId=self.arn, VersionStage=stage, **where)
            self.stages = self.store.describe_secret(SecretId=self.arn)["VersionIdsToStages"]

    def accepts(self, token: str) -> bool:
        """Whether the primary takes the token, when no change of the group is under way."""
        while True:
            found = self.cache.describe_replication_groups(ReplicationGroupId=os.environ["GROUP_ID"])
            group = found["ReplicationGroups"][0]
            if group["Status"] == "available" and "AuthTokenStatus" not in group.get("PendingModifiedValues", {}):
                primary = group["NodeGroups"][0]["PrimaryEndpoint"]
                return accepts(primary["Address"], primary["Port"], token)
            self.wait(f"the replication group is {group['Status']}")

    def wait(self, what: str) -> None:
        if time.monotonic() > self.deadline:
            raise TimeoutError(what)
        time.sleep(PAUSE)


def accepts(host: str, port: int, token: str) -> bool:
    """Whether Redis takes the token. Raises where it says neither."""
    tls, secret = ssl.create_default_context(), token.encode()
    with socket.create_connection((host, port), 5) as plain, tls.wrap_socket(plain, server_hostname=host) as redis:
        redis.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%b\r\n*1\r\n$4\r\nPING\r\n" % (len(secret), secret))
        answers = redis.makefile("rb")
        login, ping = answers.readline(), answers.readline()
    if login.startswith(b"-WRONGPASS"):
        return False
    if (login, ping) != (b"+OK\r\n", b"+PONG\r\n"):
        raise ConnectionError(f"Redis answered {login[:9]!r} and {ping[:9]!r}")
    return True
