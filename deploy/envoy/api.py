"""Write the part of Envoy's API that mesh configuration uses, for its encoding in protobuf: `make messages`.

It runs where xds-protos is installed, apart from the project's own packages: it brings a package that is called as the
one with Envoy itself. The descriptors are Envoy's; comments, options and messages that nothing refers to are left out.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path

from envoy import config
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import Default

_TARGET = Path(__file__).parents[2] / "src" / "registry" / "xds" / "grpc" / "envoy_api.binpb"
_PACKAGES = Path(config.__path__[0]).parents[1]
_ROOTS = (
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.trace.v3.DatadogConfig",
    "envoy.config.trace.v3.OpenTelemetryConfig",
    "envoy.config.trace.v3.SkyWalkingConfig",
    "envoy.config.trace.v3.XRayConfig",
    "envoy.config.trace.v3.ZipkinConfig",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
    "envoy.extensions.filters.http.tap.v3.Tap",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
    "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
    "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
)
"""The resources, and everything that is packed into them as an extension."""


def main() -> None:
    """Write the descriptors."""
    for path in sorted(_PACKAGES.glob("envoy/**/v3/*_pb2.py")):
        importlib.import_module(".".join(path.relative_to(_PACKAGES).with_suffix("").parts))
    pool = Default()
    wanted: dict[str, Descriptor] = {}
    for root in _ROOTS:
        _add(pool.FindMessageTypeByName(root), wanted)
    files = {each.file.name: each.file for each in wanted.values()}
    enums = {
        field.enum_type.full_name: field.enum_type.file
        for each in wanted.values()
        for field in each.fields
        if field.enum_type is not None
    }
    files |= {file.name: file for file in enums.values()}
    result = FileDescriptorSet()
    for file in _in_order(files):
        result.file.append(_pruned(file, {*wanted, *enums}, files))
    _TARGET.write_bytes(result.SerializeToString(deterministic=True))


def _add(message: Descriptor, wanted: dict[str, Descriptor]) -> None:
    """Add a message and all that it refers to."""
    if message.full_name in wanted or message.file.package == "google.protobuf":
        return
    wanted[message.full_name] = message
    if message.containing_type is not None:
        _add(message.containing_type, wanted)
    for field in message.fields:
        if field.message_type is not None:
            _add(field.message_type, wanted)
        if field.enum_type is not None and field.enum_type.containing_type is not None:
            _add(field.enum_type.containing_type, wanted)


def _in_order(files: dict[str, FileDescriptor]) -> Iterable[FileDescriptor]:
    """Return files after those that they depend on."""
    done: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        if file.name in done or file.name not in files:
            return
        for dependency in file.dependencies:
            add(dependency)
        done[file.name] = file

    for name in sorted(files):
        add(files[name])
    return done.values()


def _pruned(file: FileDescriptor, wanted: set[str], files: dict[str, FileDescriptor]) -> FileDescriptorProto:
    """Return a file without options, and without messages that are not wanted."""
    proto = FileDescriptorProto.FromString(file.serialized_pb)
    for field in ("options", "service", "extension", "public_dependency", "weak_dependency"):
        proto.ClearField(field)
    dependencies = [each for each in proto.dependency if each in files or each.startswith("google/protobuf/")]
    del proto.dependency[:]
    proto.dependency.extend(each for each in dependencies if each != "google/protobuf/descriptor.proto")
    _prune(proto.message_type, file.package, wanted)
    kept = [each for each in proto.enum_type if f"{file.package}.{each.name}" in wanted]
    del proto.enum_type[:]
    proto.enum_type.extend(kept)
    for enum in proto.enum_type:
        _strip_enum(enum)
    return proto


def _prune(messages: "list[DescriptorProto]", scope: str, wanted: set[str]) -> None:
    kept = [each for each in messages if f"{scope}.{each.name}" in wanted]
    del messages[:]
    messages.extend(kept)
    for message in messages:
        map_entry = message.options.map_entry
        message.ClearField("options")
        if map_entry:
            message.options.map_entry = True
        message.ClearField("reserved_range")
        message.ClearField("reserved_name")
        for field in message.field:
            packed = field.options.packed if field.options.HasField("packed") else None
            field.ClearField("options")
            field.ClearField("json_name")
            if packed is not None:
                field.options.packed = packed
        for oneof in message.oneof_decl:
            oneof.ClearField("options")
        for enum in message.enum_type:
            _strip_enum(enum)
        _prune(message.nested_type, f"{scope}.{message.name}", wanted)


def _strip_enum(enum: EnumDescriptorProto) -> None:
    enum.ClearField("options")
    enum.ClearField("reserved_range")
    enum.ClearField("reserved_name")
    for value in enum.value:
        value.ClearField("options")


if __name__ == "__main__":
    main()
