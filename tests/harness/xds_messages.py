"""The messages of xDS with Envoy's own names and field numbers, built from a table into a pool of their own.

They are written down from Envoy's API and share nothing with `registry.xds.grpc.messages_pb2`, so that tests read what
the registry writes as a client would. Packages with the full messages collide with the one that brings Envoy itself.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2, struct_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_SCALARS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "bool": FieldDescriptorProto.TYPE_BOOL,
}
_DEPENDENCIES = (any_pb2, struct_pb2, wrappers_pb2)
_TABLE: Mapping[str, str] = {
    "envoy.service.discovery.v3.DiscoveryRequest": (
        "version_info 1 string, node 2 envoy.config.core.v3.Node, resource_names 3 *string, "
        "type_url 4 string, response_nonce 5 string, error_detail 6 google.rpc.Status"
    ),
    "envoy.service.discovery.v3.DiscoveryResponse": (
        "version_info 1 string, resources 2 *google.protobuf.Any, canary 3 bool, type_url 4 string, "
        "nonce 5 string, control_plane 6 envoy.config.core.v3.ControlPlane, "
        "resource_errors 7 *envoy.service.discovery.v3.ResourceError"
    ),
    "envoy.service.discovery.v3.DeltaDiscoveryRequest": (
        "node 1 envoy.config.core.v3.Node, type_url 2 string, resource_names_subscribe 3 *string, "
        "resource_names_unsubscribe 4 *string, "
        "initial_resource_versions 5 *envoy.service.discovery.v3.InitialResourceVersionsEntry, "
        "response_nonce 6 string, error_detail 7 google.rpc.Status"
    ),
    "envoy.service.discovery.v3.InitialResourceVersionsEntry": "key 1 string, value 2 string",
    "envoy.service.discovery.v3.DeltaDiscoveryResponse": (
        "system_version_info 1 string, resources 2 *envoy.service.discovery.v3.Resource, type_url 4 string, "
        "removed_resources 6 *string, nonce 5 string, control_plane 7 envoy.config.core.v3.ControlPlane, "
        "resource_errors 9 *envoy.service.discovery.v3.ResourceError"
    ),
    "envoy.service.discovery.v3.Resource": (
        "name 3 string, aliases 4 *string, version 1 string, resource 2 google.protobuf.Any"
    ),
    "envoy.service.discovery.v3.ResourceError": (
        "resource_name 1 envoy.service.discovery.v3.ResourceName, error_detail 2 google.rpc.Status"
    ),
    "envoy.service.discovery.v3.ResourceName": "name 1 string",
    "envoy.config.core.v3.Node": (
        "id 1 string, cluster 2 string, metadata 3 google.protobuf.Struct, "
        "locality 4 envoy.config.core.v3.Locality, user_agent_name 6 string, user_agent_version 7 string, "
        "user_agent_build_version 8 envoy.config.core.v3.BuildVersion, "
        "extensions 9 *envoy.config.core.v3.Extension, client_features 10 *string"
    ),
    "envoy.config.core.v3.Extension": "name 1 string, category 2 string",
    "envoy.config.core.v3.BuildVersion": "version 1 envoy.type.v3.SemanticVersion",
    "envoy.type.v3.SemanticVersion": "major_number 1 uint32, minor_number 2 uint32, patch 3 uint32",
    "envoy.config.core.v3.Locality": "region 1 string, zone 2 string, sub_zone 3 string",
    "envoy.config.core.v3.ControlPlane": "identifier 1 string",
    "google.rpc.Status": "code 1 int32, message 2 string",
    "envoy.config.endpoint.v3.ClusterLoadAssignment": (
        "cluster_name 1 string, endpoints 2 *envoy.config.endpoint.v3.LocalityLbEndpoints"
    ),
    "envoy.config.endpoint.v3.LocalityLbEndpoints": (
        "locality 1 envoy.config.core.v3.Locality, lb_endpoints 2 *envoy.config.endpoint.v3.LbEndpoint, "
        "load_balancing_weight 3 google.protobuf.UInt32Value, priority 5 uint32"
    ),
    "envoy.config.endpoint.v3.LbEndpoint": (
        "endpoint 1 envoy.config.endpoint.v3.Endpoint, health_status 2 int32, "
        "metadata 3 envoy.config.core.v3.Metadata, load_balancing_weight 4 google.protobuf.UInt32Value"
    ),
    "envoy.config.endpoint.v3.Endpoint": "address 1 envoy.config.core.v3.Address",
    "envoy.config.core.v3.Address": "socket_address 1 envoy.config.core.v3.SocketAddress",
    "envoy.config.core.v3.SocketAddress": "protocol 1 int32, address 2 string, port_value 3 uint32",
    "envoy.config.core.v3.Metadata": "filter_metadata 1 *envoy.config.core.v3.FilterMetadataEntry",
    "envoy.config.core.v3.FilterMetadataEntry": "key 1 string, value 2 google.protobuf.Struct",
}
"""The fields of each message: their names, numbers and types, with a star before the type of a repeated one."""


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for module in _DEPENDENCIES:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    # One file, whose messages have their package in their name: the packages of Envoy's API need several.
    file = FileDescriptorProto(name="xds.proto", package="x", syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in _DEPENDENCIES)
    file.message_type.extend(_message(full_name.replace(".", "_"), fields) for full_name, fields in _TABLE.items())
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _message(name: str, fields: str) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for field in fields.split(", "):
        field_name, number, kind = field.split()
        repeated, kind = kind.startswith("*"), kind.removeprefix("*")
        made = message.field.add(name=field_name, number=int(number), label=3 if repeated else 1)
        if kind in _SCALARS:
            made.type = _SCALARS[kind]
        else:
            made.type = FieldDescriptorProto.TYPE_MESSAGE
            made.type_name = f".{kind}" if kind.startswith("google.protobuf.") else f".x.{kind.replace('.', '_')}"
    return message


_POOL = _pool()


def _class(full_name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(f"x.{full_name.replace('.', '_')}"))


_DISCOVERY = "envoy.service.discovery.v3"
DiscoveryRequest = _class(f"{_DISCOVERY}.DiscoveryRequest")
DiscoveryResponse = _class(f"{_DISCOVERY}.DiscoveryResponse")
DeltaDiscoveryRequest = _class(f"{_DISCOVERY}.DeltaDiscoveryRequest")
DeltaDiscoveryResponse = _class(f"{_DISCOVERY}.DeltaDiscoveryResponse")
ClusterLoadAssignment = _class("envoy.config.endpoint.v3.ClusterLoadAssignment")
Node = _class("envoy.config.core.v3.Node")
