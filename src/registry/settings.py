"""The registry's settings, which are read from the environment at the start, never at import."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from registry.errors import BadSettingsError
from registry.setting_types import (
    OIDC_CALLBACK,
    Audiences,
    DatabaseUrlSecret,
    Duration,
    EndpointLinks,
    HostNames,
    Issuer,
    KeysEndpoint,
    ListenOrOff,
    LoadBalancerArn,
    LoginRegions,
    Networks,
    OptionalListen,
    PublishPlace,
    Redirect,
    ServiceLinks,
    StsEndpoint,
    Verbs,
    listens_on_loopback,
)
from wire.spelling import spelling_hint

_PREFIX = "REGISTRY_"
# Variables that Docker's container links and Kubernetes inject for anything that is named "registry", and one of the
# tests.
_FOREIGN = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?|TEST_DATABASE_URL")
_STREAM_FILES = ("xds_tls_cert_file", "xds_tls_key_file", "xds_tls_client_ca_file")


class Settings(BaseSettings):
    """The settings that operators can change; each description names the consequence."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    listen: ListenOrOff = Field(
        "127.0.0.1:8080",
        description="Address to serve on. Anything but loopback opens the registry to that network. `off`: this "
        "process serves streams alone, on REGISTRY_XDS_LISTEN, and has no metrics, API and console.",
    )
    tls_cert_file: Path | None = Field(
        None,
        description="Certificate in PEM, with its intermediates behind it: the listen address then serves TLS. Its "
        "files are read again within two seconds after they changed, and open connections stay. A pair that cannot be "
        "used changes nothing, is logged, and is a finding of `registryctl check`.",
    )
    tls_key_file: Path | None = Field(
        None, description="Private key in PEM, without a passphrase. Unset: it is in the certificate's file."
    )
    tls_client_ca_file: Path | None = Field(
        None,
        description="Authorities in PEM whose client certificates are accepted. Clients may have one, and need none; "
        "one of another authority fails the handshake.",
    )
    tls_min_version: Literal["1.2", "1.3"] = Field(
        "1.2", description="Lowest version of TLS. An Envoy speaks at most 1.2 to its clusters unless it is told to."
    )
    plain_listen: OptionalListen = Field(
        None,
        description="Address to serve the same without TLS, beside a listen address with TLS: for probes on loopback, "
        "and for clients that have not moved yet.",
    )
    xds_listen: ListenOrOff = Field(
        None,
        description="Address to serve discovery by gRPC on, to Envoys (ADS, EDS) and to proxyless clients. Unset or "
        "`off`: there are no streams, and Envoys poll. Needs `headcount[grpc]`.",
    )
    xds_max_streams: int = Field(
        10_000,
        ge=1,
        description="Streams of one process; beyond it UNAVAILABLE, and clients try again later, or another process. "
        "Fewer where the limit of open files, less 256, is lower.",
    )
    xds_max_age: Duration = Field(
        1_800.0,
        ge=0,
        le=86_400,
        description="How long a connection of streams is used, give or take a fifth. Its streams end then and come "
        "back within a second, perhaps to another process, which spreads them again after one was away. `0`: it stays.",
    )
    xds_tls_cert_file: Path | None = Field(
        None,
        description="Certificate of REGISTRY_XDS_LISTEN, as REGISTRY_TLS_CERT_FILE. Unset: that one; neither: plain.",
    )
    xds_tls_key_file: Path | None = Field(
        None, description="Private key of REGISTRY_XDS_TLS_CERT_FILE. Unset: it is in the certificate's file."
    )
    xds_tls_client_ca_file: Path | None = Field(
        None,
        description="Authorities whose client certificates are accepted on REGISTRY_XDS_LISTEN. Unset: "
        "those of REGISTRY_TLS_CLIENT_CA_FILE.",
    )
    connection_age: Duration = Field(
        3_600.0,
        ge=1,
        le=86_400,
        description="How long a connection with a client certificate is used, give or take a tenth; its next response "
        "ends it. Envoy goes on with the certificate of the beginning otherwise, whatever it has been given since.",
    )
    auth: Literal["off", "audit", "on"] = Field(
        "off",
        description="Access: `off` allows everything but the management of credentials, `audit` allows the same and "
        "notes what `on` would refuse, `on` refuses it. Go by `audit`: docs/security.md has the way.",
    )
    auth_audit_verbs: Verbs = Field(
        (),
        description="Verbs whose refusals are only noted while REGISTRY_AUTH is `on`, comma separated: "
        "discover, read, register, operate, configure, inspect, debug, observe.",
    )
    oidc_issuer: Issuer = Field(
        None,
        description="Sign-in provider of OpenID Connect for people at the console, exactly as its discovery document "
        "names it. Needs `headcount[oidc]`, REGISTRY_OIDC_CLIENT_ID, and identities of the source `oidc`.",
    )
    oidc_client_id: str | None = Field(None, min_length=1, max_length=255, description="Our name at the provider.")
    oidc_client_secret: SecretStr | None = Field(
        None, description="Our secret at the provider. Unset, and no file either: a public client, with PKCE alone."
    )
    oidc_client_secret_file: Path | None = Field(
        None, description="File that has the secret, read at the start; rather this than an environment variable."
    )
    oidc_redirect: Redirect = Field(
        None,
        description="URL to which the provider sends people back, as it is registered there: the registry's own with "
        "the path `/ui/login/oidc/callback`. Unset: of the first name of REGISTRY_HOSTS, by TLS.",
    )
    alb_arn: LoadBalancerArn = Field(
        None,
        description="ARN of the Application Load Balancer in front that signs people in by itself: its "
        "`x-amzn-oidc-data` is then their credential, from REGISTRY_TRUSTED_PROXIES alone. Needs `headcount[oidc]`, "
        "REGISTRY_ALB_CLIENT_ID, REGISTRY_ALB_ISSUER, and identities of the source `oidc`.",
    )
    alb_client_id: str | None = Field(
        None, min_length=1, max_length=255, description="The load balancer's name at its provider (`ClientId`)."
    )
    alb_issuer: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="The load balancer's provider, exactly as its rule has it (`Issuer`); of Cognito "
        "`https://cognito-idp.eu-west-1.amazonaws.com/` and the id of the pool.",
    )
    alb_keys_endpoint: KeysEndpoint = Field(
        None,
        description="Where the keys of load balancers are asked for, on loopback alone, for tests. Unset: AWS's own "
        "server in the region of REGISTRY_ALB_ARN.",
    )
    hosts: HostNames = Field(
        (),
        description="Names under which browsers may ask, comma separated: those of load balancers and DNS records in "
        "front, like `registry.example.com`. Addresses, `localhost` and names without a dot always may. Under any "
        "other name a browser gets 421, since a page on the internet could have pointed it here (DNS rebinding). "
        "Envoy, curl, registrars and drop-in clients may use any name.",
    )
    database_url: DatabaseUrlSecret = Field(
        None,
        description="PostgreSQL 15 or newer, as a libpq URL. Unset, and no file either: an embedded PostgreSQL in the "
        "data directory, for one machine.",
    )
    database_url_file: Path | None = Field(
        None,
        description="File that has the URL, read again for each new connection: a password that was rotated needs no "
        "restart.",
    )
    data_dir: Path = Field(
        Path(".headcount"),
        description="Directory of the embedded PostgreSQL, and of the last snapshot and the digests of credentials, "
        "from which a process that starts while PostgreSQL is away serves. Keep it across restarts. Workers share "
        "their metrics in it where no directory for temporary files can be written. The embedded PostgreSQL wants a "
        "path without blanks and quotes.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Server processes on the one listen address. Each holds all snapshots and about five "
        "database connections.",
    )
    worker_timeout: Duration = Field(
        30.0,
        ge=5,
        le=3_600,
        description="With several workers, how long the event loop of one may stand still before it is killed and "
        "replaced.",
    )
    door: Literal["fast", "plain", "route"] = Field(
        "fast",
        description="What answers polls and heartbeats: `fast` inside uvicorn's protocol, `plain` in ASGI (a fifth of "
        "the speed, and what `fast` falls back to when it does not fit the installed uvicorn), `route` in FastAPI "
        "(a twentieth). They answer the same; turn back if in doubt.",
    )
    migrate: bool = Field(
        True,
        description="Bring the schema up at start, under a lock. Turn off where `registry migrate` is a step of "
        "the deploy.",
    )
    environment: str = Field(
        "production",
        max_length=255,
        description="The `env` of the drop-in answers. Registries do not compare it.",
    )
    lease_ttl: Duration = Field(
        20.0,
        ge=1,
        le=86_400,
        description="Lease of registrations that name no ttl. Shorter finds lost hosts sooner and costs more "
        "heartbeats: registrars send one each quarter of it.",
    )
    compat_lease_ttl: Duration = Field(
        600.0,
        ge=1,
        le=86_400,
        description="Lease of registrations through the drop-in contracts, whose clients choose their own heartbeat "
        "intervals.",
    )
    drain_wait: Duration = Field(
        12.0,
        ge=0,
        le=3_600,
        description="How long registrars go on serving after a drain. At least twice Envoy's refresh delay plus "
        "the app's longest request, else requests are lost at deploys.",
    )
    removal_delay: Duration = Field(
        10.0,
        ge=0,
        le=3_600,
        description="How long an endpoint stays listed as not routable before it is left out. Too short, and an "
        "Envoy with active health checks keeps sending to it.",
    )
    last_endpoint_hold: Duration = Field(
        900.0,
        ge=0,
        le=86_400,
        description="How long lapsed endpoints stay listed, and suspects stay served, when there is nothing "
        "better. Longer survives longer partitions and keeps dead addresses longer.",
    )
    sweep_interval: Duration = Field(
        1.0,
        ge=0.05,
        le=60,
        description="Interval between two searches for expired leases. Adds to the time until a lost host is found.",
    )
    resync_interval: Duration = Field(
        3.0,
        ge=0.05,
        le=300,
        description="How often all versions are compared with PostgreSQL, and its notifications are probed: the "
        "longest time that a lost notification costs.",
    )
    listen_notify: bool = Field(
        True,
        description="Follow PostgreSQL's notifications. Turn off where a proxy does not carry them; changes then "
        "take up to one resync interval. Connections have to be sessions either way.",
    )
    tombstone_retention: Duration = Field(
        600.0,
        ge=1,
        le=86_400,
        description="How long a removed endpoint's row refuses late heartbeats of its incarnation.",
    )
    event_retention: Duration = Field(
        604_800.0,
        ge=60,
        description="How long the history of changes is kept, and a service without endpoints is known: for as long it "
        "stays in gateways that select it by metadata.",
    )
    aws_audience: Audiences = Field(
        (),
        description="Names of this registry that an AWS login may be for, comma separated, like "
        "`headcount-production`; registrars send theirs as REGISTRAR_LOGIN_AUDIENCE. Every installation has its own: "
        "a login that one receives is then of no use at another.",
    )
    aws_sts_endpoint: StsEndpoint = Field(
        None,
        description="Where AWS logins are sent, like `https://vpce-0abc.sts.eu-west-1.vpce.amazonaws.com`. Unset: the "
        "public STS of the region that the workload signed for. An endpoint serves one region.",
    )
    aws_regions: LoginRegions = Field(
        (),
        description="Regions for whose STS workloads may sign AWS logins, comma separated. Unset: AWS login is off. "
        "Needs REGISTRY_AWS_AUDIENCE.",
    )
    publish_to: PublishPlace = Field(
        "",
        description="Where the endpoints of services are published, one object a service, for tasks that start while "
        "every registry is away: the absolute path of a directory, or `s3://bucket/prefix`, which needs "
        "`headcount[aws]`, `s3:PutObject` and `s3:ListBucket`. Unset: nowhere.",
    )
    ecs_tasks: Literal["off", "on"] = Field(
        "off",
        description="Ask ECS whether the tasks of suspects have stopped: those of stopped tasks lapse at once, past "
        "the mass-expiry guard; and use the desired counts of ECS services as expected numbers. Needs "
        "`headcount[aws]`, and `ecs:DescribeTasks` and `ecs:DescribeServices` for the clusters that registrars name.",
    )
    link_service: ServiceLinks = Field(
        (),
        description="Links from the console's page of a service, separated by blanks, like "
        "`Grafana=https://grafana.example.com/d/svc?var-service={service}`. `{service}` is replaced by the name, "
        "percent-encoded.",
    )
    link_endpoint: EndpointLinks = Field(
        (),
        description="Links from the console's page of an endpoint, as REGISTRY_LINK_SERVICE, like "
        "`Logs=https://logs.example.com/?q={instance}`. Beside `{service}` they may have `{endpoint}`, `{address}`, "
        "`{port}`, `{instance}`, `{region}`, `{zone}` and `{revision}`; one whose value is empty is left out.",
    )
    audit_retention: Duration = Field(
        7_776_000.0,
        ge=60,
        description="How long the audit is kept: who changed, registered or was refused what.",
    )
    audit_max_rows: int = Field(
        1_000_000,
        ge=1_000,
        description="Rows of the audit that are kept, about 300 bytes each; beyond it the oldest are deleted before "
        "REGISTRY_AUDIT_RETENTION. Refusals, registrations and logins have three quarters of them, so that they do not "
        "displace the acts of operators.",
    )
    mesh_retention: Duration = Field(
        7_776_000.0,
        ge=60,
        description="How long revisions of the mesh configuration are kept, with their files and resources, to look at "
        "and to roll back to. What is served or rolled out is always kept.",
    )
    mesh_min_revisions: int = Field(
        100,
        ge=1,
        description="The newest revisions of the mesh configuration that are kept, however old they are.",
    )
    max_held_polls: int = Field(
        10_000,
        ge=0,
        description="Polls with a current version that are held until a change, one for several names counting as so "
        "many, a question of an edge for each 20 names; beyond it they get 304 at once. Fewer where the limit of open "
        "files, less 256, is lower.",
    )
    max_sightings: int = Field(
        50_000,
        ge=100,
        description="Pairs of a node and a name that one process remembers of its polls, 2 kB each. Beyond it polls "
        "are answered all the same, but `/v1/subscribers` is incomplete and says so.",
    )
    max_services: int = Field(
        20_000,
        ge=1,
        description="Services that there may be. Registrations that would create another one are answered 429; "
        "existing ones are not affected. A service counts until it has had no endpoint for `REGISTRY_EVENT_RETENTION`.",
    )
    max_endpoints: int = Field(
        200_000,
        ge=1,
        description="Endpoints that may be listed, in all services. New ones are answered 429 beyond it; those that "
        "are listed are renewed.",
    )
    max_instance_endpoints: int = Field(
        100,
        ge=1,
        description="Endpoints that one instance may have where `REGISTRY_AUTH` is `on`; new ones get 429 beyond it. "
        "An instance is the session of an AWS login, else what the holder of a token calls so. `limits` of an identity "
        "replaces it.",
    )
    max_instance_changes: float = Field(
        10.0,
        gt=0,
        description="Changes a second of one instance where `REGISTRY_AUTH` is `on`, after as many at once as it may "
        "have endpoints; beyond it 429. Renewals, drains and deregistrations are not counted.",
    )
    max_identity_services: int = Field(
        50,
        ge=1,
        description="Services in which the endpoints of one identity or token may be where `REGISTRY_AUTH` is `on`; "
        "registrations for another one get 429.",
    )
    max_peer_polls: int = Field(
        1_024,
        ge=1,
        description="Names that one address may have polls held for where `REGISTRY_AUTH` is `on`, 64 without a "
        "credential; a poll beyond it is answered at once. `REGISTRY_MAX_PEER_CONNECTIONS` says who has no limit.",
    )
    max_peer_streams: int = Field(
        4,
        ge=1,
        description="Event streams of one address where `REGISTRY_AUTH` is `on`; beyond it 429. "
        "`REGISTRY_MAX_PEER_CONNECTIONS` says who has no limit.",
    )
    max_peer_connections: int = Field(
        1_024,
        ge=1,
        description="Connections of one address to a process where `REGISTRY_AUTH` is `on`; those beyond it are "
        "closed at once, and with `audit` noted. Loopback, `REGISTRY_TRUSTED_PROXIES` and `REGISTRY_PEER_LIMIT_EXEMPT` "
        "have no limit.",
    )
    peer_limit_exempt: Networks = Field(
        (),
        description="Networks whose addresses are shared by many clients, such as NAT gateways and hosts with many "
        "containers: no limit of an address holds for them, beside loopback and `REGISTRY_TRUSTED_PROXIES`.",
    )
    max_events: int = Field(
        10_000_000,
        ge=1_000,
        description="Events that are kept, about 220 bytes each; beyond it the oldest are deleted before "
        "REGISTRY_EVENT_RETENTION. No change is refused for it.",
    )
    max_metadata: int = Field(
        8_192,
        ge=0,
        description="Bytes of JSON that the metadata of an endpoint may have; beyond it 422. Every Envoy that asks for "
        "the service gets them with each answer.",
    )
    traffic_pairs: int = Field(
        5_000,
        ge=10,
        le=100_000,
        description="Pairs of a caller, in one zone, and a callee whose traffic one process remembers, about 10 kB "
        "each, and as many routes; beyond it the callers with the most lose their least busy "
        "ones, and `registry_traffic_dropped_total` grows.",
    )
    endpoint_networks: Networks = Field(
        (),
        description="Networks in which endpoints may be; others are answered 422. Unset: every unicast address that is "
        "not link-local or reserved, nor loopback unless the registry listens on loopback alone. Loopback and "
        "link-local networks have to be named themselves: 0.0.0.0/0 does not allow 127.0.0.0/8. Endpoints that are "
        "registered already stay, and `registryctl check` names them.",
    )
    probes: Literal["off", "on"] | None = Field(
        None,
        description="Whether this process tells the dead from the silent by TCP connections: a base line to each "
        "endpoint every five minutes, and some to suspects, at most 20 a second, closed without a byte. Metadata "
        "`probe: false` opts an endpoint out. Unset: on where REGISTRY_ENDPOINT_NETWORKS is set, outside of which "
        "nothing is probed, else off.",
    )
    envoy_binary: str | None = Field(
        None,
        min_length=1,
        description="The Envoy that proves a mesh configuration before it is applied: a path, or a program on the "
        "PATH. Unset: the proof of the sender's own Envoy counts, if it is of the same bytes.",
    )
    max_body: int = Field(
        1_048_576,
        ge=131_072,
        description="Largest request body in bytes; beyond it 413. An Envoy's poll is about 77 kB. Also the largest "
        "message over a gRPC stream: an Envoy that comes again over delta brings 77 kB and some 100 bytes a service.",
    )
    database_connections: int = Field(10, ge=8, le=200, description="Connections to PostgreSQL of one process at most.")
    database_timeout: Duration = Field(
        5.0,
        ge=0.1,
        le=120,
        description="Longest a statement, a lock or a connection attempt may take before writes answer 503.",
    )
    shutdown_delay: Duration = Field(
        0.0,
        ge=0,
        le=300,
        description="How long a stopping process keeps answering while `/readyz` is 503, and over which it spreads the "
        "ends of its gRPC streams. Set it to the time that a load balancer in front takes to notice.",
    )
    shutdown_grace: Duration = Field(
        10.0, ge=0, le=600, description="How long requests under way may take after SIGTERM."
    )
    auto_ip_networks: Networks = Field(
        (IPvAnyNetwork("192.168.0.0/16"),),  # type: ignore[operator]  # a pydantic type, called as a parser
        description="Networks in which `auto_ip` registrations may take the client's own address.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Peers whose X-Forwarded-For is believed for `auto_ip`, and whose `x-amzn-oidc-data` is read where "
        "REGISTRY_ALB_ARN is set. A wrong entry lets clients register any address.",
    )
    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="Least severity that is logged.",
    )

    @model_validator(mode="after")
    def _check_database(self) -> Self:
        """Refuse two databases."""
        if self.database_url is not None and self.database_url_file is not None:
            raise ValueError("REGISTRY_DATABASE_URL and REGISTRY_DATABASE_URL_FILE are both set; set one")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        """Refuse settings of TLS that would have no effect without a certificate."""
        needing = ("tls_key_file", "tls_client_ca_file", "plain_listen")
        useless = [_PREFIX + name.upper() for name in needing if getattr(self, name) is not None]
        if useless and self.tls_cert_file is None:
            raise ValueError(
                f"{useless[0]} needs REGISTRY_TLS_CERT_FILE; without it the registry serves plain HTTP on "
                "REGISTRY_LISTEN alone"
            )
        if self.plain_listen is not None and self.plain_listen == self.listen:
            raise ValueError(f"REGISTRY_PLAIN_LISTEN={self.plain_listen} is REGISTRY_LISTEN, which serves TLS")
        return self

    @model_validator(mode="after")
    def _check_listeners(self) -> Self:
        """Refuse a process that serves nothing, and settings of streams that would have no effect."""
        if self.listen is None and self.xds_listen is None:
            raise ValueError("REGISTRY_LISTEN=off needs REGISTRY_XDS_LISTEN; without both nothing is served")
        if self.listen is None and self.plain_listen is not None:
            raise ValueError("REGISTRY_PLAIN_LISTEN needs REGISTRY_LISTEN, beside which it serves")
        if self.xds_listen is not None and self.xds_listen in (self.listen, self.plain_listen):
            raise ValueError(
                f"REGISTRY_XDS_LISTEN={self.xds_listen} is taken by HTTP; streams need an address of theirs"
            )
        given = [name for name in _STREAM_FILES if getattr(self, name) is not None]
        if given and self.xds_listen is None:
            raise ValueError(f"{_PREFIX}{given[0].upper()} needs REGISTRY_XDS_LISTEN; without it there are no streams")
        if self.xds_tls_key_file is not None and self.xds_tls_cert_file is None:
            raise ValueError("REGISTRY_XDS_TLS_KEY_FILE needs REGISTRY_XDS_TLS_CERT_FILE, whose key it is")
        if self.xds_tls_client_ca_file is not None and not self.xds_tls_on:
            raise ValueError(
                "REGISTRY_XDS_TLS_CLIENT_CA_FILE needs REGISTRY_XDS_TLS_CERT_FILE or REGISTRY_TLS_CERT_FILE"
            )
        return self

    @model_validator(mode="after")
    def _check_oidc(self) -> Self:
        """Refuse a sign-in provider that is set in part."""
        needing = ("oidc_client_id", "oidc_client_secret", "oidc_client_secret_file", "oidc_redirect")
        given = [_PREFIX + name.upper() for name in needing if getattr(self, name) is not None]
        if self.oidc_issuer is None:
            if given:
                raise ValueError(f"{given[0]} needs REGISTRY_OIDC_ISSUER; without it people paste tokens")
            return self
        if self.oidc_client_id is None:
            raise ValueError("REGISTRY_OIDC_ISSUER needs REGISTRY_OIDC_CLIENT_ID, our name at the provider")
        if self.oidc_client_secret is not None and self.oidc_client_secret_file is not None:
            raise ValueError("REGISTRY_OIDC_CLIENT_SECRET and REGISTRY_OIDC_CLIENT_SECRET_FILE are both set; set one")
        if self.oidc_redirect is None and not self.hosts:
            raise ValueError(
                "REGISTRY_OIDC_ISSUER needs REGISTRY_HOSTS or REGISTRY_OIDC_REDIRECT: people come back by such a name"
            )
        return self

    @model_validator(mode="after")
    def _check_alb(self) -> Self:
        """Refuse a load balancer that is set in part, or whose address is not known."""
        needing = ("alb_client_id", "alb_issuer", "alb_keys_endpoint")
        given = [_PREFIX + name.upper() for name in needing if getattr(self, name) is not None]
        if self.alb_arn is None:
            if given:
                raise ValueError(
                    f"{given[0]} needs REGISTRY_ALB_ARN; without it nothing of a load balancer is believed"
                )
            return self
        missing = [_PREFIX + name.upper() for name in needing[:2] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"REGISTRY_ALB_ARN needs {' and '.join(missing)}, as the rule of its listener has it")
        if not self.trusted_proxies:
            raise ValueError("REGISTRY_ALB_ARN needs REGISTRY_TRUSTED_PROXIES: the subnets of the load balancer")
        return self

    @property
    def oidc_redirect_url(self) -> str:
        """The URL to which the sign-in provider sends people back."""
        return self.oidc_redirect or f"https://{self.hosts[0]}{OIDC_CALLBACK}"

    @property
    def unlimited_networks(self) -> Networks:
        """Networks for whose addresses no limit of a peer holds, beside loopback."""
        return (*self.trusted_proxies, *self.peer_limit_exempt)

    @property
    def probes_on(self) -> bool:
        """Whether this process probes endpoints."""
        return bool(self.endpoint_networks) if self.probes is None else self.probes == "on"

    @property
    def xds_tls_on(self) -> bool:
        """Whether streams are served by TLS."""
        return self.xds_listen is not None and (self.xds_tls_cert_file or self.tls_cert_file) is not None

    @property
    def addresses(self) -> Mapping[str, bool]:
        """The addresses that are served, and whether by TLS."""
        served = {
            self.listen: self.tls_cert_file is not None,
            self.plain_listen: False,
            self.xds_listen: self.xds_tls_on,
        }
        return {address: tls for address, tls in served.items() if address is not None}

    @property
    def on_loopback(self) -> bool:
        """Whether the registry can be reached from its own machine only."""
        return all(map(listens_on_loopback, self.addresses))


def load_settings(**given: Any) -> Settings:  # noqa: ANN401  # the fields' types check the values
    """Read the settings from the environment.

    Raises:
        BadSettingsError: names each variable that is wrong or unknown and why.
    """
    faults = _unknown(os.environ)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise BadSettingsError("\n".join([*_wrong(error), *faults])) from None
    if faults:
        raise BadSettingsError("\n".join(faults))
    return settings


def _wrong(error: ValidationError) -> list[str]:
    faults = []
    for item in error.errors(include_url=False, include_input=False):
        message = item["msg"].removeprefix("Value error, ")
        name = _PREFIX + ".".join(str(part) for part in item["loc"]).upper()
        # A rule about several settings has no place, and names them itself.
        faults.append(f"{name}: {message}" if item["loc"] else message)
    return faults


def _unknown(environ: Iterable[str]) -> list[str]:
    """Return the variables that are no settings, because a misspelt one would have no effect."""
    allowed = [_PREFIX + field.upper() for field in Settings.model_fields]
    faults = []
    for variable in sorted(environ):
        name = variable.upper().removeprefix(_PREFIX)
        ours = variable.upper().startswith(_PREFIX) and not _FOREIGN.fullmatch(name)
        if ours and _PREFIX + name not in allowed:
            hint = spelling_hint(
                _PREFIX + name, allowed, prefix=_PREFIX, otherwise="docs/reference/settings.md lists all"
            )
            faults.append(f"{variable}: unknown variable; {hint}")
    return faults
