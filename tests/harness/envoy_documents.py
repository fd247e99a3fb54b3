"""Resources of Envoy's API out of protobuf, by the registry's own descriptors: as JSON, with Envoy's field names."""

from typing import Any

from google.protobuf.json_format import MessageToDict

from registry.xds.grpc import envoy_api


def read_document(type_url: str, content: bytes) -> dict[str, Any]:
    """Return the fields of a message; those that have their default are left out."""
    message = envoy_api._message_class(type_url).FromString(content)
    document: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=envoy_api._pool()
    )
    return document
