"""The schema for editors, against what the reading of files accepts."""

import json
from typing import Any

import pytest
import yaml
from harness.definitions import FILES, blocks, documents
from hypothesis import given
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # published without types
from msgspec import structs

from meshconfig.position import Severity
from meshconfig.repository import read
from meshconfig.schema import KINDS, descriptions, json_schema

VALIDATORS = {kind: Draft202012Validator(json_schema(kind)) for kind in KINDS}


def kind_of(file: str) -> str:
    """Return the kind of a file by its place."""
    return "mesh" if file == "mesh.yaml" else file.partition("/")[0].removesuffix("s")


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_it_is_a_schema(kind: str | None) -> None:
    """Each schema is one itself, and can be written as JSON."""
    schema = json.loads(json.dumps(json_schema(kind)))
    Draft202012Validator.check_schema(schema)


def test_it_accepts_what_is_right() -> None:
    """Files that are read without a fault fit the schema of their kind, and that of any kind."""
    assert read(FILES)[0] is not None
    anything = Draft202012Validator(json_schema())
    for file, text in FILES.items():
        document = yaml.safe_load(text) or {}
        VALIDATORS[kind_of(file)].validate(document)
        anything.validate(document)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dependancies": []},
        {"dependencies": [{"service": "a", "timeout": 5}]},
        {"dependencies": [{"service": "a", "retry": {"when": ["5yy"]}}]},
        {"dependencies": [{"service": "a", "limit": {"requests": 0}}]},
        {"dependencies": [{"service": "a", "limit": None}]},
        {"dependencies": [{"service": "a", "routes": [{"prefix": "x"}]}]},
        {"dependencies": [{"service": "a", "panic_threshold": 101}]},
    ],
)
def test_it_refuses_what_is_wrong(wrong: dict[str, Any]) -> None:
    """What a single field may not be is underlined in the editor."""
    assert not VALIDATORS["service"].is_valid(wrong)


@given(documents)
def test_what_is_read_fits_the_schema(files: dict[str, Any]) -> None:
    """A document that the schema refuses has an error too, when the files are read."""
    texts = {file: json.dumps(document) for file, document in files.items()}
    for file in files:
        if not VALIDATORS[kind_of(file)].is_valid(json.loads(texts[file])):
            _, faults = read(FILES | texts)
            assert any(fault.severity is Severity.ERROR and fault.position.file == file for fault in faults)


def test_every_field_is_described() -> None:
    """Editors and the reference have a sentence for each field, and none for a field that there is not."""
    kinds = blocks()
    assert len(kinds) > 30
    for kind in kinds:
        assert set(descriptions(kind)) == {field.name for field in structs.fields(kind)}, kind
        assert all(text.endswith(".") for text in descriptions(kind).values()), kind
