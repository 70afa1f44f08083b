"""The template as data, and as much of CloudFormation's functions as is needed to see what it comes to."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from sidecar.settings import GROUPS

ROOT = Path(__file__).parents[2]
PATH = ROOT / "deploy/cloudformation/model-ready.yaml"


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms. (cfn-lint has one, too, at three seconds for its import.)"""


def _function(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        argument: Any = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.ScalarNode)
        argument = loader.construct_scalar(node)
    if name == "GetAtt":
        argument = argument.split(".", 1)
    return {name if name in {"Ref", "Condition"} else f"Fn::{name}": argument}


_Loader.add_multi_constructor("!", _function)
# An unquoted date is text, as CloudFormation has it.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
TEMPLATE: dict[str, Any] = yaml.load(PATH.read_text(encoding="utf-8"), _Loader)
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
SETTINGS = {setting.metadata["name"]: setting for group in GROUPS for setting in fields(group)}
PSEUDO = {
    "AWS::StackName": "models",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
}


class Absent:
    """What AWS::NoValue is."""


def resolve(node: Any, **given: str) -> Any:
    """Return a part of the template as it is with these parameters, and the others' defaults.

    A resource that is referred to is its own logical id, an attribute `Id.Attribute`.
    """
    defaults = {name: str(parameter.get("Default", "")) for name, parameter in TEMPLATE["Parameters"].items()}
    return _resolve(node, defaults | PSEUDO | given)


def holds(condition: str, **given: str) -> bool:
    """Whether a condition holds with these parameters."""
    return bool(resolve({"Condition": condition}, **given))


def _resolve(node: Any, values: dict[str, str]) -> Any:
    if isinstance(node, list):
        items = [_resolve(item, values) for item in node]
        return [item for item in items if item is not Absent]
    if not isinstance(node, dict):
        return node
    if len(node) == 1:
        (name, argument), *_ = node.items()
        if name in _FUNCTIONS and not (name == "Condition" and isinstance(argument, dict)):
            return _FUNCTIONS[name](argument, values)
    resolved = {name: _resolve(value, values) for name, value in node.items()}
    return {name: value for name, value in resolved.items() if value is not Absent}


def _ref(name: str, values: dict[str, str]) -> Any:
    return Absent if name == "AWS::NoValue" else values.get(name, name)


def _sub(argument: Any, values: dict[str, str]) -> str:
    text, more = argument if isinstance(argument, list) else (argument, {})
    values = values | {name: _resolve(value, values) for name, value in more.items()}
    return re.sub(r"\$\{([^}]+)\}", lambda found: values.get(found[1], found[1]), text)


def _if(argument: Any, values: dict[str, str]) -> Any:
    condition, yes, no = argument
    return _resolve(yes if _condition(condition, values) else no, values)


def _condition(name: str, values: dict[str, str]) -> bool:
    return bool(_resolve(TEMPLATE["Conditions"][name], values))


_FUNCTIONS: dict[str, Any] = {
    "Ref": _ref,
    "Fn::Sub": _sub,
    "Fn::If": _if,
    "Fn::GetAtt": lambda argument, values: ".".join(argument),
    "Fn::Equals": lambda argument, values: len(set(map(str, _resolve(argument, values)))) == 1,
    "Fn::Not": lambda argument, values: not _resolve(argument, values)[0],
    "Fn::And": lambda argument, values: all(_resolve(argument, values)),
    "Fn::Or": lambda argument, values: any(_resolve(argument, values)),
    "Condition": _condition,
}
