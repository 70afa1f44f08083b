"""The template: what it says where moto would only pretend, and that what it names exists elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import embed_rotation
from sidecar.settings import Settings
from tests.deploy.template import PATH, RESOURCES, ROOT, SETTINGS, TEMPLATE, holds, resolve

TASK = resolve(RESOURCES["TaskDefinition"]["Properties"])
REGISTRY, SIDECAR = TASK["ContainerDefinitions"]
ENVIRONMENT = {one["Name"]: one["Value"] for one in SIDECAR["Environment"]}


def test_cfn_lint_has_nothing_to_say() -> None:
    """In a process of its own: in this one it waits for ever for threads that other tests have."""
    said = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), PATH], capture_output=True, text=True, timeout=60, check=False
    )
    assert (said.stdout + said.stderr, said.returncode) == ("", 0)


def test_it_can_be_sent_without_a_bucket() -> None:
    assert PATH.stat().st_size <= 51_200


def test_every_variable_exists_and_no_secret_is_among_them() -> None:
    assert ENVIRONMENT.keys() <= SETTINGS.keys()
    assert [name for name in ENVIRONMENT if name in SETTINGS and SETTINGS[name].metadata["secret"]] == []
    assert "Secrets" not in SIDECAR  # ECS injects them once, at the start: a rotation would need a new task


def test_the_sidecar_takes_these_variables() -> None:
    settings = Settings.from_env(ENVIRONMENT)
    assert (settings.redis.tls, settings.redis.auth_secret_id) == (True, "RedisSecret")
    assert [str(mount["ContainerPath"]) for mount in SIDECAR["MountPoints"]] == [str(settings.spool.directory)]
    assert settings.server.shutdown < SIDECAR["StopTimeout"] <= 120


def test_an_existing_redis_s_login_is_a_secret_or_iam() -> None:
    secret = resolve(RESOURCES["TaskDefinition"]["Properties"], ExistingRedisHost="r", ExistingRedisSecretArn="arn")
    iam = resolve(
        RESOURCES["TaskDefinition"]["Properties"],
        ExistingRedisHost="r", ExistingRedisIamCluster="c", RedisUsername="registry", ExistingRedisServerless="true",
        ExistingRedisCluster="true",
    )  # fmt: skip
    by_secret, by_iam = (
        Settings.from_env({one["Name"]: one["Value"] for one in task["ContainerDefinitions"][1]["Environment"]}).redis
        for task in (secret, iam)
    )
    assert (by_secret.auth_secret_id, by_secret.iam_cluster) == ("arn", "")
    assert (by_iam.auth_secret_id, by_iam.iam_cluster, by_iam.iam_serverless) == ("", "c", True)


def test_the_container_is_what_the_image_says() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (health,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert SIDECAR["HealthCheck"]["Command"] == ["CMD", *json.loads(health)]
    assert re.findall(r"--uid (\d+)", dockerfile) == [SIDECAR["User"]]
    assert re.findall(r"^VOLUME (\S+)", dockerfile, re.MULTILINE) == [ENVIRONMENT["SPOOL_DIR"]]
    assert SIDECAR["ReadonlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("resource", "path", "value"),
    [
        ("Redis", "AtRestEncryptionEnabled", True),
        ("Redis", "TransitEncryptionMode", "required"),
        ("Redis", "AutomaticFailoverEnabled", True),
        ("Redis", "MultiAZEnabled", True),
        ("RedisParameters", "Properties.maxmemory-policy", "noeviction"),
        ("RedisSecretRotation", "RotateImmediatelyOnUpdate", False),
        ("Service", "DeploymentConfiguration.DeploymentCircuitBreaker", {"Enable": True, "Rollback": True}),
        ("Service", "DeploymentConfiguration.MinimumHealthyPercent", 100),
        ("Service", "DeploymentConfiguration.MaximumPercent", 200),
        ("TaskDefinition", "ContainerDefinitions.1.RestartPolicy.Enabled", True),
        ("TaskDefinition", "ContainerDefinitions.1.HealthCheck.Timeout", 3),
    ],
)
def test_what_the_documents_promise_is_set(resource: str, path: str, value: object) -> None:
    found = resolve(RESOURCES[resource]["Properties"])
    for name in path.split("."):
        found = found[int(name) if name.isdigit() else name]
    assert found == value


def test_the_parameter_group_is_of_the_engine_s_version() -> None:
    redis, parameters = (resolve(RESOURCES[name]["Properties"]) for name in ("Redis", "RedisParameters"))
    major = str(redis["EngineVersion"]).partition(".")[0]
    assert parameters["CacheParameterGroupFamily"] == f"{redis['Engine']}{major}"


def test_a_registry_behind_a_load_balancer_gets_time_to_start() -> None:
    """It starts when the sidecar is healthy, and ECS would count a target's health from the task's start."""
    properties = RESOURCES["Service"]["Properties"]
    assert resolve(properties, RegistryTargetGroupArn="arn")["HealthCheckGracePeriodSeconds"] == 120
    assert "HealthCheckGracePeriodSeconds" not in resolve(properties)


def test_logs_never_hold_up_a_container() -> None:
    assert {one["LogConfiguration"]["Options"]["mode"] for one in (REGISTRY, SIDECAR)} == {"non-blocking"}


def test_redis_is_made_only_where_there_is_none() -> None:
    made = {name for name, one in RESOURCES.items() if one["Type"].startswith("AWS::ElastiCache::")}
    assert made == {"Redis", "RedisParameters", "RedisSubnets"}
    for name in made | {"RedisSecret", "RedisSecurityGroup"}:
        assert RESOURCES[name]["Condition"] == "MakesRedis"
    assert holds("MakesRedis")
    assert not holds("MakesRedis", ExistingRedisHost="redis.internal")


def test_redis_speaks_tls_asks_for_the_token_survives_a_zone_and_evicts_nothing() -> None:
    redis = resolve(RESOURCES["Redis"]["Properties"])
    assert (redis["Engine"], redis["EngineVersion"][0]) == ("valkey", "8")
    assert (redis["TransitEncryptionEnabled"], redis["TransitEncryptionMode"]) == (True, "required")
    assert redis["AuthToken"] == "{{resolve:secretsmanager:RedisSecret:SecretString:password}}"
    assert (redis["MultiAZEnabled"], redis["AutomaticFailoverEnabled"]) == (True, True)
    assert int(redis["NumCacheClusters"]) > Settings.from_env(ENVIRONMENT).redis.min_replicas
    assert redis["CacheParameterGroupName"] == "RedisParameters"
    assert RESOURCES["RedisParameters"]["Properties"]["Properties"] == {"maxmemory-policy": "noeviction"}


def test_only_the_task_and_the_consumers_that_are_named_reach_redis() -> None:
    rules = {
        name: resolve(one["Properties"])
        for name, one in RESOURCES.items()
        if one["Type"] == "AWS::EC2::SecurityGroupIngress"
    }
    assert "SecurityGroupIngress" not in RESOURCES["RedisSecurityGroup"]["Properties"]
    assert {name: (one["GroupId"], one.get("SourceSecurityGroupId")) for name, one in rules.items()} == {
        "RedisFromTask": ("RedisSecurityGroup.GroupId", "TaskSecurityGroup.GroupId"),
        "RedisFromConsumers": ("RedisSecurityGroup.GroupId", ""),
    }
    assert {(one["FromPort"], one["ToPort"]) for one in rules.values()} == {("6379", "6379")}
    assert not holds("ConsumersReachRedis")


def test_the_task_sends_to_https_and_redis_alone() -> None:
    (https,) = RESOURCES["TaskSecurityGroup"]["Properties"]["SecurityGroupEgress"]
    assert (https["FromPort"], https["ToPort"]) == (443, 443)
    assert [name for name, one in RESOURCES.items() if one["Type"] == "AWS::EC2::SecurityGroupEgress"] == [
        "TaskToRedis"
    ]

    def chosen(**given: str) -> tuple[str | None, str | None]:
        rule = resolve(RESOURCES["TaskToRedis"]["Properties"], **given)
        assert (rule["FromPort"], rule["ToPort"]) == ("6379", "6379")
        return rule.get("DestinationSecurityGroupId"), rule.get("CidrIp")

    assert chosen() == ("RedisSecurityGroup.GroupId", None)
    assert chosen(ExistingRedisHost="r", ExistingRedisSecurityGroupId="sg-1") == ("sg-1", None)
    assert chosen(ExistingRedisHost="r") == (None, "0.0.0.0/0")
    ingress = RESOURCES["RedisFromTask"]
    assert not holds(ingress["Condition"], ExistingRedisHost="r")
    known = resolve(ingress["Properties"], ExistingRedisHost="r", ExistingRedisSecurityGroupId="sg-1")
    assert (known["GroupId"], known["SourceSecurityGroupId"]) == ("sg-1", "TaskSecurityGroup.GroupId")


def test_the_token_is_rotated_by_a_function_that_only_secrets_manager_calls_for_this_secret() -> None:
    permission = resolve(RESOURCES["RotationPermission"]["Properties"])
    assert (permission["Principal"], permission["SourceAccount"]) == ("secretsmanager.amazonaws.com", "123456789012")
    assert permission["SourceArn"] == "RedisSecret"
    schedule = resolve(RESOURCES["RedisSecretRotation"]["Properties"])
    assert (schedule["SecretId"], schedule["RotationRules"]) == ("RedisSecret", {"AutomaticallyAfterDays": "30"})
    function = resolve(RESOURCES["RotationFunction"]["Properties"])
    assert function["Environment"]["Variables"] == {"SECRET_ARN": "RedisSecret", "GROUP_ID": "Redis"}
    assert function["VpcConfig"]["SecurityGroupIds"] == ["TaskSecurityGroup.GroupId"]  # HTTPS and Redis, nothing else


def test_the_rotation_may_change_this_secret_and_this_cache_and_nothing_else() -> None:
    (policy,) = resolve(RESOURCES["RotationRole"]["Properties"], SecretKmsKeyArn="key")["Policies"]
    secret, cache, logs, network, key = policy["PolicyDocument"]["Statement"]
    assert secret["Resource"] == "RedisSecret"
    assert cache["Resource"] == "arn:aws:elasticache:eu-west-1:123456789012:replicationgroup:Redis"
    assert cache["Action"] == ["elasticache:DescribeReplicationGroups", "elasticache:ModifyReplicationGroup"]
    assert logs["Resource"] == "RotationLogs.Arn"
    assert {action.partition(":")[0] for action in network["Action"]} == {"ec2"}
    assert network["Condition"] == {"Null": {"lambda:SourceFunctionArn": "true"}}
    assert (key["Resource"], "kms:EncryptionContext:SecretARN" in key["Condition"]["StringEquals"]) == ("key", True)


def test_without_a_rotation_there_is_no_function() -> None:
    rotation = {name for name in RESOURCES if "Rotation" in name}
    assert rotation == {
        "RedisSecretRotation", "RotationPermission", "RotationFunction", "RotationRole", "RotationLogs",
        "RotationFailedAlarm",
    }  # fmt: skip
    assert {RESOURCES[name]["Condition"] for name in rotation} == {"Rotates"}
    assert holds("Rotates")
    assert not holds("Rotates", RotateTokenEveryDays="0")
    assert not holds("Rotates", ExistingRedisHost="r")


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({}, False),
        ({"AssignPublicIp": "ENABLED"}, True),
        ({"AssignPublicIp": "ENABLED", "RotateTokenEveryDays": "0"}, False),
        ({"AssignPublicIp": "ENABLED", "ExistingRedisHost": "r"}, False),
    ],
)
def test_a_rotation_in_public_subnets_is_refused(given: dict[str, str], refused: bool) -> None:
    """Its function would get no public address, and hang."""
    rule = TEMPLATE["Rules"]["RotationReachesAws"]
    (assertion,) = rule["Assertions"]
    applies = resolve(rule["RuleCondition"], **given)
    assert (applies and not resolve(assertion["Assert"], **given)) is refused


def test_the_template_has_the_function_that_is_tested() -> None:
    """Run `python scripts/embed_rotation.py` after a change."""
    assert embed_rotation.with_function(PATH.read_text()) == PATH.read_text()
    assert RESOURCES["RotationFunction"]["Properties"]["Code"]["ZipFile"] == embed_rotation.bare()


def test_what_is_lost_with_the_stack_was_said() -> None:
    """The queue is kept as a snapshot."""
    assert {RESOURCES["Redis"][policy] for policy in ("DeletionPolicy", "UpdateReplacePolicy")} == {"Snapshot"}


@pytest.mark.parametrize("kind", ["Parameters", "Conditions"])
def test_nothing_is_declared_in_vain(kind: str) -> None:
    used = PATH.read_text()
    groups: list[dict[str, Any]] = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    shown = [name for group in groups for name in group["Parameters"]]
    assert [name for name in TEMPLATE[kind] if len(re.findall(rf"\b{name}\b", used)) < 2] == []
    assert sorted(shown) == sorted(TEMPLATE["Parameters"])


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"RedisUsername": "registry"}, False),
        ({"RedisUsername": "registry", "ExistingRedisSecretArn": "arn:aws:secretsmanager:eu-west-1:1:secret:x"}, True),
        ({"RedisUsername": "registry", "ExistingRedisIamCluster": "cache"}, True),
        ({}, True),
        ({"ExistingRedisServerless": "true"}, False),
        ({"ExistingRedisServerless": "true", "ExistingRedisCluster": "true"}, True),
    ],
)
def test_a_login_that_the_sidecar_would_refuse_is_refused_before(rule: dict[str, str], holds: bool) -> None:
    """A user with no login, and a serverless cache that is no cluster: the sidecar would end with 2, or not connect."""
    rules = (TEMPLATE["Rules"][name] for name in ("UserHasLogin", "ServerlessIsCluster"))
    broken = [
        one["Assert"]
        for each in rules
        if resolve(each["RuleCondition"], **rule)
        for one in each["Assertions"]
        if not resolve(one["Assert"], **rule)
    ]
    assert (not broken) is holds
