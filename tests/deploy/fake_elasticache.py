"""ElastiCache, played: the two calls that a rotation makes, with their effect on a real server's tokens."""

import time
from typing import Any

import boto3
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters

from tests.harness.redis_server import RedisServer

GROUP = "queue"


class PlayedCache:
    """One replication group whose primary is `server`, reached at `endpoint` (host and port).

    As AWS documents it: a group takes two tokens at most, ROTATE adds one and drops the oldest, and the change takes a
    while, in which the group is `modifying` and takes no other. It begins a little after the call has returned.
    """

    def __init__(self, server: RedisServer, endpoint: tuple[str, int], token: str) -> None:
        self._server = server
        self._endpoint = endpoint
        self._service = boto3.client("elasticache", "eu-west-1").meta.service_model
        self._change: tuple[float, str] | None = None
        self.seconds = 0.15  # that a change takes
        self.tokens = [token]
        self.rotated = 0

    def modify_replication_group(self, **given: Any) -> dict[str, Any]:
        self._check("ModifyReplicationGroup", given)
        assert (given["AuthTokenUpdateStrategy"], given["ApplyImmediately"]) == ("ROTATE", True)
        assert 16 <= len(given["AuthToken"]) <= 128
        self._pass_time()
        if self._change:
            raise ClientError({"Error": {"Code": "InvalidReplicationGroupState"}}, "ModifyReplicationGroup")
        self.rotated += 1
        self._change = time.monotonic(), given["AuthToken"]
        return {}

    def describe_replication_groups(self, **given: Any) -> dict[str, Any]:
        self._check("DescribeReplicationGroups", given)
        self._pass_time()
        changing = self._change is not None and time.monotonic() - self._change[0] > self.seconds / 4
        host, port = self._endpoint
        group = {
            "Status": "modifying" if changing else "available",
            "PendingModifiedValues": {"AuthTokenStatus": "ROTATING"} if changing else {},
            "NodeGroups": [{"PrimaryEndpoint": {"Address": host, "Port": port}}],
        }
        return {"ReplicationGroups": [group]}

    def drop_logins(self) -> None:
        """Close all connections but this one, so that each client logs in again."""
        self._server.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def set_tokens(self, *tokens: str) -> None:
        """What somebody did by hand, without a word to Secrets Manager."""
        self.tokens = list(tokens)
        self._server.execute("ACL", "SETUSER", "default", "resetpass", *(f">{token}" for token in tokens))

    def _pass_time(self) -> None:
        if self._change and time.monotonic() - self._change[0] > self.seconds:
            self.set_tokens(*[*self.tokens, self._change[1]][-2:])
            self._change = None

    def _check(self, operation: str, given: dict[str, Any]) -> None:
        validate_parameters(given, self._service.operation_model(operation).input_shape)
        assert given["ReplicationGroupId"] == GROUP
