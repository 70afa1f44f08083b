"""The rights and the names in the documents are those of the template and of deploy/check.py."""

import json
import re
from typing import Any

import pytest

from scripts.monitoring import METRICS
from tests.deploy.template import RESOURCES, ROOT, TEMPLATE, resolve

SECURITY = (ROOT / "docs/security.md").read_text()
DOCUMENTED: dict[str, Any] = {
    name: json.loads(text) for name, text in re.findall(r"```json (\S+)\n(.*?)```", SECURITY, re.DOTALL)
}
GIVEN = {
    "ExistingRedisHost": "redis.internal",
    "ExistingRedisSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:redis-AbCdEf",
    "SecretKmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/0d1b5664-3af9-4804-8985-627c6b519d7b",
    "ExistingRedisIamCluster": "queue",
    "RedisUsername": "registry",
    "RedisSecret": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:redis-AbCdEf",  # what the stack's are called
    "Redis": "queue",
}
OTHER_NAMES = {"StopTimeout", "TaskId", "EMFParsingErrors", "ModelReady", "PublishStream", "SameSite", "ListConsumer"}
"""Of ECS, of metrics, of CloudWatch, of the contract, of a cookie, of the client."""


def policies() -> dict[str, Any]:
    """The statements of every policy that the template makes, by its name."""
    found = {}
    for resource in RESOURCES.values():
        properties = resource.get("Properties", {})
        inline = properties.get("Policies", []) if resource["Type"] == "AWS::IAM::Role" else []
        for policy in [properties] if resource["Type"] == "AWS::IAM::Policy" else inline:
            found[policy["PolicyName"]] = resolve(policy["PolicyDocument"]["Statement"], **GIVEN)
    return found


def with_arns(node: Any) -> Any:
    """The statements with the ARNs of log groups in the place of `Id.Arn`."""
    if isinstance(node, list):
        return [with_arns(item) for item in node]
    if isinstance(node, dict):
        return {name: with_arns(value) for name, value in node.items()}
    resource, _, attribute = str(node).partition(".")
    if attribute != "Arn" or RESOURCES.get(resource, {}).get("Type") != "AWS::Logs::LogGroup":
        return node
    name = resolve(RESOURCES[resource]["Properties"]["LogGroupName"])
    return f"arn:aws:logs:eu-west-1:123456789012:log-group:{name}:*"


def test_the_document_has_every_policy_of_the_template() -> None:
    assert DOCUMENTED.keys() == policies().keys() | {"check", "on-call"}


@pytest.mark.parametrize("name", policies())
def test_a_policy_is_documented_as_the_template_has_it(name: str) -> None:
    assert DOCUMENTED[name] == with_arns(policies()[name])


def test_the_rights_to_check_are_those_that_the_check_uses() -> None:
    calls = re.findall(
        r"\bclients\.(cloudformation|ecs|logs)\.([a-z_]+)\(", (ROOT / "deploy/check.py").read_text()
    )  # fmt: skip
    used = {f"{service}:{''.join(word.capitalize() for word in name.split('_'))}" for service, name in calls}
    assert actions_of("check") == used | {"iam:PassRole"}


def actions_of(policy: str) -> set[str]:
    return {
        action
        for statement in DOCUMENTED[policy]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }


# Commands of the AWS CLI that are not called like what they do there; None: it takes the rights to deploy the stack.
CLI = {
    "logs tail": "logs:FilterLogEvents",
    "ecr get-login-password": "ecr:GetAuthorizationToken",
    "cloudformation deploy": None,
}


def test_a_person_on_call_has_the_rights_to_all_commands_of_aws_in_the_runbooks() -> None:
    named = re.findall(r"\baws ([a-z]+) ([a-z-]+)", (ROOT / "docs/operations.md").read_text())
    asked = {
        CLI.get(f"{service} {command}", f"{service}:{''.join(word.capitalize() for word in command.split('-'))}")
        for service, command in named
    }
    assert {"ecs:DescribeServices", "elasticache:TestFailover"} <= asked
    assert asked - {None} - actions_of("check") - actions_of("on-call") == set()


# What CloudFormation asks for only where a resource has what those of the template have not.
NOT_USED = re.compile(
    r"""ec2:(DescribeInstances|DeleteTags)|kms:(CreateGrant|DescribeKey|Encrypt)|s3.*|firehose:.*|elasticfilesystem:.*
    |ecs:(PutAccountSetting.*|ListTagsForResource|UntagResource)
    |cloudwatch:(TagResource|ListTagsForResource)
    |iam:(.*(Group|User)Policy|.*PermissionsBoundary|UntagRole)
    |lambda:(.*(CodeSigning|Scaling|Concurrency|LayerVersion|RuntimeAlias|CapacityProvider|PublishVersion).*
      |Put.*Config|UntagResource)
    |logs:(.*(Deliver(y|ies)|Policy|Policies|KmsKey|Protection|Authentication).*|CreateLogStream|PutLogEvents|UntagResource
      |ListTagsForResource)
    |secretsmanager:(ReplicateSecretToRegions|RemoveRegionsFromReplication|UntagResource)
    |elasticache:((Create|Delete)CacheCluster|RemoveTagsFromResource)""",
    re.VERBOSE,
)


def test_who_deploys_has_the_rights_that_cloudformation_asks_for() -> None:
    """By AWS' own schemas of the resource types, which cfn-lint brings: what making them takes, and so on."""
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # noqa: PLC0415 - its import takes three seconds

    table = SECURITY.split("**To deploy the stack**")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|", table, re.MULTILINE)
    documented = {f"{service}:{action}" for service, row in rows for action in re.findall(r"`([A-Z]\w+)`", row)}
    asked = set()
    for kind in {resource["Type"] for resource in RESOURCES.values()}:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-west-1", kind).schema["handlers"]
        for handler in ("create", "read", "delete"):
            asked.update(handlers.get(handler, {}).get("permissions", []))
    assert len(asked) > 100
    assert {action for action in asked - documented if not NOT_USED.fullmatch(action)} == set()


@pytest.mark.parametrize("document", ["deploy-ecs.md", "operations.md", "security.md"])
def test_parameters_and_outputs_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / "docs" / document).read_text().partition("## Rights in AWS")[0]
    known = {
        *RESOURCES,
        *TEMPLATE["Parameters"],
        *TEMPLATE["Outputs"],
        *METRICS,
    } | OTHER_NAMES
    set_there = set(re.findall(r"(?<![\w$&-])([A-Z][a-z]+[A-Za-z]*)=(?!=)", text))
    asked = set(re.findall(r"OutputKey=='(\w+)'", text))
    quoted = set(re.findall(r"`([A-Z]+[a-z]+[A-Z]\w+)(?:=\w+)?`", text))
    assert (set_there | asked | quoted) - known == set()
