"""Foreign documents are known by their shape, also those that cannot be imported."""

import json
from pathlib import Path

import pytest
import yaml

from meshconfig.importers.formats import format_of

_SAMPLES = Path(__file__).parents[3] / "samples" / "import"
_EXPECTED = {"appmesh": "App Mesh", "consul": "Consul", "smi": "SMI", "istio": "Istio", "kumonos": "service definition"}


@pytest.mark.parametrize("path", sorted(_SAMPLES.iterdir()), ids=lambda path: path.name)
def test_each_sample_is_known_by_its_shape(path: Path) -> None:
    """All documents of one file are of one format."""
    text = path.read_text()
    documents = [json.loads(text)] if path.suffix == ".json" else list(yaml.safe_load_all(text))
    assert {format_of(document) for document in documents} == {_EXPECTED[path.name.split("-")[1]]}


@pytest.mark.parametrize("document", [None, [], 5, {}, {"apiVersion": 5}, {"Kind": "web"}, {"kind": "service-router"}])
def test_other_documents_are_not_known(document: object) -> None:
    """Absurd documents and those of no mesh have no name."""
    assert format_of(document) == ""
