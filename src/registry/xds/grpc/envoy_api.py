"""Resources of Envoy's API from JSON to protobuf, by the descriptors of the API.

`envoy_api.binpb` has the messages that mesh configuration uses, with all their fields; `make messages` writes it. They
are read when the first resource is encoded, into a pool of their own: other packages may bring the same messages.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_WELL_KNOWN = (any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
_PREFIX = "type.googleapis.com/"


def encode_document(type_url: str, document: Mapping[str, Any]) -> bytes:
    """Return a message of Envoy's API, given as its JSON object, in protobuf.

    Args:
        type_url: its type.
        document: its fields, as Envoy's JSON names them.

    Raises:
        ValueError: it has a field or a type that is not known here, or a value of another type than the field has.
    """
    try:
        message = ParseDict(dict(document), _message_class(type_url)(), descriptor_pool=_pool())
    except (ParseError, KeyError, TypeError) as error:
        raise ValueError(f"it is no {type_url.removeprefix(_PREFIX)}: {error}") from error
    # Equal versions are equal bytes in every process, also where there are maps.
    return message.SerializeToString(deterministic=True)


@cache
def _message_class(type_url: str) -> type[Message]:
    return GetMessageClass(_pool().FindMessageTypeByName(type_url.removeprefix(_PREFIX)))


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for module in _WELL_KNOWN:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    content = files(__package__).joinpath("envoy_api.binpb").read_bytes()
    for file in FileDescriptorSet.FromString(content).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
