"""Flags over environment over files over what is detected."""

from pathlib import Path

import pytest

from registrar.checks.http import HttpOptions
from registrar.checks.tcp import TcpOptions
from registrar.commands.admin_address import DEFAULT
from registrar.config.configuration import flag, load_launch, load_settings
from registrar.config.conversion import render
from registrar.config.registrator import ignored_names
from registrar.config.settings import FLAGS, VARIABLES, LaunchSettings, OnSigterm, reference
from registrar.duration import Duration
from registrar.errors import ConfigurationError

MINIMAL = {
    "REGISTRAR_REGISTRY_URL": "http://10.0.0.2:8080/",
    "REGISTRAR_SERVICE": "shop",
    "REGISTRAR_ENDPOINT": ":8080",
}
TWO_SERVICES = """
registry_url: http://file:1, https://file:2/base/
zone: a
services:
  - service: shop
    endpoint: 127.0.0.1:8080
    metadata: {tier: web}
    checks:
      - {type: http, path: /healthz, interval: 1s, timeout: 500ms, expect_status: [200-204, 404]}
      - {type: tcp}
  - service: admin
    endpoint: ":9090"
    weight: 5
    canary: true
"""


def faults(environ: dict[str, str], flags: dict[str, str] | None = None) -> list[str]:
    """Return what is wrong with an environment."""
    with pytest.raises(ConfigurationError) as raised:
        load_settings(flags or {}, environ)
    return list(raised.value.faults)


def test_three_variables_are_enough() -> None:
    """Registry, service and endpoint configure a sidecar with a tcp check."""
    settings = load_settings({}, MINIMAL)
    (service,) = settings.services
    assert settings.registry_url.urls == ("http://10.0.0.2:8080",)
    assert (service.service, str(service.endpoint), service.checks) == ("shop", ":8080", (TcpOptions(),))


def test_a_path_makes_the_check_http() -> None:
    """REGISTRAR_CHECK_HTTP_PATH and REGISTRAR_CHECK_INTERVAL shape the one check."""
    extra = {"REGISTRAR_CHECK_HTTP_PATH": "/healthz", "REGISTRAR_CHECK_INTERVAL": "500ms"}
    (check,) = load_settings({}, MINIMAL | extra).services[0].checks
    assert isinstance(check, HttpOptions)
    assert (check.path, check.interval, check.probe_timeout) == ("/healthz", 0.5, 0.25)


def test_every_variable_of_one_service_is_read() -> None:
    """Text becomes the type of its setting."""
    settings = load_settings(
        {},
        MINIMAL
        | {
            "REGISTRAR_REVISION": "1.10",
            "REGISTRAR_CANARY": "true",
            "REGISTRAR_WEIGHT": "7",
            "REGISTRAR_INSTANCE_ID": "i-1",
            "REGISTRAR_REGION": "eu",
            "REGISTRAR_ZONE": "a",
            "REGISTRAR_DRAIN_WAIT": "1m30s",
            "REGISTRAR_ON_SIGTERM": "drain",
            "REGISTRAR_STOP_TIMEOUT": "100",
            "REGISTRAR_LOG_LEVEL": "debug",
        },
    )
    (service,) = settings.services
    assert (service.revision, service.canary, service.weight) == ("1.10", True, 7)
    assert (settings.instance_id, settings.region, settings.zone) == ("i-1", "eu", "a")
    assert (settings.drain_wait, settings.stop_timeout) == (Duration(90), Duration(100))
    assert (settings.on_sigterm, settings.log_level) == ("drain", "debug")


def test_on_sigterm_follows_the_place() -> None:
    """In an ECS task a stop drains, elsewhere it keeps; the setting wins over both."""
    ecs = {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x"}
    assert load_settings({}, MINIMAL).on_sigterm is OnSigterm.KEEP
    assert load_settings({}, MINIMAL | ecs).on_sigterm is OnSigterm.DRAIN
    chosen = MINIMAL | ecs | {"REGISTRAR_ON_SIGTERM": "keep"}
    assert load_settings({}, chosen).on_sigterm is OnSigterm.KEEP


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """Each layer replaces single settings of the one below."""
    file = tmp_path / "shop.yaml"
    file.write_text("registry_url: http://file:1\nregion: f\nzone: f\nservices: [{service: s, endpoint: ':1'}]")
    environ = {"REGISTRAR_CONFIG": str(file), "REGISTRAR_REGION": "e", "REGISTRAR_ENDPOINT": ":2"}
    settings = load_settings({"REGISTRAR_ENDPOINT": ":3"}, environ)
    assert (settings.zone, settings.region, str(settings.services[0].endpoint)) == ("f", "e", ":3")
    assert settings.services[0].service == "s"


def test_a_file_holds_several_services(tmp_path: Path) -> None:
    """Checks, metadata and statuses are YAML; durations are written like everywhere."""
    file = tmp_path / "all.yaml"
    file.write_text(TWO_SERVICES)
    settings = load_settings({"REGISTRAR_CONFIG": str(file)}, {})
    shop, admin = settings.services
    http, tcp = shop.checks
    assert settings.registry_url.urls == ("http://file:1", "https://file:2/base")
    assert isinstance(http, HttpOptions)
    assert [str(statuses) for statuses in http.expect_status] == ["200-204", "404-404"]
    assert (http.interval, http.timeout, tcp.interval) == (Duration(1), Duration(0.5), Duration(2))
    assert (shop.metadata, admin.weight, admin.canary) == ({"tier": "web"}, 5, True)


def test_a_directory_is_read_in_order_and_joined(tmp_path: Path) -> None:
    """Every *.yaml adds its services; other files are left alone."""
    (tmp_path / "b.yaml").write_text("services: [{service: b, endpoint: ':2'}]")
    (tmp_path / "a.yaml").write_text("registry_url: http://x\nservices: [{service: a, endpoint: ':1'}]")
    (tmp_path / "c.yaml.bak").write_text("nonsense: [")
    settings = load_settings({"REGISTRAR_CONFIG": str(tmp_path)}, {})
    assert [service.service for service in settings.services] == ["a", "b"]


def test_two_files_must_not_disagree(tmp_path: Path) -> None:
    """A setting of the process stands in one file; the error names both."""
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("zone: x")
    (fault,) = faults({"REGISTRAR_CONFIG": str(tmp_path)})
    assert fault == f"{tmp_path}/b.yaml: zone is set in {tmp_path}/a.yaml already; remove one of the two"


def test_variables_of_one_service_do_not_fit_several(tmp_path: Path) -> None:
    """A weight is refused where the files have two services."""
    file = tmp_path / "all.yaml"
    file.write_text(TWO_SERVICES)
    (fault,) = faults({"REGISTRAR_CONFIG": str(file), "REGISTRAR_WEIGHT": "2"})
    assert fault == "REGISTRAR_WEIGHT: sets a single service, but the files have 2; set it in the files"


def test_unknown_variables_name_the_nearest() -> None:
    """A typo is found at the start, with the right name beside it."""
    assert faults(MINIMAL | {"REGISTRAR_CHECK_HTTP_PAHT": "/"}) == [
        "REGISTRAR_CHECK_HTTP_PAHT: unknown variable; did you mean REGISTRAR_CHECK_HTTP_PATH?"
    ]


def test_a_secret_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    """The `_FILE` twin holds the path; what is in the file is sent, and shown nowhere."""
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    settings = load_settings({}, MINIMAL | {"REGISTRAR_TOKEN_FILE": str(file)})
    assert settings.token is not None
    assert settings.token.reveal() == "s3cret"
    assert "s3cret" not in render(settings) + repr(settings)
    assert load_settings({}, MINIMAL | {"REGISTRAR_TOKEN": "s3cret"}).token == settings.token


def test_a_secret_that_cannot_be_used_is_a_fault_without_its_text(tmp_path: Path) -> None:
    """A missing file, both twins, or a text that fits into no header."""
    file = tmp_path / "token"
    both = {"REGISTRAR_TOKEN": "s3cret", "REGISTRAR_TOKEN_FILE": str(file)}
    assert faults(MINIMAL | both) == ["REGISTRAR_TOKEN_FILE: REGISTRAR_TOKEN is set as well; set one of them"]
    (fault,) = faults(MINIMAL | {"REGISTRAR_TOKEN_FILE": str(file)})
    assert fault == f"REGISTRAR_TOKEN_FILE: {file}: No such file or directory"
    file.write_text("s3cret\nand more")
    (fault,) = faults(MINIMAL | {"REGISTRAR_TOKEN_FILE": str(file)})
    assert fault == f"REGISTRAR_TOKEN_FILE: {file}: expected one line of printable ASCII text"


def test_secrets_are_no_flags() -> None:
    """A command line can be read by everybody on the machine; the path of a file may."""
    assert "REGISTRAR_TOKEN" not in FLAGS
    assert "REGISTRAR_TOKEN_FILE" in FLAGS


def test_with_the_app_as_a_child_a_stop_drains_everywhere() -> None:
    """Under exec the app ends with the registrar; an explicit setting still wins."""
    assert load_settings({}, MINIMAL, with_app=True).on_sigterm is OnSigterm.DRAIN
    kept = MINIMAL | {"REGISTRAR_ON_SIGTERM": "keep"}
    assert load_settings({}, kept, with_app=True).on_sigterm is OnSigterm.KEEP


@pytest.mark.parametrize("text", ["127.0.0.1:9902", "[::1]:9902", "unix:/run/registrar/admin.sock", "off"])
def test_where_the_admin_interface_listens_is_shown_as_it_is_written(text: str) -> None:
    """Loopback, a unix socket or nowhere."""
    assert str(load_launch({}, {"REGISTRAR_ADMIN_LISTEN": text}).admin_listen) == text


@pytest.mark.parametrize("text", ["0.0.0.0:1", "10.0.0.5:9902", "localhost:9902", "unix:relative", "9902", "unix:"])
def test_the_admin_interface_is_for_this_machine_only(text: str) -> None:
    """Any other place is refused with the forms that there are."""
    with pytest.raises(ConfigurationError, match="REGISTRAR_ADMIN_LISTEN: "):
        load_launch({}, {"REGISTRAR_ADMIN_LISTEN": text})


def test_the_verbs_that_ask_know_the_same_default() -> None:
    """They do not read the settings, and must not look elsewhere."""
    assert str(LaunchSettings().admin_listen) == DEFAULT


REGISTRATOR = {"REGISTRAR_REGISTRY_URL": "http://r", "REGISTRAR_REGISTRATOR_NAMES": "true"}


def test_registrators_names_are_read_if_asked_for() -> None:
    """A name with a port is an endpoint, in order; what has no port holds for all without their own."""
    environ = {
        "SERVICE_9090_NAME": "admin",
        "SERVICE_9090_CHECK_HTTP": "/up",
        "SERVICE_8080_NAME": "shop",
        "SERVICE_7070_NAME": "hidden",
        "SERVICE_7070_IGNORE": "yes",
        "SERVICE_TAGS": "canary, stage=blue",
        "SERVICE_CHECK_HTTP": "/healthz",
        "SERVICE_CHECK_INTERVAL": "5s",
    }
    shop, admin = load_settings({}, REGISTRATOR | environ).services
    assert (shop.service, str(shop.endpoint), admin.service, str(admin.endpoint)) == ("shop", ":8080", "admin", ":9090")
    assert shop.metadata == {"canary": True, "stage": "blue"}
    paths = [check.path for check in (*shop.checks, *admin.checks) if isinstance(check, HttpOptions)]
    assert paths == ["/healthz", "/up"]
    assert shop.checks[0].interval == Duration(5)


def test_registrators_checks_keep_their_kind() -> None:
    """An https check stays one, with its method and times; a timeout alone has registrator's interval."""
    environ = REGISTRATOR | {
        "SERVICE_8080_NAME": "shop",
        "SERVICE_8080_CHECK_HTTPS": "/h",
        "SERVICE_8080_CHECK_HTTPS_METHOD": "head",
        "SERVICE_8080_CHECK_TIMEOUT": "3s",
        "SERVICE_9090_NAME": "admin",
        "SERVICE_9090_CHECK_TCP": "true",
        "SERVICE_9090_CHECK_INTERVAL": "7s",
    }
    shop, admin = load_settings({}, environ).services
    (https,), (tcp,) = shop.checks, admin.checks
    assert isinstance(https, HttpOptions)
    assert (https.path, https.method, https.tls is not None) == ("/h", "HEAD", True)
    assert (https.timeout, https.interval) == (Duration(3), Duration(10))
    assert (isinstance(tcp, TcpOptions), tcp.interval) == (True, Duration(7))


def test_registrators_names_that_are_not_read_are_told() -> None:
    """Each ignored variable is named once, with what to do instead."""
    read = {"SERVICE_NAME": "a", "SERVICE_8080_CHECK_HTTP": "/", "SERVICE_8080_IGNORE": "1", "OTHER_NAME": "x"}
    ignored = {
        "SERVICE_8080_CHECK_TTL": "30s",
        "SERVICE_CHECK_SCRIPT": "x",
        "SERVICE_8080_ID": "i",
        "SERVICE_OWNER": "me",
    }
    fixes = ignored_names(read | ignored | {"SERVICE_CHECK_CMD": ""})
    assert fixes.keys() == ignored.keys()
    assert "push check" in fixes["SERVICE_8080_CHECK_TTL"]
    assert "exec check" in fixes["SERVICE_CHECK_SCRIPT"]


def test_registrators_single_name_needs_an_endpoint_of_ours() -> None:
    """SERVICE_NAME names the service, and our variables win over registrator's."""
    environ = REGISTRATOR | {"SERVICE_NAME": "shop", "REGISTRAR_ENDPOINT": ":8080"}
    assert load_settings({}, environ).services[0].service == "shop"
    assert load_settings({}, environ | {"REGISTRAR_SERVICE": "ours"}).services[0].service == "ours"


def test_registrators_names_mean_nothing_unless_asked_for(tmp_path: Path) -> None:
    """They may be there for another program; and files and they are not mixed."""
    assert load_settings({}, MINIMAL | {"SERVICE_NAME": "other"}).services[0].service == "shop"
    file = tmp_path / "x.yaml"
    file.write_text("services: [{service: a, endpoint: ':1'}]")
    (fault,) = faults(REGISTRATOR | {"SERVICE_NAME": "b", "REGISTRAR_CONFIG": str(file)})
    assert fault.startswith("REGISTRAR_REGISTRATOR_NAMES: the files have services too")


def test_injected_variables_are_left_alone() -> None:
    """Container links and Kubernetes set variables of this prefix; they configure nothing."""
    injected = {
        "REGISTRAR_PORT": "tcp://172.17.0.3:80",
        "REGISTRAR_PORT_80_TCP_ADDR": "172.17.0.3",
        "REGISTRAR_SERVICE_HOST": "10.0.0.1",
        "REGISTRAR_SERVICE_PORT": "80",
    }
    assert load_settings({}, MINIMAL | injected) is not None


def test_empty_variables_are_unset() -> None:
    """Compose files pass on variables that are not there as empty ones."""
    assert load_settings({}, MINIMAL | {"REGISTRAR_WEIGHT": "", "REGISTRAR_CONTAINER": ""}) is not None


def test_every_fault_is_named_at_once() -> None:
    """One run shows all that is wrong, each with its variable or flag."""
    environ = MINIMAL | {"REGISTRAR_CANARY": "perhaps", "REGISTRAR_ENDPOINT": "8080", "REGISTRAR_ZOEN": "a"}
    messages = faults(environ, {"REGISTRAR_WEIGHT": "0"})
    assert [fault.partition(":")[0] for fault in sorted(messages)] == [
        "--weight",
        "REGISTRAR_CANARY",
        "REGISTRAR_ENDPOINT",
        "REGISTRAR_ZOEN",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("REGISTRAR_REGISTRY_URL", "tcp://172.17.0.3:8080"),
        ("REGISTRAR_REGISTRY_URL", "http://u:p@registry"),
        ("REGISTRAR_REGISTRY_URL", "http://registry:99999"),
        ("REGISTRAR_REGISTRY_URL", "http://registry/?a=b"),
        ("REGISTRAR_REGISTRY_URL", "http://münchen.example"),
        ("REGISTRAR_REGISTRY_URL", "http://two words:8080"),
        ("REGISTRAR_REGISTRY_URL", "http://registry/\x01"),
        ("REGISTRAR_REVISION", "half of \udcff"),
        ("REGISTRAR_SERVICE", "not a name"),
        ("REGISTRAR_CHECK_HTTP_PATH", "healthz"),
        ("REGISTRAR_CHECK_HTTP_PATH", "/a b"),
        ("REGISTRAR_CHECK_INTERVAL", "soon"),
        ("REGISTRAR_DRAIN_WAIT", "-1s"),
        ("REGISTRAR_ON_SIGTERM", "restart"),
        ("REGISTRAR_WEIGHT", "10001"),
        ("REGISTRAR_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, text: str) -> None:
    """The fault begins with the variable that has to change."""
    (fault,) = faults(MINIMAL | {name: text})
    assert fault.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("zoen: a", "zoen: unknown key; did you mean zone?"),
        ("services: [{service: a, endpoint: ':1', wieght: 1}]", "services[0].wieght: unknown key"),
        (
            "services: [{service: a, endpoint: ':1', checks: [{type: http, path: /, pth: /}]}]",
            "services[0].checks[0].pth: unknown key; did you mean path?",
        ),
        ("services: [{service: a, endpoint: ':1', checks: [{type: grcp}]}]", "services[0].checks[0].type: "),
        ("services: [{service: a, endpoint: ':1', checks: []}]", "services[0].checks: "),
        ("services: [{service: a, endpoint: ':1', weight: heavy}]", "services[0].weight: "),
        ("services: [{service: a}]", "services[0]: lacks the field `endpoint`"),
        (
            "services: [{service: a, endpoint: 80}]",
            "services[0].endpoint: 80 is no endpoint; write :80, or like 10.0.0.5:8080",
        ),
        ("services: [{service: a, endpoint: ':1', metadata: {a: .inf}}]", "services[0]: metadata.a"),
        (
            "services: [{service: a, endpoint: ':1', checks: [{type: tcp, timeout: 5s}]}]",
            "services[0].checks[0]: ",
        ),
        (
            'services: [{service: a, endpoint: ":1", metadata: {a: "\\ud800"}}]',
            "services[0].metadata: expected UTF-8 text",
        ),
        ("services: 5", "services: "),
        ("- a", "expected settings"),
        ("a: [", "invalid YAML: "),
        ("stop_timeout: 3s", "stop_timeout 3s must be longer"),
    ],
)
def test_a_fault_in_a_file_names_file_and_key(tmp_path: Path, text: str, fault: str) -> None:
    """The message begins with the file and the path of the key."""
    file = tmp_path / "x.yaml"
    file.write_text(text)
    (message,) = faults({"REGISTRAR_CONFIG": str(file)})
    assert message.startswith(f"{file}: {fault}")


def test_every_fault_of_files_is_named_at_once(tmp_path: Path) -> None:
    """Each key of each file, unknown ones and variables too: one run shows all."""
    (tmp_path / "a.yaml").write_text(
        "zoen: a\n"
        "services:\n"
        "- {service: _shop, endpoint: ':99999', weight: 0}\n"
        "- {service: ok, endpoint: ':1', checks: [{type: http}, {type: tcp, interval: soon, port: 0}, {type: x}]}\n"
    )
    (tmp_path / "b.yml").write_text("drain_wait: never\nservices: [{service: b, endpoint: ':2', canary: perhaps}]\n")
    messages = faults({"REGISTRAR_CONFIG": str(tmp_path), "REGISTRAR_WEIGHT": "0"})
    places = [fault.removeprefix(f"{tmp_path}/").partition(": ")[::2] for fault in messages]
    assert [(file, rest.partition(": ")[0]) if "." in file else (file,) for file, rest in places] == [
        ("REGISTRAR_WEIGHT",),
        ("a.yaml", "zoen"),
        ("a.yaml", "services[0].service"),
        ("a.yaml", "services[0].endpoint"),
        ("a.yaml", "services[0].weight"),
        ("a.yaml", "services[1].checks[0]"),
        ("a.yaml", "services[1].checks[1].interval"),
        ("a.yaml", "services[1].checks[1].port"),
        ("a.yaml", "services[1].checks[2].type"),
        ("b.yml", "drain_wait"),
        ("b.yml", "services[0].canary"),
    ]


def test_files_may_end_in_yml(tmp_path: Path) -> None:
    """Files with both endings are read in the order of their names; a repeated endpoint is an error."""
    (tmp_path / "a.yml").write_text("services: [{service: a, endpoint: ':1'}]")
    (tmp_path / "b.yaml").write_text("services: [{service: b, endpoint: ':2'}]")
    (tmp_path / "c.yaml~").write_text("no settings at all")
    environ = {"REGISTRAR_CONFIG": str(tmp_path), "REGISTRAR_REGISTRY_URL": "http://r"}
    assert [service.service for service in load_settings({}, environ).services] == ["a", "b"]
    (tmp_path / "a.yaml").write_text("services: [{service: a, endpoint: ':1'}]")
    (fault,) = faults(environ)
    assert fault == "service a with endpoint :1 is configured twice; remove one of the two"


def test_missing_files_are_faults(tmp_path: Path) -> None:
    """A path that leads nowhere, and a directory without settings, are not silently empty."""
    (missing,) = faults({"REGISTRAR_CONFIG": str(tmp_path / "nope.yaml")})
    (empty,) = faults({"REGISTRAR_CONFIG": str(tmp_path)})
    assert "No such file" in missing
    assert "no *.yaml" in empty


def test_nothing_configured_says_what_is_needed() -> None:
    """An empty environment names the variables to set."""
    assert [fault.partition(":")[0] for fault in faults({})] == ["REGISTRAR_REGISTRY_URL", "no service"]
    environ = {key: value for key, value in MINIMAL.items() if key != "REGISTRAR_ENDPOINT"}
    assert faults(environ) == ["REGISTRAR_ENDPOINT: not set"]


def test_an_endpoint_is_configured_once(tmp_path: Path) -> None:
    """Two entries for the same endpoint would take it from each other."""
    file = tmp_path / "x.yaml"
    file.write_text("registry_url: http://x\nservices: [{service: a, endpoint: ':1'}, {service: a, endpoint: ':1'}]")
    assert faults({"REGISTRAR_CONFIG": str(file)}) == [
        "service a with endpoint :1 is configured twice; remove one of the two"
    ]


def test_what_is_shown_can_be_read_back(tmp_path: Path) -> None:
    """The effective settings are in the notation of the files."""
    file = tmp_path / "all.yaml"
    file.write_text(TWO_SERVICES)
    shown = render(load_settings({"REGISTRAR_CONFIG": str(file)}, {}))
    file.write_text(shown)
    assert render(load_settings({"REGISTRAR_CONFIG": str(file)}, {})) == shown


def test_the_reference_describes_every_variable() -> None:
    """Name, type and description are there for each, and a default where there is one."""
    lines = {line.name: line for line in reference()}
    assert lines.keys() == VARIABLES.keys()
    assert all(line.type and line.description for line in lines.values())
    assert lines["REGISTRAR_CHECK_INTERVAL"].default == "2s"
    assert lines["REGISTRAR_ON_SIGTERM"].type == "drain | keep"
    assert flag("REGISTRAR_CHECK_HTTP_PATH") == "--check-http-path"


def test_faults_are_sentences() -> None:
    """They say what a value has to be, not the type and the pattern that the decoder compares it with."""
    text = "\n".join(
        faults(MINIMAL | {"REGISTRAR_SERVICE": "a b", "REGISTRAR_WEIGHT": "0", "REGISTRAR_CANARY": "maybe"})
    )
    assert "REGISTRAR_SERVICE: has to be letters, digits and" in text
    assert "REGISTRAR_WEIGHT: has to be at least 1" in text
    assert "REGISTRAR_CANARY: has to be true or false" in text
    assert "Expected" not in text
