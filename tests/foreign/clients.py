"""The clients in other languages as processes: one publishes what it is asked to, its example publishes one event."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.harness.toolchains import ROOT, built_by_go, built_by_node


class Client(NamedTuple):
    """What starts it, built."""

    driver: Sequence[str]
    example: Sequence[str]
    """Takes a target, a model's name, its version and a URI."""


def go() -> Client:
    module = ROOT / "clients/go"
    driver, example = (built_by_go(module, package) for package in ("./internal/conformance", "./example"))
    return Client([str(driver)], [str(example), "-target"])


def typescript() -> Client:
    built = built_by_node(ROOT / "clients/typescript") / "dist"
    return Client(["node", str(built / "tests/conformance.js")], ["node", str(built / "example/publish.js")])


CLIENTS: Mapping[str, Callable[[], Client]] = {"go": go, "typescript": typescript}


class Driver:
    """A client that publishes what it is asked to; clients/python/tests/conformance.py describes both directions."""

    def __init__(self, client: Client) -> None:
        self._process = subprocess.Popen(
            client.driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]}
        )

    def publish(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"it ended with {self._process.wait()}"
        return dict(json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
