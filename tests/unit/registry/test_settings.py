"""The registry's settings, from the environment and nothing else."""

import os
from pathlib import Path
from typing import Any

import pytest

from registry.errors import BadSettingsError
from registry.setting_types import OIDC_CALLBACK
from registry.settings import Settings, load_settings

ALB = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/headcount/0123456789abcdef"

EVERY: dict[str, tuple[str, Any]] = {
    "traffic_pairs": ("200", 200),
    "publish_to": ("s3://bucket/headcount", "s3://bucket/headcount"),
    "listen": ("[::1]:9000", "[::1]:9000"),
    "tls_cert_file": ("/tls/cert.pem", Path("/tls/cert.pem")),
    "tls_key_file": ("/tls/key.pem", Path("/tls/key.pem")),
    "tls_client_ca_file": ("/tls/clients.pem", Path("/tls/clients.pem")),
    "tls_min_version": ("1.3", "1.3"),
    "envoy_binary": ("/usr/bin/envoy", "/usr/bin/envoy"),
    "plain_listen": ("[::1]:9001", "[::1]:9001"),
    "xds_listen": ("0.0.0.0:18000", "0.0.0.0:18000"),
    "xds_max_streams": ("500", 500),
    "xds_max_age": ("0s", 0.0),
    "xds_tls_cert_file": ("/tls/streams.pem", Path("/tls/streams.pem")),
    "xds_tls_key_file": ("/tls/streams.key", Path("/tls/streams.key")),
    "xds_tls_client_ca_file": ("/tls/envoys.pem", Path("/tls/envoys.pem")),
    "connection_age": ("10m", 600.0),
    "link_service": (
        "Grafana=https://g/d?s={service}  Logs=http://l/",
        ["Grafana=https://g/d?s={service}", "Logs=http://l/"],
    ),
    "link_endpoint": ("Logs=https://l/{instance}/{zone}", ["Logs=https://l/{instance}/{zone}"]),
    "auth": ("audit", "audit"),
    "auth_audit_verbs": ("read, discover", ["read", "discover"]),
    "oidc_issuer": ("https://login.example.com/realm", "https://login.example.com/realm"),
    "oidc_client_id": ("headcount", "headcount"),
    "oidc_client_secret": ("s3cret", "s3cret"),
    "oidc_client_secret_file": ("/run/secrets/oidc", Path("/run/secrets/oidc")),
    "oidc_redirect": (f"https://r.example.com{OIDC_CALLBACK}", f"https://r.example.com{OIDC_CALLBACK}"),
    "alb_arn": (ALB, ALB),
    "alb_client_id": ("headcount", "headcount"),
    "alb_issuer": ("https://login.example.com/realm", "https://login.example.com/realm"),
    "alb_keys_endpoint": ("http://127.0.0.1:9/", "http://127.0.0.1:9"),
    "hosts": ("Registry.Example.com., headcount", ["registry.example.com", "headcount"]),
    "database_url": ("postgresql://u:secret@db/h", "postgresql://u:secret@db/h"),
    "database_url_file": ("/run/secrets/url", Path("/run/secrets/url")),
    "data_dir": ("/srv/headcount", Path("/srv/headcount")),
    "workers": ("4", 4),
    "worker_timeout": ("1m", 60.0),
    "migrate": ("false", False),
    "environment": ("staging", "staging"),
    "lease_ttl": ("30s", 30.0),
    "compat_lease_ttl": ("5m", 300.0),
    "drain_wait": ("0", 0.0),
    "removal_delay": ("1500ms", 1.5),
    "last_endpoint_hold": ("1h", 3600.0),
    "sweep_interval": ("2s", 2.0),
    "resync_interval": ("0.5", 0.5),
    "listen_notify": ("no", False),
    "tombstone_retention": ("20m", 1200.0),
    "event_retention": ("30d", 2_592_000.0),
    "audit_retention": ("7d", 604_800.0),
    "audit_max_rows": ("1000", 1_000),
    "mesh_retention": ("7d", 604_800.0),
    "mesh_min_revisions": ("1", 1),
    "aws_audience": ("headcount-production,10.0.0.1", ["headcount-production", "10.0.0.1"]),
    "aws_sts_endpoint": ("https://sts.example.com/", "https://sts.example.com"),
    "ecs_tasks": ("on", "on"),
    "aws_regions": ("eu-west-1, cn-north-1", ["eu-west-1", "cn-north-1"]),
    "max_instance_endpoints": ("7", 7),
    "max_instance_changes": ("2.5", 2.5),
    "max_identity_services": ("7", 7),
    "max_peer_polls": ("7", 7),
    "max_peer_streams": ("7", 7),
    "max_peer_connections": ("7", 7),
    "peer_limit_exempt": ("10.9.0.1, 10.8.0.0/16", ["10.9.0.1/32", "10.8.0.0/16"]),
    "max_held_polls": ("0", 0),
    "max_sightings": ("200", 200),
    "max_services": ("7", 7),
    "max_endpoints": ("7", 7),
    "max_events": ("1000", 1_000),
    "max_metadata": ("0", 0),
    "endpoint_networks": ("10.0.0.0/8, 127.0.0.0/8", ["10.0.0.0/8", "127.0.0.0/8"]),
    "probes": ("on", "on"),
    "max_body": ("131072", 131_072),
    "database_connections": ("8", 8),
    "database_timeout": ("250ms", 0.25),
    "shutdown_delay": ("15s", 15.0),
    "shutdown_grace": ("1m", 60.0),
    "auto_ip_networks": ("10.0.0.0/8, 2001:db8::/32", ["10.0.0.0/8", "2001:db8::/32"]),
    "trusted_proxies": ("10.0.0.1/32,", ["10.0.0.1/32"]),
    "door": ("plain", "plain"),
    "log_level": ("debug", "debug"),
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from an environment without settings."""
    for name in os.environ:
        if name.upper().startswith("REGISTRY_"):
            monkeypatch.delenv(name)


def faults(monkeypatch: pytest.MonkeyPatch, **environ: str) -> list[str]:
    """Return what is said of an environment that is refused."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSettingsError) as caught:
        load_settings()
    return str(caught.value).splitlines()


def plain(value: Any) -> Any:
    """Return a setting's value in types that compare."""
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    return [str(item) for item in value] if isinstance(value, tuple) else value


def test_every_setting_is_tried() -> None:
    """A new setting needs a line above."""
    assert EVERY.keys() == Settings.model_fields.keys()


NEED_TLS = {"tls_key_file", "tls_client_ca_file", "plain_listen"}
"""Settings that mean nothing without a certificate."""


NEEDED_BY_OIDC = {"oidc_issuer", "oidc_client_id", "hosts"}
"""Settings without which a sign-in provider cannot be used."""


NEEDED_BY_ALB = {"alb_arn", "alb_client_id", "alb_issuer", "trusted_proxies"}
"""Settings without which nothing of a load balancer is believed."""


@pytest.mark.parametrize("field", EVERY)
def test_every_setting_comes_from_its_variable(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """REGISTRY_ and the field's name; a pristine environment has the defaults."""
    text, value = EVERY[field]
    assert plain(getattr(load_settings(), field)) != value
    monkeypatch.setenv(f"REGISTRY_{field.upper()}", text)
    if field in NEED_TLS:
        monkeypatch.setenv("REGISTRY_TLS_CERT_FILE", "/tls/cert.pem")
    if field.startswith("oidc_"):
        for other in NEEDED_BY_OIDC - {field}:
            monkeypatch.setenv(f"REGISTRY_{other.upper()}", EVERY[other][0])
    if field.startswith("alb_"):
        for other in NEEDED_BY_ALB - {field}:
            monkeypatch.setenv(f"REGISTRY_{other.upper()}", EVERY[other][0])
    if field.startswith("xds_tls_"):
        monkeypatch.setenv("REGISTRY_XDS_LISTEN", EVERY["xds_listen"][0])
        monkeypatch.setenv("REGISTRY_XDS_TLS_CERT_FILE", EVERY["xds_tls_cert_file"][0])
    if field == "aws_regions":
        monkeypatch.setenv("REGISTRY_AWS_AUDIENCE", "headcount-production")
    assert plain(getattr(load_settings(), field)) == value


@pytest.mark.parametrize("field", sorted(NEED_TLS))
def test_settings_of_tls_need_a_certificate(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a listener that was meant to be closed would be open."""
    monkeypatch.setenv(f"REGISTRY_{field.upper()}", EVERY[field][0])
    with pytest.raises(BadSettingsError, match=f"^REGISTRY_{field.upper()} needs REGISTRY_TLS_CERT_FILE"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"listen": "off"}, "REGISTRY_LISTEN=off needs REGISTRY_XDS_LISTEN"),
        ({"xds_listen": "127.0.0.1:8080"}, "REGISTRY_XDS_LISTEN=127.0.0.1:8080 is taken by HTTP"),
        ({"xds_listen": "18000"}, "'18000' is no host:port"),
        ({"xds_tls_cert_file": "/a.pem"}, "REGISTRY_XDS_TLS_CERT_FILE needs REGISTRY_XDS_LISTEN"),
        ({"xds_listen": "[::1]:1", "xds_tls_key_file": "/k"}, "REGISTRY_XDS_TLS_KEY_FILE needs REGISTRY_XDS_TLS_CERT"),
        ({"xds_listen": "[::1]:1", "xds_tls_client_ca_file": "/c"}, "REGISTRY_XDS_TLS_CLIENT_CA_FILE needs"),
        (
            {"listen": "off", "xds_listen": "[::1]:1", "tls_cert_file": "/a.pem", "plain_listen": "[::1]:2"},
            "REGISTRY_PLAIN_LISTEN needs REGISTRY_LISTEN",
        ),
    ],
)
def test_listeners_that_cannot_be_are_refused(
    given: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process serves something, each address once, and nobody believes in TLS that is not there."""
    environ = {f"REGISTRY_{name.upper()}": value for name, value in given.items()}
    assert words in "\n".join(faults(monkeypatch, **environ))


def test_a_process_may_serve_streams_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its addresses say what is open to whom; streams have the certificate of HTTP unless they have their own."""
    monkeypatch.setenv("REGISTRY_LISTEN", "off")
    monkeypatch.setenv("REGISTRY_XDS_LISTEN", "0.0.0.0:18000")
    assert load_settings().addresses == {"0.0.0.0:18000": False}
    assert not load_settings().on_loopback
    monkeypatch.setenv("REGISTRY_TLS_CERT_FILE", "/tls/cert.pem")
    assert load_settings().addresses == {"0.0.0.0:18000": True}


@pytest.mark.parametrize("missing", sorted(NEEDED_BY_OIDC))
def test_a_sign_in_provider_is_set_as_a_whole(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else people would find out at the provider's page, or not at all."""
    for field in NEEDED_BY_OIDC - {missing}:
        monkeypatch.setenv(f"REGISTRY_{field.upper()}", EVERY[field][0])
    with pytest.raises(BadSettingsError, match=f"needs .*REGISTRY_{missing.upper()}"):
        load_settings()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("oidc_issuer", "http://login.example.com"),
        ("oidc_issuer", "https://user:pass@login.example.com"),
        ("oidc_issuer", "https://login.example.com?a=b"),
        ("oidc_issuer", "login.example.com"),
        ("oidc_redirect", "https://r.example.com/"),
        ("oidc_redirect", f"http://r.example.com{OIDC_CALLBACK}"),
    ],
)
def test_a_sign_in_provider_is_asked_by_tls_alone(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers for it decides who is who."""
    for other in NEEDED_BY_OIDC - {field}:
        monkeypatch.setenv(f"REGISTRY_{other.upper()}", EVERY[other][0])
    said = faults(monkeypatch, **{f"REGISTRY_{field.upper()}": text})
    assert "pass@" not in said[0]
    assert said[0].startswith(f"REGISTRY_{field.upper()}: ")


@pytest.mark.parametrize("missing", sorted(NEEDED_BY_ALB))
def test_a_load_balancer_is_set_as_a_whole(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else headers of strangers would be believed, or those of nobody."""
    for field in NEEDED_BY_ALB - {missing}:
        monkeypatch.setenv(f"REGISTRY_{field.upper()}", EVERY[field][0])
    with pytest.raises(BadSettingsError, match=f"needs .*REGISTRY_{missing.upper()}"):
        load_settings()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("alb_arn", ALB.replace("/app/", "/net/")),
        ("alb_arn", ALB.replace("eu-west-1", "eu-west-1.evil.example/")),
        ("alb_arn", ALB.replace("eu-west-1", "us-gov-west-1")),
        ("alb_arn", ALB.replace("arn:aws:", "arn:aws-cn:").replace("eu-west-1", "cn-north-1")),
        ("alb_arn", "headcount"),
        ("alb_keys_endpoint", "https://keys.example.com"),
        ("alb_keys_endpoint", "http://127.0.0.1:9/path"),
        ("alb_keys_endpoint", "http://127.0.0.1.evil.example"),
    ],
)
def test_keys_of_a_load_balancer_come_from_aws(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the keys decides who is who, so that another server may only be on this machine."""
    for other in NEEDED_BY_ALB - {field}:
        monkeypatch.setenv(f"REGISTRY_{other.upper()}", EVERY[other][0])
    assert faults(monkeypatch, **{f"REGISTRY_{field.upper()}": text})[0].startswith(f"REGISTRY_{field.upper()}: ")


def test_plain_http_has_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it counts where the registry is reachable from."""
    monkeypatch.setenv("REGISTRY_TLS_CERT_FILE", "/tls/cert.pem")
    monkeypatch.setenv("REGISTRY_PLAIN_LISTEN", "10.0.0.1:8080")
    assert not load_settings().on_loopback
    monkeypatch.setenv("REGISTRY_LISTEN", "10.0.0.1:8080")
    with pytest.raises(BadSettingsError, match=r"^REGISTRY_PLAIN_LISTEN=10.0.0.1:8080 is REGISTRY_LISTEN"):
        load_settings()


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("listen", "8080"),
        ("listen", ":8080"),
        ("listen", "*:8080"),
        ("listen", "::1:8080"),
        ("listen", "[::1:8080"),
        ("listen", ":::8080"),
        ("listen", "127.0.0.1:0"),
        ("listen", "127.0.0.1:65536"),
        ("workers", "0"),
        ("workers", "two"),
        ("worker_timeout", "4s"),
        ("migrate", "perhaps"),
        ("lease_ttl", "0.5s"),
        ("lease_ttl", "2d"),
        ("lease_ttl", "soon"),
        ("lease_ttl", "-5s"),
        ("sweep_interval", "0"),
        ("event_retention", "59s"),
        ("max_body", "1"),
        ("database_connections", "7"),
        ("auto_ip_networks", "10.0.0.0/33"),
        ("trusted_proxies", "proxy.example.com"),
        ("aws_audience", "two words"),
        ("aws_sts_endpoint", "sts.eu-west-1.amazonaws.com"),
        ("aws_sts_endpoint", "http://sts.eu-west-1.amazonaws.com"),
        ("aws_sts_endpoint", "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity"),
        ("aws_sts_endpoint", "https://sts.eu-west-1.amazonaws.com/path"),
        ("aws_sts_endpoint", "https://a:b@sts.eu-west-1.amazonaws.com"),
        ("aws_sts_endpoint", "https://sts.eu-west-1.amazonaws.com:99999"),
        ("aws_sts_endpoint", "https://[::1"),
        ("aws_regions", "eu-west-1"),
        ("aws_regions", "us-iso-east-1"),
        ("aws_regions", "*"),
        ("log_level", "INFO"),
        ("log_level", "info\n"),
    ],
)
def test_an_error_names_its_variable(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line without the value's neighbours, and without pydantic's links."""
    name = f"REGISTRY_{field.upper()}"
    (fault,) = faults(monkeypatch, **{name: text})
    assert fault.startswith(name)
    assert "pydantic.dev" not in fault


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run shows all that is wrong, misspelt names included."""
    messages = faults(monkeypatch, REGISTRY_WORKERS="0", REGISTRY_LEASE_TTL="x", REGISTRY_LEASE_TLL="5s")
    assert sorted(fault.partition(":")[0] for fault in messages) == [
        "REGISTRY_LEASE_TLL",
        "REGISTRY_LEASE_TTL",
        "REGISTRY_WORKERS",
    ]


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignored, it would look as if it worked; the nearest right name is a hint."""
    assert faults(monkeypatch, REGISTRY_LEASE_TLL="5s") == [
        "REGISTRY_LEASE_TLL: unknown variable; did you mean REGISTRY_LEASE_TTL?"
    ]


def test_a_variable_like_none_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the place where the right ones are listed."""
    (fault,) = faults(monkeypatch, REGISTRY_Q="1")
    assert fault.startswith("REGISTRY_Q: unknown variable; ")
    assert "docs/reference/settings.md" in fault


@pytest.mark.parametrize(
    "name",
    [
        "REGISTRY_TEST_DATABASE_URL",
        "REGISTRY_PORT",
        "REGISTRY_PORT_8080_TCP",
        "REGISTRY_PORT_8080_TCP_ADDR",
        "REGISTRY_SERVICE_HOST",
        "REGISTRY_SERVICE_PORT",
        "REGISTRY_SERVICE_PORT_HTTP",
        "REGISTRYCTL_URL",
        "registry_workers",
    ],
)
def test_variables_that_others_set_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test-suite's own, those that container links and Kubernetes inject, other programs', other case."""
    monkeypatch.setenv(name, "1")
    assert load_settings().workers == 1


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's password stands in no log and no error."""
    monkeypatch.setenv("REGISTRY_DATABASE_URL", "postgresql://u:hunter2@db/h")
    assert "hunter2" not in f"{load_settings()!r} {load_settings()} {load_settings().model_dump()}"
    assert "hunter2" not in "".join(faults(monkeypatch, REGISTRY_WORKERS="0"))


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:hunter2@db/h",
        "postgresql://u:hunter2@db:5432/h",
        "postgresql://u:p%2Fhunter2%40@db/h",
        "postgresql://u:hunter2@db-1:5432,db-2:5433,db-3/h?target_session_attrs=read-write",
        "postgresql://u:hunter2@[2001:db8::1]:5432,[2001:db8::2]/h?sslmode=verify-full",
        "postgresql://u@/h?host=/var/run/postgresql",
        "postgresql:///h?host=/tmp&port=5432",
        "postgresql://",
    ],
)
def test_whatever_libpq_reads_is_a_database(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several hosts, sockets and options among it: a cluster's URL names all of its members."""
    monkeypatch.setenv("REGISTRY_DATABASE_URL", url)
    setting = load_settings().database_url
    assert setting is not None
    assert setting.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:hunter2@db/h", "has to begin with postgresql://"),
        ("hunter2", "has to begin with postgresql://"),
        ("u:hunter2@db/h", "has to begin with postgresql://"),
        ("postgresql:/u:hunter2@db/h", "has to begin with postgresql://"),
        ("postgresql+asyncpg://u:hunter2@db/h", "has to begin with postgresql://"),
        ("host=db user=u password=hunter2", "has to begin with postgresql://"),
        ("postgresql://u:hunter2@db:99999999/h", "the port is no number"),
        ("postgresql://u:p?hunter2@db/h", "have to be percent-encoded"),
        ("postgresql://u:p/hunter2@db:5432/h", "have to be percent-encoded"),
        ("postgresql://u:hunter2@db:none/h", "the port is no number"),
        ("postgresql://u:hunter2@db-1:5432,db-2:none/h", "the port is no number"),
        ("postgresql://u:p/hunter2@db/h", "have to be percent-encoded"),
        ("postgresql://u:p#hunter2@db/h", "have to be percent-encoded"),
        ("postgresql://u:hunter2@[::1/h", "the port is no number"),
        ("postgresql://u@db/h?sslmode=hunter2", "sslmode is none of disable, allow,"),
        ("postgresql://u@db/h?target_session_attrs=hunter2", "target_session_attrs is none of any, primary,"),
    ],
)
def test_a_bad_database_is_named_without_any_of_it(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that looks like a port or a host may be a part of the password."""
    messages = "".join(faults(monkeypatch, REGISTRY_DATABASE_URL=url))
    assert messages.startswith("REGISTRY_DATABASE_URL: ")
    assert said in messages
    assert "hunter2" not in messages


def test_settings_do_not_change() -> None:
    """They are read once, at the start."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings().workers = 2  # type: ignore[misc]  # mypy knows it too


def test_every_setting_says_its_consequence() -> None:
    """The reference page is made of it."""
    assert all(field.description for field in Settings.model_fields.values())
