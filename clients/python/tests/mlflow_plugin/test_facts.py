"""What fits into an event, and what its ids depend on."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from modelready.mlflow import facts, settings
from modelready.mlflow.settings import Settings

XGBOOST = "flavors: {python_function: {python_version: 3.11}, xgboost: {xgb_version: 2.1.3}}\nmlflow_version: 3.1.0"
PYFUNC = "flavors: {python_function: {python_version: 3.11}}\nmlflow_version: 3.1.0\nmodel_size_bytes: 12"


def test_the_flavor_is_the_most_specific_one() -> None:
    assert facts.describe(XGBOOST) == facts.Described("xgboost", "2.1.3")
    assert facts.describe(PYFUNC) == facts.Described("python_function", "3.1.0", size_bytes=12)


@pytest.mark.parametrize("text", ["", "flavors", "[1]", "a: [", "flavors: 1", "!!python/object/apply:os.system [ls]"])
def test_what_is_no_mlmodel_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an MLmodel file"):
        facts.describe(text)


def test_a_signature_above_the_limit_is_left_out() -> None:
    described = facts.describe(f"flavors: {{sklearn: {{}}}}\nsignature: {{inputs: '{'x' * facts.MAX_SIGNATURE}'}}")
    assert described.signature == ""


def test_metrics_are_finite_and_bounded() -> None:
    found = facts.metrics([("nan", math.nan), ("inf", math.inf), *((f"m{number:03}", 1.0) for number in range(150))])
    assert len(found) == 100
    assert "m099" in found
    assert facts.metrics([]) == {}


def test_labels_are_the_users_tags_and_a_versions_come_before_its_models() -> None:
    version = {"team": "risk", "mlflow.user": "root", "modelready.alias.champion": "id"}
    assert facts.labels(version, {"team": "fraud", "owner": "me"}) == {"team": "risk", "owner": "me"}


def test_a_digest_is_taken_from_its_tag_where_it_is_one() -> None:
    assert facts.digest({facts.DIGEST_TAG: "SHA256:" + "AB" * 32}) == "sha256:" + "ab" * 32
    assert facts.digest({facts.DIGEST_TAG: "md5"}) == facts.digest({}) == ""


def test_ids_are_the_documented_ones() -> None:
    assert facts.event_id("//r", "version", "fraud", 7, 1700000000000) == facts.event_id(
        "//r", "version", "fraud", "7", "1700000000000"
    )
    assert facts.event_id("", "alias", "a", 1, "b", 2) != facts.event_id("", "alias", "a", 1, "b", 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVENTS", "aliases"), ("EVENTS", "tag"), ("EVENTS", "version:1"),
        ("ARTIFACTS", "s3"), ("MLMODEL_SECONDS", "soon"), ("MLMODEL_SECONDS", "-1"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"MODELREADY_MLFLOW_{name}: '{value}'"):
        Settings.from_env({f"MODELREADY_MLFLOW_{name}": value})


def test_the_document_has_each_variable_and_the_plug_in_no_other() -> None:
    document = (Path(__file__).parents[4] / "docs/mlflow.md").read_text()
    documented = set(re.findall(r"^\| `MODELREADY_MLFLOW_(\w+)` \|", document, re.MULTILINE))
    code = (Path(settings.__file__)).read_text()
    assert documented == set(re.findall(r'\benv, "([A-Z_]+)"', code)) | set(re.findall(r'PREFIX}([A-Z]+)", ""\)', code))
