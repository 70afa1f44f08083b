"""MkDocs calls this: the site has the documents, and the files that they link to, where the repository has them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
DECISIONS = "docs/adr"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, the documents with what they link to, the list of decisions, the pages of the reference."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True).stdout.split()
    documents = [name for name in names if name.endswith(".md") and not name.startswith(".")]
    wanted = {*documents, *(target for name in documents for target in _targets(name))}
    site = [file for file in files if file.src_dir != config.docs_dir]
    for name in sorted(wanted.intersection(names)):
        path = str(ROOT / name)
        # Else those whose names begin with a dot would be left out.
        site.append(File.generated(config, name, abs_src_path=path, inclusion=InclusionLevel.NOT_IN_NAV))
    modules = re.findall(r"reference/([\w.]+)\.md", Path(config.config_file_path).read_text())
    pages = {f"reference/{module}.md": f"# {module}\n\n::: {module}\n" for module in modules}
    decisions = [name for name in documents if dirname(name) == DECISIONS]
    lines = [f"- [{_text(name).splitlines()[0].lstrip('# ')}]({Path(name).name})\n" for name in decisions]
    pages[f"{DECISIONS}/README.md"] = "# Decisions\n\n" + "".join(lines)
    return Files(site + [File.generated(config, name, content=content) for name, content in pages.items()])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """What GitHub reads otherwise: lists within lists are indented by two spaces, and a directory is a page."""
    markdown = re.sub(r"^  (?=- )", "    ", markdown, flags=re.MULTILINE)
    return re.sub(r"(?<=[(/])adr/?\)", "adr/README.md)", markdown)


def _targets(name: str) -> list[str]:
    """The paths that the document links to."""
    return [normpath(join(dirname(name), link)) for link in re.findall(r"\]\(([^)\s#:]+)[)#]", _text(name))]


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
