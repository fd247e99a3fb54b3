"""The result of an import: files of a mesh repository, and each thing that they do not say any more."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from msgspec import Struct

_WIDTH = 120


class Loss(Struct, frozen=True, order=True):
    """One thing in a document that the imported files do not say, or say differently.

    Attributes:
        file: the document.
        path: the place in it, such as ``dependencies[0].tls``.
        reason: what becomes of it, as a sentence.
    """

    file: str
    path: str
    reason: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.file}: {self.path or 'the document'}: {self.reason}"


class Imported(Struct, frozen=True):
    """Files of a mesh repository.

    Attributes:
        files: their text, by their path in the repository.
        losses: what the files do not say, in the order of documents and places.
    """

    files: Mapping[str, str]
    losses: Sequence[Loss] = ()


class NotImportableError(ValueError):
    """A document cannot be imported at all; the message says what it is and what can be imported."""


def yaml_text(document: Mapping[str, Any], source: str) -> str:
    """Return a file of the repository: its origin as a comment, then the document in the order of its keys."""
    body = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=_WIDTH, allow_unicode=True)
    return f"# Imported from {source}.\n{body}"
