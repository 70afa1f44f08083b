"""help() and every editor's tooltip show default arguments: none may be what holds secrets."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import pydoc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import modelready
import sidecar


def _functions() -> Iterator[tuple[str, Any]]:
    for package in (modelready, sidecar):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".v1." in found.name or ".rpc." in found.name or found.name.endswith("__main__"):
                continue
            try:
                module = importlib.import_module(found.name)
            except ModuleNotFoundError as error:
                if error.name != "mlflow":  # which has an environment of its own
                    raise
                continue
            for owner in (module, *(kind for kind in vars(module).values() if inspect.isclass(kind))):
                for name, value in vars(owner).items():
                    function = getattr(value, "__func__", value)
                    if inspect.isfunction(function):
                        yield f"{found.name}.{name}", function


def test_no_default_argument_holds_the_environment() -> None:
    functions = list(_functions())
    assert len(functions) > 500
    holding = [
        name
        for name, function in functions
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        if default is os.environ
    ]
    assert holding == []


def test_help_prints_no_token() -> None:
    code = "import modelready.consumer, sidecar.settings; help(modelready.consumer.Consumer); help(sidecar.settings)"
    environ = {"PATH": os.environ["PATH"], "REDIS_AUTH_TOKEN": "s3cret-token"}
    shown = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert "from_env" in shown.stdout
    assert "s3cret-token" not in shown.stdout
    assert "environ" in pydoc.render_doc(modelready.consumer.Consumer)  # type: ignore[attr-defined]
