"""The module of Terraform, applied to moto beside a stack of the template: both make the same.

With an existing Redis, since moto has neither parameter groups of ElastiCache nor its nodes. With a new one it is
applied by Terraform's own test, new_redis.tftest.hcl, in which ElastiCache is played.
"""

import ast
import json
import shutil
from typing import Any

import pytest

from scripts import monitoring
from tests.deploy.account import Client, Made, containers, make
from tests.deploy.template import RESOURCES, ROOT, resolve
from tests.deploy.terraform import ready, terraform

pytestmark = pytest.mark.soak  # half a minute: the provider starts slowly, and asks moto for everything several times

ACCOUNT = "123456789012"
SECRET = f"arn:aws:secretsmanager:eu-west-1:{ACCOUNT}:secret:registry/redis-AbCdEf"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/0d1b5664-3af9-4804-8985-627c6b519d7b"
TOPIC = f"arn:aws:sns:eu-west-1:{ACCOUNT}:on-call"
NAME = "models"  # of both, one after the other in what is compared
PROVIDER = 'provider "aws" {\n  skip_credentials_validation = true\n  skip_metadata_api_check = true\n}\n'


@pytest.fixture(scope="module")
def redis_group(aws: Client, network: dict[str, str]) -> str:
    ec2 = aws("ec2")
    return str(ec2.create_security_group(GroupName="redis", Description="redis", VpcId=network["VpcId"])["GroupId"])


@pytest.fixture(scope="module")
def applied(aws: Client, network: dict[str, str], redis_group: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of what Terraform made."""
    module = ready(tmp_path_factory.mktemp("applied"))
    (module / "provider.tf").write_text(PROVIDER)
    values = {
        "name": f"{NAME}-by-terraform",
        "vpc_id": network["VpcId"],
        "subnet_ids": network["SubnetIds"].split(","),
        "registry": {"image": "registry:1"},
        "wait_for_steady_state": False,  # moto starts no task
        "sidecar_image": "sidecar:1",
        "existing_redis": {"host": "redis.internal", "security_group_id": redis_group, "secret_arn": SECRET},
        "secret_kms_key_arn": KEY,
        "alarm_topic_arn": TOPIC,
    }
    (module / "terraform.tfvars.json").write_text(json.dumps(values))
    terraform(module, "apply", "-auto-approve", "-input=false")
    return str(values["name"])


@pytest.fixture(scope="module")
def stack(aws: Client, network: dict[str, str], redis_group: str) -> Made:
    given = {
        "RegistryImage": "registry:1",
        "SidecarImage": "sidecar:1",
        "ExistingRedisHost": "redis.internal",
        "ExistingRedisSecurityGroupId": redis_group,
        "ExistingRedisSecretArn": SECRET,
        "SecretKmsKeyArn": KEY,
        "AlarmTopicArn": TOPIC,
    }
    return make(aws, f"{NAME}-by-template", network | given)


def test_a_new_redis_its_secret_and_its_rotation_are_made(
    aws: Client, network: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    module = ready(tmp_path_factory.mktemp("new"))
    for own in (module / "tests").iterdir():
        own.unlink()
    shutil.copy(ROOT / "tests/deploy/new_redis.tftest.hcl", module / "tests")
    values = {
        "name": "models",
        "vpc_id": network["VpcId"],
        "subnet_ids": network["SubnetIds"].split(","),
        "registry": {"image": "registry:1"},
        "wait_for_steady_state": False,  # moto starts no task
        "sidecar_image": "sidecar:1",
    }
    (module / "terraform.tfvars.json").write_text(json.dumps(values))
    assert "1 passed, 0 failed" in terraform(module, "test")


def alike(document: Any) -> Any:
    """Without the names that tell one from the other."""
    text = json.dumps(document)
    for way in ("terraform", "template"):
        text = text.replace(f"{NAME}-by-{way}", NAME)
    return json.loads(text)


def defined(aws: Client, family: str) -> dict[str, dict[str, Any]]:
    """The containers, without what is empty, and their variables in an order."""
    found = containers(aws, family)
    for container in found.values():
        container["environment"].sort(key=lambda one: one["name"])
    return {name: {key: value for key, value in one.items() if value} for name, one in found.items()}


def rights(aws: Client, name: str) -> set[str]:
    """All that the roles allow, a statement for each action and resource."""
    iam = aws("iam")
    found = set()
    for role in iam.list_roles()["Roles"]:
        if not role["RoleName"].startswith(name):
            continue
        for policy in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy)["PolicyDocument"]
            for statement in (ast.literal_eval(document) if isinstance(document, str) else document)["Statement"]:
                condition = json.dumps(statement.get("Condition", {}), sort_keys=True)
                assert statement["Effect"] == "Allow"
                for action in several(statement["Action"]):
                    for resource in several(statement["Resource"]):
                        found.add(f"{action} {resource.removesuffix(':*')} {condition}")
    return {alike(one) for one in found}


def several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_the_containers_are_the_template_s(aws: Client, applied: str, stack: Made) -> None:
    by_terraform, by_template = (alike(defined(aws, name)) for name in (applied, stack.name))
    assert by_terraform == by_template
    assert by_terraform.keys() == {"registry", "sidecar"}


def test_the_task_is_fargate_s(aws: Client, applied: str) -> None:
    task = aws("ecs").describe_task_definition(taskDefinition=applied)["taskDefinition"]
    assert (task["networkMode"], task["requiresCompatibilities"]) == ("awsvpc", ["FARGATE"])
    assert (task["cpu"], task["memory"]) == ("512", "1024")
    (service,) = aws("ecs").describe_services(cluster=applied, services=[applied])["services"]
    assert service["taskDefinition"] == task["taskDefinitionArn"]
    assert service["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] == "DISABLED"


def test_the_rights_are_the_template_s(aws: Client, applied: str, stack: Made) -> None:
    by_terraform, by_template = (rights(aws, name) for name in (applied, stack.name))
    assert by_terraform == by_template
    assert len(by_terraform) >= 8


def test_the_roles_trust_whom_the_template_s_trust(aws: Client, applied: str, stack: Made) -> None:
    trusted: dict[str, set[str]] = {applied: set(), stack.name: set()}
    for role in aws("iam").list_roles()["Roles"]:
        for name, documents in trusted.items():
            if role["RoleName"].startswith(name):
                (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
                documents.add(json.dumps({**statement, "Sid": ""}, sort_keys=True))
    assert trusted[applied] == trusted[stack.name]
    assert trusted[applied] != set()


def test_only_https_and_redis_are_reached_and_redis_lets_the_task_in(
    aws: Client, applied: str, redis_group: str
) -> None:
    groups = {group["GroupId"]: group for group in aws("ec2").describe_security_groups()["SecurityGroups"]}
    (task,) = [group for group in groups.values() if group["GroupName"].startswith(f"{applied}-task-")]
    assert task["IpPermissions"] == []
    ways = {rule["FromPort"]: rule for rule in task["IpPermissionsEgress"] if "FromPort" in rule}
    assert ways.keys() == {443, 6379}
    assert [pair["GroupId"] for pair in ways[6379]["UserIdGroupPairs"]] == [redis_group]
    sources = [pair["GroupId"] for rule in groups[redis_group]["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
    assert task["GroupId"] in sources


def test_the_dashboard_is_the_template_s(aws: Client, applied: str, stack: Made) -> None:
    def body(name: str) -> Any:
        return alike(json.loads(aws("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]))

    assert body(applied) == body(stack.name)


def test_the_alarms_are_the_template_s(aws: Client, applied: str) -> None:
    made = aws("cloudwatch").describe_alarms(AlarmNamePrefix=applied)["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in made} == {f"{applied}-{alarm.name}" for alarm in monitoring.ALARMS}
    for alarm in made:
        resource = RESOURCES[monitoring.resource(alarm["AlarmName"].removeprefix(f"{applied}-"))]
        wanted = resolve(resource["Properties"], AlarmTopicArn=TOPIC) | {"AlarmName": alarm["AlarmName"]}
        for one in (alarm, wanted):
            one["Dimensions"] = sorted(one["Dimensions"], key=lambda dimension: str(dimension["Name"]))
            one["Threshold"] = float(one["Threshold"])
        assert {key: alarm[key] for key in wanted} == wanted


def test_logs_are_kept_for_a_month(aws: Client, applied: str) -> None:
    groups = aws("logs").describe_log_groups(logGroupNamePrefix=f"/ecs/{applied}/")["logGroups"]
    assert {group["logGroupName"].rpartition("/")[2]: group["retentionInDays"] for group in groups} == {
        "registry": 30,
        "sidecar": 30,
    }
