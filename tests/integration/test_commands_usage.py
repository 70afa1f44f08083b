"""The commands complete in real shells, exist where the documents name them, and cost nothing before they run."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import __version__
from sidecar.cli.completion import SHELLS, commands, script
from sidecar.cli.main import build_parser, main
from sidecar.cli.manual import PAGES
from sidecar.format import age, duration

ROOT = Path(__file__).parents[2]
KNOWN = {
    command: [word for action in parser._actions for word in action.option_strings or action.choices or ()]
    for command, parser in commands(build_parser())
}
CASES = [
    ("", {"serve", "status", "tail", "publish", "dead-letters", "completion"}, {"list"}),
    ("--ver", {"--version"}, {"list"}),
    ("dead", {"dead-letters"}, {"status"}),
    ("dead-letters ", {"list", "show", "replay", "discard"}, {"status"}),
    ("dead-letters re", {"replay"}, {"list"}),
    ("dead-letters replay --", {"--all", "--to", "--dry-run", "--yes", "--token"}, {"--limit", "list"}),
    ("dead-letters replay --to ", {"origin", "all"}, {"--to"}),
    ("groups ", {"list", "create", "remove", "reset"}, {"status"}),
    ("groups reset a --", {"--start", "--force", "--yes", "--json"}, {"--limit"}),
    ("dead-letters list --reason A --", {"--origin", "--older-than"}, {"--dry-run"}),
    ("publish --durability p", {"primary"}, {"spooled"}),
    ("publish --name ", set(), {"--name", "-"}),
    ("status --json --w", {"--watch"}, {"--token"}),
    ("status --ca-file py", {"pyproject.toml"}, {"README.md"}),
    ("completion ", {"bash", "zsh", "fish"}, {"serve"}),
]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_options_and_values(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    written = tmp_path / "_modelready-sidecar"
    written.write_text(script(build_parser(), shell))
    offers = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](written)
    for line, offered, others in CASES:
        found = {word for word in offers(f"modelready-sidecar {line}") if word.startswith(line.rpartition(" ")[2])}
        assert offered <= found, line
        assert not others & found, line


def _output(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


def _bash(written: Path) -> Callable[[str], list[str]]:
    def offers(line: str) -> list[str]:
        asked = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))'
        called = "$(complete -p modelready-sidecar | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        text = f"source {written}; {asked}; {called}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return _output("bash", "--norc", "-c", text, "bash", *line.split(" ")).splitlines()

    return offers


def _fish(written: Path) -> Callable[[str], list[str]]:
    def offers(line: str) -> list[str]:
        output = _output("fish", "--no-config", "-c", f"source {written}; complete -C '{line}'")
        return [word.partition("\t")[0] for word in output.splitlines()]

    return offers


_ZSHRC = """
PS1=
fpath=(${0:h} $fpath)
autoload -Uz compinit && compinit -u -D
compadd() {  # prints each word that would be added; -O, -A and -D only ask which of some words match
    if [[ " ${@[1,(i)(-|--)]} " == *" "-(O|A|D)" "* ]]; then builtin compadd "$@"; return; fi
    local -a offered
    builtin compadd -A offered "$@"
    print -rl -- OFFER:$^offered
}
finish() { zle complete-word; print -r -- THE-END; exit }
zle -N finish
bindkey '^A' finish
print -r -- READY
"""


def _zsh(written: Path) -> Callable[[str], list[str]]:
    """Its line editor at work in a terminal of its own."""
    (written.parent / ".zshrc").write_text(_ZSHRC.replace("${0:h}", str(written.parent)))

    def offers(line: str) -> list[str]:
        terminal = (
            "zmodload zsh/zpty; zpty shell zsh -i; zpty -r shell output '*READY*';"
            f"zpty -n -w shell {shlex.quote(line)}$'\\C-a'; zpty -r shell output '*THE-END*'; print -r -- $output"
        )
        output = _output("env", f"ZDOTDIR={written.parent}", "zsh", "-f", "-c", terminal)
        return re.findall(r"OFFER:(\S+)", output)

    return offers


def test_every_command_and_option_is_completed_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in KNOWN.items():
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), "--help"])
        assert ended.value.code == 0
        output = capsys.readouterr().out
        assert [word for word in words if word.startswith("--") and word not in output] == []


@pytest.mark.parametrize("command", KNOWN)
def test_help_says_what_a_command_does_its_exit_codes_and_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Exit codes: 0 .*\. Example: .*modelready-sidecar ", said)
    assert PAGES[command].what[:60] in said
    (line,) = re.findall(r"(?<!`)modelready-sidecar (.*?)(?: \||\)|$)", PAGES[command].example)
    example = build_parser().parse_args(shlex.split(line))
    assert command.split()[:1] in ([], [example.command])


def test_commands_that_print_a_state_print_json_too() -> None:
    no_json = {"", "serve", "demo", "completion", "dead-letters", "groups", "outbox"}
    assert {command for command, words in KNOWN.items() if "--json" not in words} <= no_json


def test_version_names_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)
    assert versions["modelready-sidecar"] == versions["modelready"] == __version__
    assert main(["version"]) == 0
    assert f"python {versions['python']}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "command",
    [
        ["groups", "remove", "{}"],
        ["tail", "--group", "{}"],
        ["dead-letters", "list", "--model", "{}"],
        ["publish", "{}"],
    ],
)
def test_an_argument_that_is_no_utf_8_is_wrong_usage(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([part.format("caf\udce9") for part in command])
    assert ended.value.code == 2
    assert r"'caf\udce9' is not UTF-8" in capsys.readouterr().err


def test_health_says_as_json_that_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--json", "--address", "unix:/nowhere"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["status"], said["address"]) == ("UNKNOWN", "unix:/nowhere")
    assert "there is no such socket" in said["error"]


DOCUMENTS = [
    "README.md", "docs/configuration.md", "docs/deploy-ecs.md", "docs/operations.md", "docs/troubleshooting.md",
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_that_a_document_names_exist(document: str) -> None:
    named = re.findall(
        r"(?<![/\w])(?<!-name )(?<!-names )modelready-sidecar((?: +[^\s`|#<>;()\"]+)+)", (ROOT / document).read_text()
    )
    assert named
    for line in named:
        command = ""
        for word in line.split():
            if f"{command} {word}".strip() in KNOWN:
                command = f"{command} {word}".strip()
            elif word.startswith("-"):
                assert word.rstrip(".,:") in KNOWN[command], line
            else:
                assert command, line


def test_operations_names_every_command() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert [command for command in KNOWN if f"modelready-sidecar {command}".strip() not in text] == []


def test_operations_explains_each_state_and_no_other() -> None:
    source = (ROOT / "sidecar/summary.py").read_text()
    said = source + (ROOT / "sidecar/publishing/readiness.py").read_text()  # what it says comes behind "events are"
    text = (ROOT / "docs/operations.md").read_text()
    section = text.split("## What the first line says")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    explained = [part.strip().removeprefix("events are ") for row in rows for part in row.split("…") if part.strip()]
    assert [part for part in explained if part not in said] == []
    # One of them yields what readiness says, which is of three kinds; that queues are evicted is not yielded.
    assert len(rows) == len(re.findall(r"^ +yield ", source, re.MULTILINE)) + 3


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    script = "import sys, sidecar.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"grpc", "google.protobuf", "redis", "modelready", "ssl", "sqlite3", "uvloop", "asyncio"}
    assert not heavy & set(done.stdout.split())


def test_ages_are_written_and_read() -> None:
    assert [age(text) for text in ("90s", "15m", "1.5h", "3d")] == [90, 900, 5400, 259_200]
    for text in ("", "5", "h", "-1h", "1h30m", "1w", "1 h", "nans", "1e9s"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not an age: write 90s, 15m, 2h or 3d"):
            age(text)
    said = [duration(seconds) for seconds in (-1, 0, 59.9, 60, 3661, 7200, 90_061, 86_400 * 400)]
    assert said == ["0s", "0s", "59s", "1m", "1h 1m", "2h", "1d 1h", "400d"]
