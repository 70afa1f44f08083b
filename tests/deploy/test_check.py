"""deploy/check against moto. ECS is played: the lines of the one-off task are those of a real doctor."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import check
from tests.deploy.account import Client
from tests.deploy.template import ROOT

STACK = "checked"
BY_NAME = ["--cluster", STACK, "--service", "registry", "--log-group", f"/ecs/{STACK}/sidecar"]
OUTPUTS = {"ClusterName": STACK, "ServiceName": "registry", "SidecarLogGroup": f"/ecs/{STACK}/sidecar"}


@pytest.fixture(scope="module", autouse=True)
def stack(aws: Client, network: dict[str, str]) -> None:
    """A service with a network, which moto's CloudFormation leaves out, and the outputs that name it."""
    group = aws("ec2").create_security_group(GroupName=STACK, Description=STACK, VpcId=network["VpcId"])["GroupId"]
    ecs = aws("ecs")
    ecs.create_cluster(clusterName=STACK)
    ecs.register_task_definition(
        family=STACK, requiresCompatibilities=["FARGATE"], networkMode="awsvpc", cpu="256", memory="512",
        containerDefinitions=[{"name": name, "image": name, "memory": 256} for name in ("registry", "sidecar")],
    )  # fmt: skip
    ecs.create_service(
        cluster=STACK, serviceName="registry", taskDefinition=STACK, desiredCount=0, launchType="FARGATE",
        networkConfiguration={
            "awsvpcConfiguration": {"subnets": network["SubnetIds"].split(","), "securityGroups": [group]}
        },
    )  # fmt: skip
    aws("logs").create_log_group(logGroupName=OUTPUTS["SidecarLogGroup"])
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in OUTPUTS.items()},
    }
    aws("cloudformation").create_stack(StackName=STACK, TemplateBody=json.dumps(template))
    aws("cloudformation").create_stack(
        StackName="another", TemplateBody=json.dumps({"Resources": template["Resources"]})
    )


@pytest.fixture(scope="module", autouse=True)
def tasks_that_end_when_they_are_stopped() -> Iterator[None]:
    """moto ends them by itself, otherwise."""
    from moto.moto_api import state_manager  # noqa: PLC0415 - its import is slow

    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 1_000_000})
    yield
    state_manager.unset_transition("ecs::task")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(check, "LOG_SECONDS", 5.0)


def doctor(**environment: str) -> str:
    """What a real doctor prints."""
    command = [sys.executable, "-m", "sidecar", "doctor", "--json"]
    environ = {"PATH": os.environ["PATH"], "SPOOL_DIR": "/tmp/modelready-check-spool"} | environment
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False
    ).stdout


Play = Callable[[str | None], None]


@pytest.fixture
def fargate(aws: Client) -> Iterator[Play]:
    """Ends the next one-off task, after it has logged these lines; None: it never started."""
    threads: list[threading.Thread] = []

    def play(lines: str | None) -> None:
        ecs, logs = aws("ecs"), aws("logs")
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            arns = ecs.list_tasks(cluster=STACK, startedBy="deploy/check", desiredStatus="RUNNING")["taskArns"]
            for arn in arns:
                if lines is not None:
                    stream = f"sidecar/sidecar/{arn.rpartition('/')[2]}"
                    logs.create_log_stream(logGroupName=OUTPUTS["SidecarLogGroup"], logStreamName=stream)
                    now = int(time.time() * 1000)
                    logs.put_log_events(
                        logGroupName=OUTPUTS["SidecarLogGroup"], logStreamName=stream,
                        logEvents=[{"timestamp": now, "message": line} for line in lines.splitlines()],
                    )  # fmt: skip
                ecs.stop_task(cluster=STACK, task=arn, reason="Essential container in task exited")
                return
            time.sleep(0.05)

    def start(lines: str | None) -> None:
        threads.append(threading.Thread(target=play, args=(lines,), daemon=True))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_it_prints_what_doctor_found_in_a_task_like_the_service_s(
    aws: Client, fargate: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    fargate(doctor(REDIS_HOST="127.0.0.1", REDIS_PORT="1"))
    assert check.main([STACK]) == 1
    said = capsys.readouterr().out
    assert "failure  tcp       127.0.0.1:1 refuses connections" in said
    assert "[tcp-refused]" in said
    assert "skipped  tls" in said
    (task,) = described(aws)
    (override,) = task["overrides"]["containerOverrides"]
    assert override == {"name": "sidecar", "command": ["doctor", "--json"]}


def test_settings_that_are_wrong_are_exit_code_2(fargate: Play, capsys: pytest.CaptureFixture[str]) -> None:
    fargate(doctor(REDIS_HOST="127.0.0.1", REDIS_PORT="6379a"))
    assert check.main([STACK]) == 2
    assert "REDIS_PORT is '6379a'" in capsys.readouterr().out


def test_all_is_well(fargate: Play, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"check": "dns", "status": "ok", "found": "redis is 10.0.0.1", "finding": "", "todo": ""}
    fargate(json.dumps({"exit_code": 0, "checks": [line], "variables": []}, indent=2))
    assert check.main([*BY_NAME]) == 0
    assert "ok       service   0 of 0 tasks run with a healthy sidecar" in capsys.readouterr().out


def test_a_service_whose_sidecar_is_not_healthy_is_a_failure(
    aws: Client, fargate: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    aws("ecs").update_service(cluster=STACK, service="registry", desiredCount=1)
    try:
        fargate(json.dumps({"exit_code": 0, "checks": [], "variables": []}))
        assert check.main([STACK]) == 1
    finally:
        aws("ecs").update_service(cluster=STACK, service="registry", desiredCount=0)
    assert "failure  service   0 of 1 tasks run with a healthy sidecar" in capsys.readouterr().out


def test_a_task_that_never_started_is_said_with_ecs_own_reason(
    fargate: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    fargate(None)
    assert check.main([STACK]) == 3
    assert "Essential container in task exited" in capsys.readouterr().err


def test_a_task_that_does_not_end_is_stopped(aws: Client, capsys: pytest.CaptureFixture[str]) -> None:
    before = {task["taskArn"] for task in described(aws)}
    assert check.main([STACK, "--timeout", "0.2"]) == 3
    assert "has not ended in time" in capsys.readouterr().err
    (task,) = [task for task in described(aws) if task["taskArn"] not in before]
    assert task["stoppedReason"] == "deploy/check gave up"


@pytest.mark.parametrize("arguments", [[], [STACK, *BY_NAME], BY_NAME[:2]], ids=["none", "both", "a part"])
def test_a_stack_or_all_three_names_are_needed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check.main(arguments)
    assert "name a stack, or all three" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["another", "none-such"])
def test_what_is_no_such_stack_is_said(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([name]) == 3
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("other", ["absent", "lacks boto3"])
def test_it_is_a_command(aws: Client, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the environment that `make install` makes only where that has boto3, else the python3 on the path."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("terraform"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path.endswith("site-packages")))
    if other == "lacks boto3":
        (tmp_path / ".venv/bin").mkdir(parents=True)
        python = tmp_path / ".venv/bin/python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # without what is installed
        python.chmod(0o755)
    command = [str(tmp_path / "deploy/check"), "none-such"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout) == (3, "")
    assert "none-such" in said.stderr


def test_it_takes_the_region_that_the_cli_takes(aws: Client) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "AWS_DEFAULT_REGION"}
    command = [sys.executable, str(ROOT / "deploy/check.py"), "none-such"]
    said = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, "region" in said.stderr) == (3, False), said.stderr


def test_without_boto3_it_says_so() -> None:
    command = [sys.executable, "-S", str(ROOT / "deploy/check.py"), STACK]  # -S: without what is installed
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stderr) == (3, "deploy/check needs boto3: pip install boto3\n")


def described(aws: Client) -> list[dict[str, Any]]:
    """All one-off tasks that have stopped."""
    ecs = aws("ecs")
    arns = ecs.list_tasks(cluster=STACK, desiredStatus="STOPPED")["taskArns"]
    tasks: list[dict[str, Any]] = ecs.describe_tasks(cluster=STACK, tasks=arns)["tasks"] if arns else []
    return tasks
