"""Service definitions of itacho."""

from meshconfig.importers.imported import Imported
from meshconfig.importers.service_definition import import_definition


def import_itacho(document: object, file: str, service: str) -> Imported:
    """Return the repository file of one service; clusters speak what the client speaks, as itacho's do."""
    return import_definition(document, file, service, http2_discovered=False)
