"""Generates the code of the clients in Go and TypeScript. Run by `make proto-clients`; needs go, node and npm.

    python proto/clients.py [--into DIR]     (default: clients)

The plug-ins of protoc are installed into .cache, in the versions below: the clients ask for runtimes as new as these.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from contract import ROOT, RPC, run_protoc, write_image

TOOLS = ROOT / ".cache" / "proto"
GO = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.11",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0",
)
NODE = ("@bufbuild/protoc-gen-es@2.12.0", "@bufbuild/protobuf@2.12.0")
# What a client needs to publish; those of the operators are in no client yet.
PUBLISHING = ("modelready/v1/event.proto", "modelready/v1/publisher_service.proto")


def install() -> list[str]:
    """Installs the plug-ins, unless they are there, and returns protoc's arguments that name them."""
    stamp, wanted = TOOLS / "installed", "\n".join((*GO, *NODE))
    if not stamp.exists() or stamp.read_text() != wanted:
        TOOLS.mkdir(parents=True, exist_ok=True)
        for tool in GO:
            subprocess.run(["go", "install", tool], env={**os.environ, "GOBIN": str(TOOLS)}, check=True)
        npm = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run([*npm, "--prefix", str(TOOLS), *NODE], check=True)
        stamp.write_text(wanted)
    places = [TOOLS / "protoc-gen-go", TOOLS / "protoc-gen-go-grpc", TOOLS / "node_modules/.bin/protoc-gen-es"]
    return [f"--plugin={place.name}={place}" for place in places]


def generate(into: Path) -> None:
    plugins = install()
    go, typescript = into / "go", into / "typescript/src/gen"
    for place in (go, typescript):
        place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        given = [*plugins, f"--descriptor_set_in={write_image(Path(place))}"]
        run_protoc(*given, f"--go_out=module=modelready:{go}", f"--go-grpc_out=module=modelready:{go}", *PUBLISHING)
        run_protoc(*given, f"--es_out=target=ts,import_extension=js:{typescript}", *PUBLISHING, *RPC)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", type=Path, default=ROOT / "clients")
    generate(parser.parse_args().into)
