"""`make demo`: the demo of the sidecar, with three scenes more for the example registry.

    python -m scripts.demo PYTHON    # that of an environment with requirements/registry.txt

The registry is a process of its own, with its outbox in SQLite. It promotes a version while Redis is away, and gets
SIGKILL after its commit; the deployer must have the event, once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from sidecar.cli.demo.screen import Screen
from sidecar.cli.demo.story import Demo, digest, end, other_variables, play

CLIENT = Path(__file__).parents[1] / "clients/python"
MODEL = "pricing"
ALIAS = f"/models/{MODEL}/aliases/champion"
HTTP_SECONDS = 30.0
SERVING = re.compile(r"Uvicorn running on (http://\S+)")


class DemoWithRegistry(Demo):
    """The demo with the example registry, which runs in the environment of `python`."""

    def __init__(self, screen: Screen, place: Path, stack: ExitStack, *, python: str) -> None:
        super().__init__(screen, place, stack)
        self._python = python
        self._log = place / "registry.log"
        self._url = ""

    def _play_more(self) -> None:
        screen = self._screen
        screen.scene("The example registry (FastAPI) promotes a version; its outbox is in SQLite")
        tables = self._run("registry.tables")
        self._until(lambda: tables.poll() is not None, "the registry creates its tables")
        self._check(tables.returncode == 0, f"it cannot create its tables:\n{self._log.read_text()}")
        registry = self._start_registry()
        self._call("POST", "/models", {"name": MODEL}, 201)
        self._register(1, auc=0.91)
        self._promote(1)
        self._expect_deployed("the deployer gets the event")
        self._until(lambda: self._waiting() == 0, "the outbox is emptied")

        screen.scene("Redis is killed; the registry promotes the next version, and is killed after its commit")
        self._kill_redis()
        self._register(2, auc=0.93)
        self._register(3, auc=0.9)
        self._promote(2)
        refused = self._call("PUT", ALIAS, {"version": 3, "must_improve": "auc"}, 409)
        screen.line("registry", f"{MODEL}/3 is refused: {refused['detail']}", "33")
        waiting = self._waiting()
        self._check(waiting == 1, f"the outbox holds {waiting} events, not 1")
        screen.line("registry", "its outbox keeps the event until Redis has it")
        registry.kill()
        registry.wait()
        screen.line("registry", f"pid {registry.pid} is gone", "31")

        screen.scene("Redis and the registry come back, and the event arrives")
        self._start_redis()
        self._start_registry()
        self._expect_deployed("the event arrives")
        self._until(lambda: self._waiting() == 0, "the outbox is emptied")
        screen.line("registry", "its outbox is empty")

    def _start_registry(self) -> subprocess.Popen[bytes]:
        process = self._run("uvicorn", "registry.app:app", "--port", "0")

        def serving() -> re.Match[str] | None:
            text = self._log.read_text(errors="replace")
            self._check(process.poll() is None, f"the registry ended with {process.returncode}:\n{text[-2000:]}")
            return SERVING.search(text)

        self._url = self._until(serving, "the registry starts")[1]
        self._screen.line("registry", f"serves HTTP on {self._url}, pid {process.pid}")
        return process

    def _run(self, *module: str) -> subprocess.Popen[bytes]:
        """Start a module of the registry, beside the sidecar of this demo."""
        environ = {name: value for name, value in other_variables().items() if not name.startswith("MODELREADY_")}
        environ |= {
            "PYTHONPATH": f"{CLIENT / 'src'}:{CLIENT / 'examples'}",
            "DATABASE_URL": f"sqlite:///{self._place / 'registry.db'}",
            "MODELREADY_SIDECAR": self._address,
        }
        with self._log.open("wb") as output:
            process = subprocess.Popen(
                [self._python, "-m", *module],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C goes to the demo
            )
        self._stack.callback(end, process)
        return process

    def _register(self, number: int, *, auc: float) -> None:
        """Write a model's file and register it as the next version, which must get this number."""
        path = self._place / f"{MODEL}-{number}.json"
        path.write_text(json.dumps({"name": MODEL, "version": number, "auc": auc}))
        new = {"uri": path.as_uri(), "digest": digest(path.read_bytes()), "metrics": {"auc": auc}}
        answer = self._call("POST", f"/models/{MODEL}/versions", new, 201)
        self._check(answer["version"] == number, f"{MODEL}/{number} was registered as {answer['version']}")

    def _promote(self, number: int) -> None:
        began = time.monotonic()
        self._call("PUT", ALIAS, {"version": number, "must_improve": "auc"})
        milliseconds = (time.monotonic() - began) * 1000
        self._published.append(f"{MODEL}/{number}")
        self._screen.line(
            "registry", f"{f'{MODEL}/{number}':<20} {'promoted, with its event':<36}{milliseconds:6.1f} ms", "32"
        )

    def _waiting(self) -> int:
        """How many events the outbox holds."""
        return int(self._call("GET", "/healthz")["waiting"])

    def _call(self, method: str, path: str, body: object = None, expected: int = 200) -> dict[str, Any]:
        """The answer of the registry, which must have this status."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._url}{path}", data, {"content-type": "application/json"}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=HTTP_SECONDS) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        self._check(status == expected, f"{method} {path} answered {status}: {text.decode(errors='replace')}")
        said: dict[str, Any] = json.loads(text)
        return said


if __name__ == "__main__":
    sys.exit(play(plain=False, demo=partial(DemoWithRegistry, python=sys.argv[1])))
