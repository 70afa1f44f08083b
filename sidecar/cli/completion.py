"""The completion command: shtab makes what a shell needs from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from sidecar.cli.exits import without_traceback

SHELLS = ("bash", "zsh", "fish")


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser], root: argparse.ArgumentParser) -> None:
    """The parser of the command; `root` is the tree that is completed."""
    help_text = "print the completion for a shell: source <(modelready-sidecar completion bash)"
    parser = parsers.add_parser("completion", help=help_text)
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=_run, root=root)


@without_traceback
def _run(options: argparse.Namespace) -> int:
    print(script(options.root, options.shell))
    return 0


def script(root: argparse.ArgumentParser, shell: str) -> str:
    """What the shell reads."""
    import shtab

    for _, parser in commands(root):
        for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(root, shell)


def commands(parser: argparse.ArgumentParser, command: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command, such as `dead-letters list`, and its parser, from the top (``""``)."""
    yield command, parser
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, child in action.choices.items():
                yield from commands(child, f"{command} {name}".strip())
