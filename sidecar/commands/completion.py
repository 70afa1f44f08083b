"""The completion command: what bash and zsh need to complete ours, made from the parsers themselves."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from sidecar.commands.ending import quietly

_BASH = """\
# Completion for bash: source <(modelready-sidecar completion bash)
_modelready_sidecar() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} at= i words=
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${COMP_WORDS[i]}" in
            @COMMANDS@) at="$at ${COMP_WORDS[i]}" ;;
        esac
    done
    COMPREPLY=()
    case "$at $before" in
@VALUES@
        *) case "$at" in
@WORDS@
        esac ;;
    esac
    if [[ $words == FILE ]]; then
        compopt -o filenames 2>/dev/null
        local IFS=$'\\n'
        COMPREPLY=($(compgen -f -- "$word"))
    elif [[ -n $words ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
}
complete -F _modelready_sidecar modelready-sidecar
"""

_ZSH = """\
#compdef modelready-sidecar
# Completion for zsh: source <(modelready-sidecar completion zsh), after compinit; or as _modelready-sidecar in $fpath
_modelready_sidecar() {
    local before=${words[CURRENT-1]} at= i found=
    for ((i = 2; i < CURRENT; i++)); do
        case "$at ${words[i]}" in
            @COMMANDS@) at="$at ${words[i]}" ;;
        esac
    done
    case "$at $before" in
@VALUES@
        *) case "$at" in
@WORDS@
        esac ;;
    esac
    if [[ $found == FILE ]]; then
        _files
    elif [[ -n $found ]]; then
        compadd -- ${=found}
    fi
}
if [[ ${funcstack[1]} == _modelready-sidecar ]]; then
    _modelready_sidecar "$@"
else
    compdef _modelready_sidecar modelready-sidecar
fi
"""


class Known(NamedTuple):
    """What may follow a command, such as ` dead-letters list`: words, and for each option that takes a value which."""

    command: str
    words: list[str]
    values: dict[str, str]


def add(parsers: argparse._SubParsersAction[argparse.ArgumentParser], root: argparse.ArgumentParser) -> None:
    """The parser of the command; `root` is the tree that is completed."""
    help_text = "print the completion for a shell: source <(modelready-sidecar completion bash)"
    parser = parsers.add_parser("completion", help=help_text, description=help_text)
    parser.add_argument("shell", choices=["bash", "zsh"])
    parser.set_defaults(run=partial(_run, root))


def _run(root: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    @quietly
    def run(options: argparse.Namespace) -> int:
        print(script(root, options.shell), end="")
        return 0

    return run(options)


def script(root: argparse.ArgumentParser, shell: str) -> str:
    """What the shell reads."""
    text, variable = (_BASH, "words") if shell == "bash" else (_ZSH, "found")
    known = list(commands(root))
    values = [
        f"        {shlex.quote(f'{one.command} {option}')}) {variable}={shlex.quote(value)} ;;"
        for one in known
        for option, value in one.values.items()
    ]
    words = [
        f"            {shlex.quote(one.command)}) {variable}={shlex.quote(' '.join(one.words))} ;;" for one in known
    ]
    return (
        text.replace("@COMMANDS@", " | ".join(shlex.quote(one.command) for one in known if one.command))
        .replace("@VALUES@", "\n".join(values))
        .replace("@WORDS@", "\n".join(words))
    )


def commands(parser: argparse.ArgumentParser, command: str = "") -> Iterator[Known]:
    """The tree, from the top."""
    known = Known(command, [], {})
    children: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            children += action.choices.items()
            known.words.extend(action.choices)
        elif action.option_strings:
            known.words.extend(action.option_strings)
            if action.nargs not in (0, "?"):
                known.values.update(dict.fromkeys(action.option_strings, _values(action)))
        elif action.choices:
            known.words.extend(str(choice) for choice in action.choices)
    yield known
    for name, child in children:
        yield from commands(child, f"{command} {name}")


def _values(action: argparse.Action) -> str:
    if action.metavar == "FILE":
        return "FILE"
    return " ".join(str(choice) for choice in action.choices or ())
