"""Service definitions of kumonos."""

from meshconfig.importers.imported import Imported
from meshconfig.importers.service_definition import import_definition


def import_kumonos(document: object, file: str, service: str) -> Imported:
    """Return the repository file of one service; discovered services are spoken to in HTTP/2, as kumonos does."""
    return import_definition(document, file, service, http2_discovered=True)
