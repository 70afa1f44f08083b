"""The sidecar's container that docs/mlflow.md adds to an MLflow task: ECS takes it, and it is the template's."""

import json
import re
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from tests.deploy.template import RESOURCES, ROOT, SETTINGS

(JSON,) = re.findall(r"^```json\n(.*?)^```", (ROOT / "docs/mlflow.md").read_text(), re.DOTALL | re.MULTILINE)
TASK: dict[str, Any] = json.loads(JSON)
(SIDECAR,) = TASK["containerDefinitions"]
ALIKE = (
    *("user", "readonlyRootFilesystem", "linuxParameters", "stopTimeout", "restartPolicy", "healthCheck"),
    "mountPoints",
)


def test_ecs_takes_it() -> None:
    shape = botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition")
    report = ParamValidator().validate(TASK, shape.input_shape)
    assert not report.has_errors(), report.generate_report()


def test_it_runs_as_in_the_template() -> None:
    template = RESOURCES["TaskDefinition"]["Properties"]
    container = next(one for one in template["ContainerDefinitions"] if one["Name"] == "sidecar")
    assert {key: SIDECAR[key] for key in ALIKE} == {key: _camel(container[key[0].upper() + key[1:]]) for key in ALIKE}
    assert TASK["volumes"] == _camel(template["Volumes"])
    log = container["LogConfiguration"]["Options"]
    assert SIDECAR["logConfiguration"]["options"]["mode"] == log["mode"]
    assert {variable["name"] for variable in SIDECAR["environment"]} <= SETTINGS.keys()


def _camel(value: Any) -> Any:
    """CloudFormation's names as those of the API."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _camel(one) for key, one in value.items()}
    return [_camel(one) for one in value] if isinstance(value, list) else value
