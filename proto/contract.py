"""Generates the Python code of the contract and checks the contract itself. Run by `make proto` and `make proto-check`.

    python proto/contract.py generate [--into DIR]     (default: clients/python/src)
    python proto/contract.py check [--against REF]     (lint, format, stale code, breaking changes against REF)
    python proto/contract.py export DIR                (the contract with all that it imports, for other generators)

It runs in an environment of its own (requirements/proto.txt), see docs/adr/0006. validate.proto comes from a pinned
source distribution, since no wheel has it.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.resources
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
CODE = Path("clients/python/src")
PACKAGE = Path("modelready/v1")
RPC = ("google/rpc/status.proto", "google/rpc/error_details.proto")
BIN = Path(sys.executable).parent
# The source distribution that has buf/validate/validate.proto.
VALIDATE = "protovalidate==1.2.0 --hash=sha256:4cb9a5065f32abc9baf2cf25c5bd09a139f7dffb7b8692f636a8e3e6883bb9a2"


def sources() -> list[str]:
    return sorted(str(path.relative_to(PROTO)) for path in (PROTO / PACKAGE).glob("*.proto"))


def fetch_imports(into: Path) -> None:
    """Puts validate.proto and google/rpc's files below `into`."""
    cached = ROOT / ".cache" / "validate.proto"
    if not cached.exists():
        with tempfile.TemporaryDirectory() as place:
            pins = Path(place) / "pins.txt"
            pins.write_text(VALIDATE)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            subprocess.run([*pip, "--require-hashes", "-r", pins, "-d", place], check=True)
            with tarfile.open(next(Path(place).glob("protovalidate-*.tar.gz"))) as archive:
                name = next(n for n in archive.getnames() if n.endswith("/upstream/proto/buf/validate/validate.proto"))
                member = archive.extractfile(name)
                assert member is not None
                cached.parent.mkdir(exist_ok=True)
                cached.write_bytes(member.read())
    (into / "buf/validate").mkdir(parents=True)
    shutil.copy(cached, into / "buf/validate/validate.proto")
    (into / "google/rpc").mkdir(parents=True)
    for name in RPC:
        (into / name).write_bytes((importlib.resources.files("google.rpc") / Path(name).name).read_bytes())


def run_protoc(*arguments: str) -> None:
    plugins = [f"--plugin=protoc-gen-{name}={BIN}/protoc-gen-{name}" for name in ("mypy", "mypy_grpc")]
    if protoc.main(["protoc", *plugins, *arguments]):
        sys.exit("proto: protoc failed")


def write_image(place: Path) -> Path:
    """A descriptor set of the contract and all that it imports but buf's rules, which stay in the options as bytes.

    protovalidate finds them there; generated code needs no `buf` package.
    """
    imports, image = place / "imports", place / "image.binpb"
    fetch_imports(imports)
    wellknown = str(importlib.resources.files("grpc_tools") / "_proto")
    run_protoc(f"-I{PROTO}", f"-I{imports}", f"-I{wellknown}", "--include_imports", "--include_source_info",
               f"--descriptor_set_out={image}", *sources(), *RPC)  # fmt: skip
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
    for file in files.file:
        kept = [name for name in file.dependency if not name.startswith("buf/")]
        file.ClearField("dependency")
        file.dependency.extend(kept)
    image.write_bytes(files.SerializeToString())
    return image


def generate(into: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        image = write_image(Path(place))
        into.mkdir(parents=True, exist_ok=True)
        given = f"--descriptor_set_in={image}"
        run_protoc(given, f"--python_out={into}", f"--pyi_out={into}", *sources())
        services = [name for name in sources() if name.endswith("_service.proto")]
        run_protoc(given, f"--grpc_python_out={into}", f"--mypy_grpc_out=quiet:{into}", *services)
        # google.rpc's messages, for clients that do not have googleapis-common-protos: see modelready/rpc.
        run_protoc(given, f"--python_out={place}", *RPC)
        for name in RPC:
            module = Path(name).stem + "_pb2.py"
            (into / "modelready/rpc").mkdir(exist_ok=True)
            shutil.copy(Path(place) / "google/rpc" / module, into / "modelready/rpc" / module)
        for module in (into / PACKAGE).glob("*_pb2.py"):
            text = module.read_text()
            module.write_text(
                text.replace("from google.rpc import status_pb2", "from modelready.rpc import status_pb2")
            )
        (into / PACKAGE / "__init__.py").write_text('"""Generated from proto/modelready/v1 by `make proto`."""\n')
        for file in descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file:
            if file.name in sources():
                stub = into / file.name.replace(".proto", "_pb2.pyi")
                stub.write_text(documented(stub.read_text(), comments(file)))
                shutil.copy(PROTO / file.name, into / file.name)  # the wheel has it, for generators of its users


def comments(file: descriptor_pb2.FileDescriptorProto) -> dict[str, str]:
    """The comment above each message, enum, field and value, by its name within the file, such as `Receipt.outcome`."""
    found = {}
    for location in file.source_code_info.location:
        text = location.leading_comments.strip()
        if not text or len(location.path) < 2:
            continue  # of the file itself
        here, names = file, []
        for field, index in zip(location.path[::2], location.path[1::2], strict=True):
            here = getattr(here, here.DESCRIPTOR.fields_by_number[field].name)[index]
            names.append(here.name)
        found[".".join(names)] = "\n".join(line.removeprefix(" ") for line in text.splitlines())
    return found


def documented(stub: str, texts: dict[str, str]) -> str:
    """The stub with the comments as docstrings, which editors and help() of a type checker show."""
    lines: list[str] = []
    path: list[str] = []
    for line in stub.splitlines():
        lines.append(line)
        if not (named := re.match(r"( *)(class )?(\w+)[:(]", line)):
            continue
        depth = len(named[1]) // 4
        path[depth:] = [named[3]]
        if text := texts.get(".".join(path)):
            quoted = text.replace("\\", "\\\\").replace('"""', '\\"""')
            body = f'"""{quoted}\n"""' if "\n" in quoted or quoted.endswith('"') else f'"""{quoted}"""'
            lines += textwrap.indent(body, " " * 4 * (depth + bool(named[2]))).splitlines()
    return "\n".join(lines) + "\n"


def buf(*arguments: str, cwd: Path) -> None:
    if subprocess.run([str(BIN / "buf"), *arguments], cwd=cwd, check=False).returncode:
        sys.exit(f"proto: buf {arguments[0]} failed")


def workspace(place: Path, ref: str | None) -> Path:
    """A copy of proto/ as it stands (or at `ref`) with the imported files beside it, which is what buf wants."""
    place.mkdir(parents=True)
    if ref is None:
        shutil.copytree(PROTO / "modelready", place / "modelready")
        shutil.copy(PROTO / "buf.yaml", place)
    else:
        archive = subprocess.run(["git", "archive", ref, "proto"], cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(place, filter="data")
        for path in (place / "proto").iterdir():
            path.rename(place / path.name)
        (place / "proto").rmdir()
    fetch_imports(place)
    return place


def check(against: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        fresh = Path(place) / "code"
        generate(fresh)
        stale = [
            str(path.relative_to(fresh))
            for path in sorted(fresh.rglob("*.p*"))
            if not (ROOT / CODE / path.relative_to(fresh)).exists()
            or not filecmp.cmp(path, ROOT / CODE / path.relative_to(fresh), shallow=False)
        ]
        if stale:
            sys.exit(f"proto: stale, run `make proto`: {', '.join(stale)}")
        now = workspace(Path(place) / "now", None)
        for action in (("format", "--diff", "--exit-code", "--path", "modelready"), ("lint",)):
            buf(*action, cwd=now)
        known = subprocess.run(
            ["git", "cat-file", "-e", f"{against}:proto/buf.yaml"], cwd=ROOT, check=False, capture_output=True
        )
        if known.returncode:
            print(f"proto: no contract at {against}, so nothing that could break")
        else:
            before = workspace(Path(place) / "before", against)
            buf("breaking", "--against", str(before), cwd=now)
    print("proto: generated code fresh, format, lint and compatibility ok")


def default_base() -> str:
    """main, or on main itself the commit before."""

    def commit(ref: str) -> str:
        run = subprocess.run(["git", "rev-parse", "--verify", "-q", ref], cwd=ROOT, check=False, capture_output=True)
        return run.stdout.decode().strip()

    return "HEAD~1" if commit("main") in ("", commit("HEAD")) else "main"


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("generate").add_argument("--into", type=Path, default=ROOT / CODE)
    commands.add_parser("check").add_argument("--against", default=default_base())
    commands.add_parser("export").add_argument("into", metavar="DIR", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "generate":
        generate(arguments.into)
    elif arguments.command == "export":
        workspace(arguments.into, None)
    else:
        check(arguments.against)


if __name__ == "__main__":
    main()
