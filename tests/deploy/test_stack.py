"""The stack, made in moto and read back. What moto only pretends to make is made by API, as the template has it."""

import ast
import json
from typing import Any, NamedTuple

import pytest

from scripts import monitoring
from sidecar.telemetry.emf import NAMESPACE
from tests.deploy.account import Client, Made, containers, make
from tests.deploy.template import PATH, RESOURCES, resolve

ACCOUNT = "123456789012"
SECRET = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:registry/redis-AbCdEf"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/0d1b5664-3af9-4804-8985-627c6b519d7b"


def images(network: dict[str, str], **more: str) -> dict[str, str]:
    return network | {"RegistryImage": "registry:1", "SidecarImage": "sidecar:1"} | more


@pytest.fixture(scope="module")
def redis_group(aws: Client, network: dict[str, str]) -> str:
    ec2 = aws("ec2")
    group: str = ec2.create_security_group(GroupName="redis", Description="redis", VpcId=network["VpcId"])["GroupId"]
    return group


@pytest.fixture(scope="module")
def with_secret(aws: Client, network: dict[str, str], redis_group: str) -> Made:
    given = {
        "ExistingRedisHost": "redis.internal",
        "ExistingRedisSecurityGroupId": redis_group,
        "ExistingRedisSecretArn": SECRET,
        "SecretKmsKeyArn": KEY,
        "LogRetentionDays": "14",
    }
    return make(aws, "with-secret", images(network, **given))


@pytest.fixture(scope="module")
def with_iam(aws: Client, network: dict[str, str]) -> Made:
    given = {
        "ExistingRedisHost": "redis.internal",
        "ExistingRedisIamCluster": "queue",
        "RedisUsername": "registry",
        "RegistryPolicyArn": "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess",
    }
    return make(aws, "with-iam", images(network, **given))


class NewRedis(NamedTuple):
    stack: Made
    host: str
    secret: str
    token: str


@pytest.fixture(scope="module")
def with_new_redis(aws: Client, network: dict[str, str]) -> NewRedis:
    """The secret and the cache by API, and the rest as a stack in which their names stand."""
    rules = RESOURCES["RedisSecret"]["Properties"]["GenerateSecretString"]
    secrets = aws("secretsmanager")
    token = secrets.get_random_password(
        PasswordLength=rules["PasswordLength"], ExcludePunctuation=rules["ExcludePunctuation"]
    )["RandomPassword"]
    value = json.loads(rules["SecretStringTemplate"]) | {rules["GenerateStringKey"]: token}
    secret = secrets.create_secret(Name="new-redis", SecretString=json.dumps(value))["ARN"]
    properties = resolve(RESOURCES["Redis"]["Properties"])
    for elsewhere in ("SecurityGroupIds", "CacheSubnetGroupName", "CacheParameterGroupName"):
        del properties[elsewhere]
    numbers = {name: int(properties[name]) for name in ("Port", "NumCacheClusters", "SnapshotRetentionLimit")}
    read = json.loads(secrets.get_secret_value(SecretId=secret)["SecretString"])["password"]
    group = aws("elasticache").create_replication_group(
        ReplicationGroupId="new-redis", **(properties | numbers | {"AuthToken": read})
    )["ReplicationGroup"]
    host = group["NodeGroups"][0]["PrimaryEndpoint"]["Address"]
    template = PATH.read_text().replace("!GetAtt Redis.PrimaryEndPoint.Address", host)
    template = template.replace("!Ref RedisSecret]", f"{secret}]").replace("!Ref RedisSecret,", f"{secret},")
    template = template.replace("Value: !Ref RedisSecret\n", f"Value: {secret}\n")
    return NewRedis(make(aws, "with-new-redis", images(network), template), host, secret, token)


def policies(aws: Client, made: Made, role: str) -> dict[str, Any]:
    """The role's own policies, by name."""
    iam = aws("iam")
    resources = aws("cloudformation").list_stack_resources(StackName=made.name)["StackResourceSummaries"]
    (name,) = [one["PhysicalResourceId"] for one in resources if one.get("LogicalResourceId") == role]
    found = {}
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        # moto gives some back as the text of a Python object
        found[policy] = ast.literal_eval(document) if isinstance(document, str) else document
    return found


def test_the_task_is_a_registry_and_a_sidecar_that_is_healthy_before_it(aws: Client, with_secret: Made) -> None:
    found = containers(aws, with_secret.name)
    registry, sidecar = found["registry"], found["sidecar"]
    assert found.keys() == {"registry", "sidecar"}
    assert (registry["essential"], sidecar["essential"]) == (True, True)
    assert registry["dependsOn"] == [{"containerName": "sidecar", "condition": "HEALTHY"}]
    assert sidecar["healthCheck"]["command"] == ["CMD", "modelready-sidecar", "health"]
    assert sidecar["readonlyRootFilesystem"] is True
    assert sidecar["user"] not in ("", "0", "root")
    assert sidecar["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert sidecar["mountPoints"] == [{"sourceVolume": "spool", "containerPath": "/var/lib/modelready-sidecar"}]
    assert sidecar["logConfiguration"]["options"]["awslogs-group"] == with_secret.outputs["SidecarLogGroup"]
    environment = {one["name"]: one["value"] for one in sidecar["environment"]}
    assert (environment["REDIS_HOST"], environment["REDIS_AUTH_SECRET_ID"]) == ("redis.internal", SECRET)
    assert sidecar["stopTimeout"] > float(environment["SIDECAR_SHUTDOWN_SECONDS"])


def test_the_task_may_read_one_secret_and_nothing_else(aws: Client, with_secret: Made) -> None:
    found = policies(aws, with_secret, "TaskRole")
    assert found.keys() == {"read-the-token-of-redis", "decrypt-the-token-of-redis"}
    assert found["read-the-token-of-redis"]["Statement"] == [
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": SECRET}
    ]
    (decrypt,) = found["decrypt-the-token-of-redis"]["Statement"]
    assert (decrypt["Action"], decrypt["Resource"]) == ("kms:Decrypt", KEY)
    assert decrypt["Condition"]["StringEquals"] == {
        "kms:ViaService": "secretsmanager.eu-west-1.amazonaws.com",
        "kms:EncryptionContext:SecretARN": SECRET,
    }


def test_with_iam_it_may_log_in_and_read_no_secret(aws: Client, with_iam: Made) -> None:
    found = policies(aws, with_iam, "TaskRole")
    assert found.keys() == {"log-in-to-redis"}
    (login,) = found["log-in-to-redis"]["Statement"]
    assert login["Action"] == "elasticache:Connect"
    prefix = f"arn:aws:elasticache:eu-west-1:{ACCOUNT}"
    assert login["Resource"] == [f"{prefix}:replicationgroup:queue", f"{prefix}:user:registry"]
    environment = {one["name"]: one["value"] for one in containers(aws, with_iam.name)["sidecar"]["environment"]}
    assert (environment["REDIS_AUTH_SECRET_ID"], environment["REDIS_IAM_CLUSTER"]) == ("", "queue")


def test_ecs_may_pull_and_log_and_nothing_else(aws: Client, with_secret: Made) -> None:
    (policy,) = policies(aws, with_secret, "ExecutionRole").values()
    allowed = {
        action: statement["Resource"]
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    images = {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
    logs = {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert allowed.keys() == {"ecr:GetAuthorizationToken"} | images | logs
    assert {name for name, resource in allowed.items() if resource == "*"} == {"ecr:GetAuthorizationToken"}
    for name in logs:
        assert [resource.partition("log-group:")[2].removesuffix(":*") for resource in allowed[name]] == [
            "/ecs/with-secret/registry", "/ecs/with-secret/sidecar",
        ]  # fmt: skip


def test_both_roles_are_for_tasks_of_this_account(aws: Client, with_secret: Made) -> None:
    for role in aws("iam").list_roles()["Roles"]:
        if role["RoleName"].startswith("with-secret-"):
            (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
            assert statement["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
            assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": ACCOUNT}


def test_logs_are_kept_as_long_as_was_said(aws: Client, with_secret: Made) -> None:
    groups = aws("logs").describe_log_groups(logGroupNamePrefix="/ecs/with-secret/")["logGroups"]
    assert {group["logGroupName"]: group["retentionInDays"] for group in groups} == {
        "/ecs/with-secret/registry": 14,
        "/ecs/with-secret/sidecar": 14,
    }


def test_an_existing_redis_lets_the_task_in_on_its_port(aws: Client, with_secret: Made, redis_group: str) -> None:
    (group,) = aws("ec2").describe_security_groups(GroupIds=[redis_group])["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    (source,) = rule["UserIdGroupPairs"]
    (task,) = aws("ec2").describe_security_groups(GroupIds=[source["GroupId"]])["SecurityGroups"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == (6379, 6379, [])
    assert task["Description"] == "The task of with-secret"


def test_a_new_redis_takes_the_token_and_the_task_knows_where_both_are(aws: Client, with_new_redis: NewRedis) -> None:
    assert 16 <= len(with_new_redis.token) <= 128
    assert with_new_redis.token.isalnum()  # ElastiCache takes few other characters
    (group,) = aws("elasticache").describe_replication_groups(ReplicationGroupId="new-redis")["ReplicationGroups"]
    assert (group["AuthTokenEnabled"], group["TransitEncryptionEnabled"]) == (True, True)
    assert group["AutomaticFailover"] in ("enabled", "enabling")
    environment = {
        one["name"]: one["value"] for one in containers(aws, with_new_redis.stack.name)["sidecar"]["environment"]
    }
    assert environment["REDIS_HOST"] == with_new_redis.host
    assert environment["REDIS_AUTH_SECRET_ID"] == with_new_redis.secret
    (policy,) = policies(aws, with_new_redis.stack, "TaskRole").values()
    assert policy["Statement"][0]["Resource"] == with_new_redis.secret


def test_a_new_redis_lets_only_the_task_in(aws: Client, with_new_redis: NewRedis) -> None:
    groups = aws("ec2").describe_security_groups()["SecurityGroups"]
    by_text = {group["Description"]: group for group in groups}
    (rule,) = by_text["Redis of with-new-redis"]["IpPermissions"]
    assert rule["IpRanges"] == []
    assert [source["GroupId"] for source in rule["UserIdGroupPairs"]] == [
        by_text["The task of with-new-redis"]["GroupId"]
    ]


def test_a_new_redis_token_is_rotated_by_a_function_beside_the_task(aws: Client, with_new_redis: NewRedis) -> None:
    """moto takes the function and its role, and makes neither the schedule nor the permission: test_template.py."""
    (function,) = aws("lambda").list_functions()["Functions"]
    assert (function["Runtime"], function["Handler"], function["Timeout"]) == ("python3.13", "index.handler", 900)
    groups = aws("ec2").describe_security_groups(GroupIds=function["VpcConfig"]["SecurityGroupIds"])["SecurityGroups"]
    assert [group["Description"] for group in groups] == ["The task of with-new-redis"]
    assert function["Environment"]["Variables"] == {"SECRET_ARN": with_new_redis.secret}  # moto knows no cache's id
    assert function["Role"].partition(":role/")[2].startswith("with-new-redis-RotationRole-")
    assert list(policies(aws, with_new_redis.stack, "RotationRole")) == ["rotate"]


def test_the_token_is_nowhere_but_in_the_secret(aws: Client, with_new_redis: NewRedis) -> None:
    name = with_new_redis.stack.name
    cloudformation = aws("cloudformation")
    everything = [
        aws("ecs").describe_task_definition(taskDefinition=name),
        cloudformation.describe_stacks(StackName=name),
        cloudformation.get_template(StackName=name),
        aws("cloudwatch").get_dashboard(DashboardName=name),
    ]
    assert with_new_redis.token not in json.dumps(everything, default=str)


def test_the_dashboard_shows_every_metric_and_every_alarm(aws: Client, with_secret: Made) -> None:
    body = json.loads(aws("cloudwatch").get_dashboard(DashboardName="with-secret")["DashboardBody"])
    assert "${" not in json.dumps(body)
    widgets = body["widgets"]
    graphs = [series for one in widgets if one["type"] == "metric" for series in one["properties"]["metrics"]]
    shown = {series[1]: series[2:-1] for series in graphs if series[0] == NAMESPACE}
    assert shown.keys() == monitoring.METRICS.keys()
    assert all(one == ["Service", "//model-registry", "Queue", "model-ready"] for one in shown.values())
    (alarms,) = [one["properties"]["alarms"] for one in widgets if one["type"] == "alarm"]
    assert [arn.rpartition(":")[2] for arn in alarms] == [f"with-secret-{alarm.name}" for alarm in monitoring.ALARMS]
    (log,) = [one["properties"]["query"] for one in widgets if one["type"] == "log"]
    assert f"SOURCE '{with_secret.outputs['SidecarLogGroup']}'" in log


def test_cloudwatch_takes_every_alarm_as_it_stands(aws: Client) -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:on-call"
    cloudwatch = aws("cloudwatch")
    for one in RESOURCES.values():
        if one["Type"] == "AWS::CloudWatch::Alarm":
            properties = resolve(one["Properties"], AlarmTopicArn=topic)
            cloudwatch.put_metric_alarm(**properties | {"Threshold": float(properties["Threshold"])})
    made = {
        alarm["AlarmName"]: alarm for alarm in cloudwatch.describe_alarms(AlarmNamePrefix="models-")["MetricAlarms"]
    }
    names = [alarm.name for alarm in [*monitoring.ALARMS, monitoring.ROTATION_ALARM]]
    assert made.keys() == {f"models-{name}" for name in names}
    assert {tuple(alarm["AlarmActions"]) for alarm in made.values()} == {(topic,)}
    assert made["models-sidecar-absent"]["TreatMissingData"] == "breaching"
