"""A moto server in the place of an AWS account: clients for it, a network in it, and stacks of the template."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from tests.deploy.template import PATH
from tests.harness.aws_api import aws_api, log_in_by_environment

REGION = "eu-west-1"
Client = Callable[[str], Any]


@contextmanager
def account(none: Path, host: str = "127.0.0.1") -> Iterator[Client]:
    """Makes clients of moto; programs under test find it by their environment. `none`: a file that does not exist."""
    with aws_api(host) as port, pytest.MonkeyPatch.context() as patch:
        log_in_by_environment(patch, none)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_REGION", REGION)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        yield functools.cache(boto3.Session().client)


def make_network(aws: Client) -> dict[str, str]:
    """A VPC with two subnets, and the parameters that name them."""
    ec2 = aws("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24")["Subnet"]["SubnetId"] for n in range(2)]
    return {"VpcId": vpc, "SubnetIds": ",".join(subnets)}


class Made(NamedTuple):
    """A stack by its name, and its outputs."""

    name: str
    outputs: dict[str, str]


def make(aws: Client, name: str, parameters: dict[str, str], template: str | None = None) -> Made:
    """A stack of the template, complete."""
    cloudformation = aws("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=template or PATH.read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    return Made(name, {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]})


def containers(aws: Client, family: str) -> dict[str, dict[str, Any]]:
    """The containers of a task definition, by name, as ECS gives them back."""
    task = aws("ecs").describe_task_definition(taskDefinition=family)["taskDefinition"]
    assert [volume["name"] for volume in task["volumes"]] == ["spool"]
    return {one["name"]: one for one in task["containerDefinitions"]}
