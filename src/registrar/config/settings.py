"""The definition of each setting, with its unit, default and consequence.

``configuration`` reads them. The flags and the reference page are generated from them.
"""

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from msgspec import NODEFAULT, Meta, Struct, structs

from registrar.checks.check import Options
from registrar.checks.http import HttpOptions
from registrar.checks.kinds import CheckOptions
from registrar.checks.tcp import TcpOptions
from registrar.checks.threshold import OnFail
from registrar.config.fallback_url import FallbackUrl
from registrar.config.listen import ListenAddress
from registrar.config.secret import Secret
from registrar.config.switch import Switch
from registrar.duration import Duration
from registrar.envoy_admin.address import EnvoyAdminAddress
from registrar.identity.spec import EndpointSpec
from registrar.registry_client.registries import RegistryUrls
from registrar.registry_client.tls import RegistryTls
from wire.envoy_token import SDS_FILE
from wire.model import Expected, Label, Name, ServiceName, Weight, check_metadata

FilePath = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00]*$(?!\n)")]
# A header of the proof of an AWS login.
Audience = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[!-~]+$(?!\n)")]
STOP_RESERVE = 3.0
"""Seconds of the stop timeout that are left when a drain is given up, for the exit of the process."""


MIN_TRAFFIC_INTERVAL = 1.0
"""Seconds between two readings of Envoy's statistics at least."""


class OnSigterm(enum.StrEnum):
    """The effect of a stop on the registrations."""

    DRAIN = "drain"
    KEEP = "keep"


class LogLevel(enum.StrEnum):
    """The least severe event that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ErrandMode(enum.StrEnum):
    """The errands of operators that the registrar does at its Envoy."""

    NONE = "none"
    READ = "read"
    DEBUG = "debug"


class LoginMethod(enum.StrEnum):
    """The way in which the registrar gets a session."""

    AWS = "aws"


class Service(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of one endpoint and its checks."""

    service: Annotated[
        ServiceName,
        Meta(
            description="Name under which Envoys find the endpoint: the EDS cluster's service name. Unset in an "
            "ECS task: the ECS service's name, where the agent is new enough to tell it."
        ),
    ] = ""
    endpoint: Annotated[
        EndpointSpec,
        Meta(
            description="Address and port to advertise and to check: `:8080` takes the first address found, "
            "`10.0.0.5:8080` names it, `iface:eth0:8080` and `cidr:10.0.0.0/8:8080` pick one of this "
            "machine's. Loopback, link-local and 172.17.0.0/16 are refused unless named literally. In bridge "
            "mode the port is the container's; the host's is found."
        ),
    ]
    container: Annotated[
        Label,
        Meta(
            description="Name of the app's container in the ECS task definition: its mapped ports are "
            "advertised. Unset: the container that maps the port. Outside of ECS it means nothing."
        ),
    ] = ""
    revision: Annotated[
        Label,
        Meta(
            description="The app's build, shown to operators and handed to Envoy as metadata. Unset in an ECS "
            "task: the task definition, like shop:42."
        ),
    ] = ""
    canary: Annotated[bool, Meta(description="Marks the endpoint as a canary in Envoy.")] = False
    expected: Annotated[
        Expected | None,
        Meta(
            description="How many endpoints the service should have, this one included; a service with fewer is shown "
            "with a warning. The newest registration that names a number counts, unless an operator has set one."
        ),
    ] = None
    weight: Annotated[
        Weight | None,
        Meta(
            description="Share of the requests relative to the service's other endpoints, 1 to 10000. "
            "Unset counts as 1."
        ),
    ] = None
    repository: Annotated[Label | None, Meta(description="Where the app's source is, for v1 clients that show it.")] = (
        None
    )
    metadata: Annotated[
        dict[str, Any],
        Meta(description="Free JSON for Envoy's subset load balancing; changing it changes the answers."),
    ] = {}
    checks: Annotated[
        tuple[CheckOptions, ...],
        Meta(min_length=1, description="The checks of the endpoint; the worst result counts. Unset: one tcp check."),
    ] = (TcpOptions(),)

    def __post_init__(self) -> None:
        check_metadata(self.metadata)
        if all(check.on_fail is OnFail.IGNORE for check in self.checks):
            raise ValueError(
                "checks: on_fail is ignore for all; at least one must have unhealthy or degraded, or add a noop check"
            )


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of the process."""

    registry_url: Annotated[
        RegistryUrls,
        Meta(
            description="Base URLs of the registries, comma-separated; after a failed request the next one "
            "is tried. Any one is enough."
        ),
    ] = RegistryUrls()
    services: Annotated[tuple[Service, ...], Meta(description="The endpoints of this process.")] = ()
    login: Annotated[
        LoginMethod | None,
        Meta(
            description="How the registrar logs in: `aws` proves its AWS role by a signed request that the registry "
            "sends to STS, and renews the session. Unset: no login, and the token is sent, if there is one."
        ),
    ] = None
    login_audience: Annotated[
        Audience | None,
        Meta(
            description="The name of the registry that the login is for: its REGISTRY_AWS_AUDIENCE, like "
            "`headcount-production`. A registry of another name refuses it. Needed for a login."
        ),
    ] = None
    token: Annotated[
        Secret | None,
        Meta(
            description="Bearer token sent to the registry, where access control is on and no login is used. Never "
            "shown; in a file of its own with the variable's `_FILE` twin."
        ),
    ] = None
    token_file: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File that holds the token, read again within a second of a change: a rotated token is used "
            "by the next request.",
        ),
    ] = ""
    envoy_token_file: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File into which the registrar writes the token of the Envoy beside it, with mode 0640, like "
            "`/run/envoy-token/token`: that of the login, or a static one. It also writes `sds.json` beside it where "
            "there is none. Envoy reads both; each change is a rename.",
        ),
    ] = ""
    envoy_token: Annotated[
        Secret | None,
        Meta(description="The token to write into that file where no login is used. Never shown."),
    ] = None
    envoy_token_source: Annotated[
        str,
        Meta(
            max_length=4096,
            description="File that holds the token to write where no login is used, read again when it changes.",
        ),
    ] = ""
    registry_ca_file: Annotated[
        FilePath,
        Meta(
            description="Authorities in PEM that may sign the certificates of registries with https, in place of the "
            "system's. A changed file is used by the next request; one that cannot be used changes nothing."
        ),
    ] = ""
    registry_cert_file: Annotated[
        FilePath,
        Meta(
            description="The registrar's own certificate in PEM, for registries that know it by one. Read again as "
            "registry_ca_file is."
        ),
    ] = ""
    registry_key_file: Annotated[
        FilePath, Meta(description="Its key in PEM, without a passphrase. Unset: it is in registry_cert_file.")
    ] = ""
    instance_id: Annotated[
        Name | None,
        Meta(
            description="The task or machine that owns the endpoints; must stay the same over restarts and "
            "be unique. Unset: the ECS task's id, the EC2 instance's id, or made from /etc/machine-id. Two processes "
            "that share one and an endpoint fence each other: the newer start wins."
        ),
    ] = None
    region: Annotated[
        Label | None, Meta(description="Envoy's locality region. Unset: detected in an ECS task and on EC2.")
    ] = None
    zone: Annotated[
        Label | None,
        Meta(description="Envoy's locality zone; zone-aware routing needs it. Unset: detected as the region."),
    ] = None
    drain_wait: Annotated[
        Duration | None,
        Meta(
            description="Seconds to go on serving after the registry stored the drain. Unset: what the "
            "registry says. Shorter than two poll intervals of the Envoys fails requests; longer delays "
            "each deploy."
        ),
    ] = None
    on_sigterm: Annotated[
        OnSigterm | None,
        Meta(
            description="Effect of SIGTERM and SIGINT: drain (out of rotation, wait, deregister) or keep (exit "
            "at once and leave the registration to the next start, or to its TTL). Unset: drain in an ECS "
            "task, keep elsewhere."
        ),
    ] = None
    stop_timeout: Annotated[
        Duration,
        Meta(
            description="Seconds between the supervisor's SIGTERM and its SIGKILL (ECS stopTimeout, systemd "
            "TimeoutStopSec); 3s before that the registrar gives up a drain that is not finished. Larger "
            "than the supervisor's, it is killed in the middle."
        ),
    ] = Duration(30)
    probes: Annotated[
        Switch,
        Meta(
            description="Whether the registrar probes endpoints of its own services when the registry asks it to: a "
            "TCP connect to suspects, and to a few healthy ones every few minutes, without a byte. Its word helps the "
            "registry to tell dead hosts from a network that is cut."
        ),
    ] = Switch(on=False)
    envoy_admin: Annotated[
        EnvoyAdminAddress | None,
        Meta(
            description="Admin interface of the Envoy beside the registrar, like `http://127.0.0.1:9901` or "
            "`unix:/run/envoy/admin.sock`: its statistics then go to the registry, as figures of who calls whom. "
            "Loopback alone: whoever reaches the interface can stop Envoy. Unset: nothing of this."
        ),
    ] = None
    traffic_interval: Annotated[
        Duration,
        Meta(
            description="Seconds between two readings of Envoy's statistics, at least 1s; `0` reads none. Shorter than "
            "10s, latencies are uneven, because Envoy merges them each 5s. A registry asks for 2s while it shifts "
            "traffic."
        ),
    ] = Duration(10)
    edge_listen: Annotated[
        ListenAddress,
        Meta(
            description="Where the Envoy beside this process polls the edge, a discovery cache: a loopback address and "
            "port like `127.0.0.1:9903`, `unix:/run/registrar/edge.sock`, or `off`. It answers from memory and disk "
            "while every registry is away."
        ),
    ] = ListenAddress()
    edge_fallback: Annotated[
        FallbackUrl,
        Meta(
            description="URL of an object for each service, like `https://objects.internal/{service}.json`, as "
            "`registry publish` writes them. The edge asks it for services of which it has nothing, while no registry "
            "answers. Unset: none."
        ),
    ] = FallbackUrl()
    errands: Annotated[
        ErrandMode,
        Meta(
            description="What operators may ask of the Envoy beside the registrar, by way of the registry: `none`; "
            "`read`, its clusters and its configuration without secrets; `debug`, also its log level for a while, and "
            "taps of requests, of which an allow list of headers leaves the registrar. Needs envoy_admin."
        ),
    ] = ErrandMode.READ
    state_directory: Annotated[
        str,
        Meta(
            max_length=4096,
            description="Directory in which the edge keeps what it holds, so that an Envoy starts while every registry "
            "is away, and errands the log levels of Envoy that have to go back. Unset: the one that systemd makes "
            "(StateDirectory=); where there is none, the edge keeps nothing, and log levels are kept in "
            "`headcount-registrar-UID` below TMPDIR (/tmp).",
        ),
    ] = ""
    log_level: Annotated[
        LogLevel, Meta(description="Least severe event to log; info has a line for each transition.")
    ] = LogLevel.INFO

    @property
    def bearer(self) -> str:
        """The token itself; empty where there is none."""
        return self.token.reveal() if self.token else ""

    @property
    def has_credential(self) -> bool:
        """Whether requests carry a secret."""
        return self.token is not None or self.login is not None

    @property
    def registry_tls(self) -> RegistryTls:
        """The TLS of connections to registries, as new."""
        return RegistryTls(self.registry_ca_file, self.registry_cert_file, self.registry_key_file)

    def __post_init__(self) -> None:
        if self.stop_timeout <= STOP_RESERVE:
            raise ValueError(
                f"stop_timeout {self.stop_timeout} must be longer than {STOP_RESERVE:g}s, the time for the exit itself"
            )
        if self.login is not None and self.token is not None:
            raise ValueError(f"login is {self.login}, and a token is set as well; set one of them")
        if self.login is not None and self.login_audience is None:
            raise ValueError(
                f"login is {self.login}, and login_audience is not set: it names the registry, by its "
                "REGISTRY_AWS_AUDIENCE"
            )
        if 0 < self.traffic_interval < MIN_TRAFFIC_INTERVAL or self.traffic_interval < 0:
            raise ValueError(
                f"traffic_interval {self.traffic_interval} is less than {MIN_TRAFFIC_INTERVAL:g}s; write 10s, or 0 to "
                "read no statistics"
            )
        if self.registry_key_file and not self.registry_cert_file:
            raise ValueError("registry_key_file needs a registry_cert_file")
        if fault := self._envoy_fault():
            raise ValueError(fault)

    def _envoy_fault(self) -> str:
        """Return what is wrong with the settings of Envoy's token; empty if nothing is."""
        if self.login is not None and self.envoy_token is not None:
            return f"login is {self.login}, which has a token for Envoy, and envoy_token is set as well; remove one"
        if self.envoy_token is not None and not self.envoy_token_file:
            return "envoy_token is set, and no envoy_token_file to write it to; name one, like /run/envoy-token/token"
        if not self.envoy_token_file:
            return ""
        if self.login is None and self.envoy_token is None:
            return (
                "envoy_token_file is what the registrar writes, and there is no token to write; set login, envoy_token "
                "or envoy_token_source"
            )
        name = self.envoy_token_file.rpartition("/")[2]
        if name in ("", SDS_FILE):
            return f"envoy_token_file {self.envoy_token_file} has to end with a file's name other than {SDS_FILE}"
        return ""


def kept_directory(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Return the directory for what outlives the process: the setting's, else systemd's; None without either."""
    state = settings.state_directory or environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(state) if state else None


class LaunchSettings(Struct, frozen=True):
    """The settings that are needed before any file is read, and by verbs that read no file."""

    config: Annotated[
        str,
        Meta(
            description="YAML file, or a directory whose *.yaml and *.yml files are read in order, with `services` and "
            "any setting of the process. Needed for several services; flags and environment win over it."
        ),
    ] = ""
    admin_listen: Annotated[
        ListenAddress,
        Meta(
            description="Where the local admin interface listens: a loopback address and port, "
            "`unix:/run/registrar/admin.sock`, or `off`. Two registrars in one network namespace need one each. "
            "Off, the verbs healthcheck, drain and status do not work."
        ),
    ] = ListenAddress("127.0.0.1", 9902)
    registrator_names: Annotated[
        bool,
        Meta(
            description="Also read what registrator read: SERVICE_NAME, SERVICE_8080_NAME, SERVICE_TAGS, "
            "SERVICE_CHECK_HTTP and their like; others of its names are warned of at the start. Variables of our own "
            "win over them."
        ),
    ] = False


# The field that each environment variable sets.
VARIABLES: dict[str, tuple[type[Struct], str]] = {
    "REGISTRAR_REGISTRY_URL": (Settings, "registry_url"),
    "REGISTRAR_LOGIN": (Settings, "login"),
    "REGISTRAR_LOGIN_AUDIENCE": (Settings, "login_audience"),
    "REGISTRAR_TOKEN": (Settings, "token"),
    "REGISTRAR_TOKEN_FILE": (Settings, "token_file"),
    "REGISTRAR_ENVOY_TOKEN_FILE": (Settings, "envoy_token_file"),
    "REGISTRAR_ENVOY_TOKEN": (Settings, "envoy_token"),
    "REGISTRAR_ENVOY_TOKEN_SOURCE": (Settings, "envoy_token_source"),
    "REGISTRAR_REGISTRY_CA_FILE": (Settings, "registry_ca_file"),
    "REGISTRAR_REGISTRY_CERT_FILE": (Settings, "registry_cert_file"),
    "REGISTRAR_REGISTRY_KEY_FILE": (Settings, "registry_key_file"),
    "REGISTRAR_SERVICE": (Service, "service"),
    "REGISTRAR_ENDPOINT": (Service, "endpoint"),
    "REGISTRAR_CONTAINER": (Service, "container"),
    "REGISTRAR_CHECK_HTTP_PATH": (HttpOptions, "path"),
    "REGISTRAR_CHECK_INTERVAL": (Options, "interval"),
    "REGISTRAR_REVISION": (Service, "revision"),
    "REGISTRAR_CANARY": (Service, "canary"),
    "REGISTRAR_EXPECTED": (Service, "expected"),
    "REGISTRAR_WEIGHT": (Service, "weight"),
    "REGISTRAR_INSTANCE_ID": (Settings, "instance_id"),
    "REGISTRAR_REGION": (Settings, "region"),
    "REGISTRAR_ZONE": (Settings, "zone"),
    "REGISTRAR_DRAIN_WAIT": (Settings, "drain_wait"),
    "REGISTRAR_ON_SIGTERM": (Settings, "on_sigterm"),
    "REGISTRAR_STOP_TIMEOUT": (Settings, "stop_timeout"),
    "REGISTRAR_ADMIN_LISTEN": (LaunchSettings, "admin_listen"),
    "REGISTRAR_REGISTRATOR_NAMES": (LaunchSettings, "registrator_names"),
    "REGISTRAR_CONFIG": (LaunchSettings, "config"),
    "REGISTRAR_PROBES": (Settings, "probes"),
    "REGISTRAR_ENVOY_ADMIN": (Settings, "envoy_admin"),
    "REGISTRAR_ERRANDS": (Settings, "errands"),
    "REGISTRAR_TRAFFIC_INTERVAL": (Settings, "traffic_interval"),
    "REGISTRAR_EDGE_LISTEN": (Settings, "edge_listen"),
    "REGISTRAR_EDGE_FALLBACK": (Settings, "edge_fallback"),
    "REGISTRAR_STATE_DIRECTORY": (Settings, "state_directory"),
    "REGISTRAR_LOG_LEVEL": (Settings, "log_level"),
}


# The settings that are paths of files with a secret, each with the setting of the secret.
SECRET_FILES = {"token_file": "token", "envoy_token_source": "envoy_token"}
# The variables that are paths, whose bytes are those that the file system has.
PATHS = frozenset(
    name
    for name, (owner, field) in VARIABLES.items()
    if owner is LaunchSettings or name.endswith("_FILE") or field in SECRET_FILES
)
# Every variable but the secrets is a flag too: every user of a machine can read command lines.
FLAGS = [name for name, (_, field) in VARIABLES.items() if field not in SECRET_FILES.values()]


def annotation(variable: str) -> Any:  # noqa: ANN401 - an annotation is any type form
    """Return the type of the field that ``variable`` sets."""
    owner, name = VARIABLES[variable]
    return get_type_hints(owner, include_extras=True)[name]


class SettingReference(Struct, frozen=True):
    """One row of the reference of settings; ``default`` is empty if there is none."""

    name: str
    type: str
    default: str
    description: str


def reference() -> list[SettingReference]:
    """Return every environment variable with its type, default and description."""
    return [_refer(variable) for variable in VARIABLES]


def _refer(variable: str) -> SettingReference:
    owner, name = VARIABLES[variable]
    field = next(field for field in structs.fields(owner) if field.name == name)
    default = "" if field.default in (NODEFAULT, None) else str(field.default)
    kind = annotation(variable)
    description = next(meta.description for meta in reversed(kind.__metadata__) if meta.description)
    return SettingReference(variable, _kind(variable, kind.__origin__), default.replace("False", "false"), description)


def _kind(variable: str, origin: Any) -> str:  # noqa: ANN401 - as above
    """Return the word for a field's type; an optional type has the word of its inner type."""
    inner = next((part for part in getattr(origin, "__args__", ()) if part is not type(None)), origin)
    plain = getattr(inner, "__origin__", inner)
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        return " | ".join(plain)
    words = {
        bool: "boolean",
        int: "integer",
        Duration: "duration",
        RegistryUrls: "URLs",
        EndpointSpec: "endpoint",
        FallbackUrl: "URL",
        ListenAddress: "address",
        EnvoyAdminAddress: "URL or unix path",
        Switch: "on or off",
    }
    if variable.endswith(("_FILE", "_SOURCE")):
        return "file"
    return words.get(plain, "text")
