"""A headless Chromium, driven over a pipe by the DevTools protocol: no driver, no socket, no further package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from select import select
from typing import Any, Self, TypeVar

from tests.harness.waiting import until

T = TypeVar("T")
_SECONDS = 10.0
_KEYS = {"Tab": 9, "Enter": 13, " ": 32}
# What a page that only shows loopback needs none of; as root, in CI, the sandbox cannot be had.
_OPTIONS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
    "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--no-pings", "--lang=en-GB",
    "--no-proxy-server", "--force-color-profile=srgb", "--password-store=basic",
)  # fmt: skip


def find_chromium() -> str | None:
    """The browser of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends are neither 3 nor 4, which the shell gives away."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


class Chromium:
    """One browser with one tab. A context manager: started in, killed after."""

    def __init__(self, binary: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        to_browser, self._out = _high_pipe()
        self._in, from_browser = _high_pipe()
        options = [*_OPTIONS, f"--user-data-dir={self._profile}"]
        if os.getuid() == 0:
            options.append("--no-sandbox")
        # The browser reads commands from its descriptor 3 and writes to its 4.
        plumbing = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", plumbing, binary, *options, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its many processes end together
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest = b""
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        """The events of the tab, in order."""

    def __enter__(self) -> Self:
        try:
            targets = until(lambda: self._send("Target.getTargets")["targetInfos"], _SECONDS, "it has a tab")
            tab = next(target for target in targets if target["type"] == "page")
            attached = self._send("Target.attachToTarget", targetId=tab["targetId"], flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log", "Accessibility", "DOM"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to the tab, and its result."""
        return self._send(method, **parameters)

    def go(self, url: str) -> None:
        """Navigate, and wait until the page has loaded."""
        self.load(lambda: self.send("Page.navigate", url=url))

    def load(self, act: Callable[[], object]) -> None:
        """Do what leads to another page, and wait until that has loaded."""
        seen = len(self.events)
        act()
        until(lambda: self._heard("Page.loadEventFired", seen), _SECONDS, "the page has loaded")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": _KEYS[key]}
        modifiers = 8 if shift else 0
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, modifiers=modifiers, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", modifiers=modifiers, **common)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.send("Input.insertText", text=text)

    def tab_to(self, expression: str) -> None:
        """Press Tab until the focus is on the element for which the expression, of `it`, is true."""
        for _ in range(100):
            self.press("Tab")
            if self.evaluate(f"(it => !!it && it !== document.body && !!({expression}))(document.activeElement)"):
                return
        raise AssertionError(f"Tab leads to nothing that is {expression}")

    def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        """The window's inside, in CSS pixels; `scale`: pixels of a picture to one of them."""
        size = {"width": width, "height": height}
        self.send("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=scale, mobile=False)

    def prefer(self, **features: str) -> None:
        """Media features: `color_scheme="dark"`."""
        wanted = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=wanted)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """PNG; `whole`: all of the page, else the window."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What stands in the console: errors, warnings, what the content security policy refused, exceptions."""
        found = []
        for event in self.events:
            said = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(said["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(str(said["args"]))
            elif event["method"] == "Log.entryAdded" and said["entry"]["level"] in {"error", "warning"}:
                found.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        return found

    def requested(self) -> list[str]:
        """The addresses of all requests of the tab."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def _heard(self, method: str, since: int) -> bool:
        self.send("Runtime.evaluate", expression="1")  # reads what has come until then
        return any(event["method"] == method for event in self.events[since:])

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _SECONDS
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                self.events.append(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select([self._in], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser has ended"
            self._rest += chunk
        raw, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(raw)
        return answer
