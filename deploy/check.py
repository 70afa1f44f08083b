#!/usr/bin/env python3
"""Check a deployed stack from where it runs, and say what is wrong.

    deploy/check STACK [--region REGION] [--timeout SECONDS]
    deploy/check --cluster NAME --service NAME --log-group NAME      # what Terraform made

It needs boto3 and your AWS credentials. First it looks at the service: are its tasks running and healthy. Then it
starts one task of the same task definition, subnets and security groups, in which the sidecar runs `doctor --json`
instead of `serve`, waits for its end and prints what it found: the path to Redis, the login, the rights, the engine.
The registry of that task never starts, since it waits for a sidecar that is healthy. ECS Exec does not work: it
writes to the root file system, which is read-only.

Exit code: 0 all is well or there are warnings, 1 a failure, 2 the settings are wrong, 3 it could not be looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any, NamedTuple

try:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError
except ModuleNotFoundError:
    print("deploy/check needs boto3: pip install boto3", file=sys.stderr)
    sys.exit(3)

EXIT_CODES = (
    "Exit code: 0 all is well, perhaps with warnings; 1 a failure; 2 wrong settings or usage; 3 it saw nothing."
)
SIDECAR = "sidecar"
STREAM_PREFIX = "sidecar"
POLL_SECONDS = 2.0
LOG_SECONDS = 60.0  # what the task's last lines may take to CloudWatch Logs


class CheckError(Exception):
    """It could not be looked at; the text says why."""


class Stack(NamedTuple):
    """What a stack says of itself."""

    cluster: str
    service: str
    log_group: str


class Clients(NamedTuple):
    """The three services of AWS that are asked."""

    cloudformation: Any
    ecs: Any
    logs: Any


def main(arguments: list[str] | None = None) -> int:
    """Run from a command line."""
    about = "Look at a deployed stack from where it runs."
    parser = argparse.ArgumentParser(prog="deploy/check", description=about, epilog=EXIT_CODES)
    parser.add_argument(
        "stack", nargs="?", help="the name of the CloudFormation stack, whose outputs have the next three"
    )
    parser.add_argument("--cluster", help="the ECS cluster's name or ARN")
    parser.add_argument("--service", help="the ECS service's name")
    parser.add_argument("--log-group", help="the log group of the sidecar")
    parser.add_argument("--region", help="default: as the AWS SDK finds it")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds for the task to start and end (default: 300)"
    )
    options = parser.parse_args(arguments)
    named = Stack(options.cluster, options.service, options.log_group)
    if bool(options.stack) == any(named) or not (options.stack or all(named)):
        parser.error("name a stack, or all three of --cluster, --service and --log-group")
    region = options.region or os.environ.get("AWS_REGION")  # which the CLI reads, and boto3 does not
    session = boto3.Session(region_name=region)
    try:
        clients = Clients(session.client("cloudformation"), session.client("ecs"), session.client("logs"))
        stack = find(clients, options.stack) if options.stack else named
        unhealthy = look_at_service(clients, stack)
        document = examine(clients, stack, options.timeout)
    except (CheckError, ClientError, BotoCoreError) as error:
        print(f"it could not be looked at: {error}", file=sys.stderr)
        return 3
    show(document)
    return int(document["exit_code"]) or int(unhealthy)


def find(clients: Clients, name: str) -> Stack:
    """Return the names that the stack's outputs have. Raises CheckError where it is no such stack."""
    found = clients.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    try:
        return Stack(outputs["ClusterName"], outputs["ServiceName"], outputs["SidecarLogGroup"])
    except KeyError as missing:
        raise CheckError(f"the stack {name} has no output {missing}; its state is {found['StackStatus']}") from None


def look_at_service(clients: Clients, stack: Stack) -> bool:
    """Print how the service's tasks are. Returns whether fewer than it should have run with a healthy sidecar."""
    service = _service(clients, stack)
    arns = clients.ecs.list_tasks(cluster=stack.cluster, serviceName=stack.service, desiredStatus="RUNNING")["taskArns"]
    tasks = clients.ecs.describe_tasks(cluster=stack.cluster, tasks=arns)["tasks"] if arns else []
    states = {_id(task["taskArn"]): _health(task) for task in tasks}
    healthy, desired = sum(state == "HEALTHY" for state in states.values()), service["desiredCount"]
    well: bool = healthy >= desired
    print(f"{_status(well=well):<8} service   {healthy} of {desired} tasks run with a healthy sidecar")
    for task, state in states.items():
        if state != "HEALTHY":
            print(f"{'':<18} the sidecar of task {task} is {state}")
    for event in [] if well else service.get("events", [])[:3]:
        print(f"{'':<18} {event['message']}")
    return not well


def examine(clients: Clients, stack: Stack, timeout: float) -> dict[str, Any]:
    """Run doctor in a task like the service's, and return its document. Raises CheckError."""
    service = _service(clients, stack)
    answer = clients.ecs.run_task(
        cluster=stack.cluster,
        taskDefinition=service["taskDefinition"],
        launchType="FARGATE",
        networkConfiguration=service["networkConfiguration"],
        overrides={"containerOverrides": [{"name": SIDECAR, "command": ["doctor", "--json"]}]},
        startedBy="deploy/check",
        count=1,
    )
    if not answer["tasks"]:
        raise CheckError(f"ECS started no task: {'; '.join(failure['reason'] for failure in answer['failures'])}")
    task = answer["tasks"][0]["taskArn"]
    print(f"         doctor    runs as task {_id(task)}", flush=True)
    try:
        stopped = _wait(clients, stack, task, time.monotonic() + timeout)
    except BaseException:
        clients.ecs.stop_task(cluster=stack.cluster, task=task, reason="deploy/check gave up")
        raise
    return _document(clients, stack, task, stopped)


def show(document: dict[str, Any]) -> None:
    """Print doctor's lines as doctor does; the variables, which the template has, are left out."""
    for line in document["checks"]:
        print(f"{line['status']:<8} {line['check']:<9} {line['found']}")
        if line["finding"]:
            print(f"{'':<18} {line['todo']} [{line['finding']}]")


def _service(clients: Clients, stack: Stack) -> dict[str, Any]:
    services = clients.ecs.describe_services(cluster=stack.cluster, services=[stack.service])["services"]
    if not services or services[0]["status"] != "ACTIVE":
        raise CheckError(f"the cluster {stack.cluster} has no service {stack.service}")
    service: dict[str, Any] = services[0]
    return service


def _health(task: dict[str, Any]) -> str:
    """What ECS' health check says of the task's sidecar."""
    states = {one["name"]: one.get("healthStatus", "UNKNOWN") for one in task.get("containers", [])}
    return str(states.get(SIDECAR, "MISSING"))


def _wait(clients: Clients, stack: Stack, task: str, deadline: float) -> dict[str, Any]:
    """The task when it has stopped."""
    status = "PENDING"
    while time.monotonic() < deadline:
        found = clients.ecs.describe_tasks(cluster=stack.cluster, tasks=[task])["tasks"]
        if found:
            described: dict[str, Any] = found[0]
            status = described["lastStatus"]
            if status == "STOPPED":
                return described
        time.sleep(POLL_SECONDS)
    raise CheckError(f"the task {_id(task)} is {status} and has not ended in time")


def _document(clients: Clients, stack: Stack, task: str, stopped: dict[str, Any]) -> dict[str, Any]:
    """What doctor printed; CloudWatch Logs may have it a little later. Raises CheckError with the task's own reason."""
    stream = f"{STREAM_PREFIX}/{SIDECAR}/{_id(task)}"
    deadline = time.monotonic() + LOG_SECONDS
    text = ""
    ran = any(one["name"] == SIDECAR and "exitCode" in one for one in stopped.get("containers", []))
    while time.monotonic() < deadline:
        text = _log(clients, stack.log_group, stream)
        try:
            document: dict[str, Any] = json.loads(text[text.index("{") :])
        except ValueError:
            if not ran and not text:  # it never started: there is nothing to wait for
                break
            time.sleep(POLL_SECONDS)
        else:
            return document
    why = stopped.get("stoppedReason", "it says no reason")
    raise CheckError(f"doctor printed no document (log stream {stream}); the task ended: {why}\n{text}".rstrip())


def _log(clients: Clients, group: str, stream: str) -> str:
    lines: list[str] = []
    token: dict[str, str] = {}
    while True:
        try:
            page = clients.logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        except clients.logs.exceptions.ResourceNotFoundException:
            return ""
        lines += [event["message"] for event in page["events"]]
        if not page["events"] or page["nextForwardToken"] == token.get("nextToken"):
            return "\n".join(lines)
        token = {"nextToken": page["nextForwardToken"]}


def _status(*, well: bool) -> str:
    return "ok" if well else "failure"


def _id(arn: str) -> str:
    return arn.rpartition("/")[2]


if __name__ == "__main__":
    sys.exit(main())
