"""CloudFormation templates as values: the functions that the templates of deploy/ use, as AWS documents them."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

_SUBSTITUTED = re.compile(r"\$\{([A-Za-z0-9:.]+)\}")


class _Loader(yaml.SafeLoader):
    """Reads the short forms of functions as objects with one key."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


class Template:
    """A template with values for its parameters, and for the attributes of what it would make.

    Args:
        text: the template.
        values: parameters by name, `Resource` and `Resource.Attribute` of resources, and pseudo parameters.
    """

    def __init__(self, text: str, values: Mapping[str, Any]) -> None:
        self._template: dict[str, Any] = yaml.load(text, _Loader)  # a subclass of SafeLoader
        defaults = {name: body["Default"] for name, body in self._template["Parameters"].items() if "Default" in body}
        self._values = defaults | dict(values)

    def parameters(self) -> dict[str, bool]:
        """Return its parameters, and whether each has a default."""
        return {name: "Default" in body for name, body in self._template["Parameters"].items()}

    def resource(self, name: str) -> dict[str, Any]:
        """Return the properties of a resource, with the keys of the AWS API."""
        made = self._evaluate(self._template["Resources"][name]["Properties"])
        assert isinstance(made, dict)
        return made

    def deletion_policy(self, name: str) -> str:
        """Return what happens to a resource that the stack deletes."""
        return str(self._template["Resources"][name]["DeletionPolicy"])

    def statements(self) -> list[dict[str, Any]]:
        """Return the statements of all policies of its roles."""
        roles = [body for body in self._template["Resources"].values() if body["Type"] == "AWS::IAM::Role"]
        policies = [policy for role in roles for policy in role["Properties"].get("Policies", [])]
        return [self._evaluated(item) for policy in policies for item in policy["PolicyDocument"]["Statement"]]

    def _evaluated(self, statement: dict[str, Any]) -> dict[str, Any]:
        return {key: self._evaluate(value) for key, value in statement.items()}

    def _evaluate(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._evaluate(item) for item in value]
        if not isinstance(value, dict):
            return value
        name, argument = next(iter(value.items())) if len(value) == 1 else ("", "")
        match name:
            case "Ref" | "Fn::GetAtt":
                return self._values[argument]
            case "Fn::Sub":
                return _SUBSTITUTED.sub(lambda match: str(self._values[match[1]]), argument)
            case "Fn::If":
                return self._evaluate(argument[1 if self._holds(argument[0]) else 2])
        return {self._key(key): self._evaluate(item) for key, item in value.items()}

    def _holds(self, condition: str) -> bool:
        first, second = self._template["Conditions"][condition]["Fn::Equals"]
        return bool(self._evaluate(first) == self._evaluate(second))

    @staticmethod
    def _key(key: str) -> str:
        return key if "-" in key or ":" in key else f"{key[0].lower()}{key[1:]}"
