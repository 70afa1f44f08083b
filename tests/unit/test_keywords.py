"""help() and editors show a sentence for each keyword of an event: the comment of its field in the .proto."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelready import EventFields, Publisher, model_ready

PROTO = Path(__file__).parents[2] / "proto/modelready/v1/event.proto"
FIELDS = {"uri": "Artifact.uri", "model_uri": "ModelVersion.uri"}
"""Of the keywords whose names are not those of one field alone."""


def _comments() -> dict[str, str]:
    """By field and by `Message.field`; without what the sidecar does with an empty field, which the client fills in."""
    comments = {}
    for name, fields in re.findall(r"^message (\w+) {\n(.*?)^}", PROTO.read_text(), re.DOTALL | re.MULTILINE):
        for lines, field in re.findall(r"((?:^  // .*\n)+)  [\w.<>, ]+ (\w+) = \d+", fields, re.MULTILINE):
            comment = " ".join(re.sub("^  // ", "", lines, flags=re.MULTILINE).split())
            comments[field] = comments[f"{name}.{field}"] = comment.partition(" If it is empty")[0]
    return comments


@pytest.mark.parametrize("function", [model_ready, Publisher.publish])
def test_each_keyword_has_the_sentence_of_its_field(function: Callable[..., Any]) -> None:
    comments = _comments()
    keywords = [f"{name}: {comments[FIELDS.get(name, name)]}" for name in EventFields.__annotations__]
    wrapped = [textwrap.fill(line, 108, subsequent_indent="    ", break_on_hyphens=False) for line in keywords]
    section = (inspect.getdoc(function) or "").partition("\nArgs:\n")[2]
    assert textwrap.dedent(section).endswith("\n".join(wrapped))
