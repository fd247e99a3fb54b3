"""The documentation against the code: what there is, is documented; what is documented, there is, and works."""

import argparse
import contextlib
import http.server
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import httpx
import jsonschema  # type: ignore[import-untyped]  # published without types
import pytest
import typer
import yaml
from fastapi.routing import APIRoute
from harness.envoy import Envoy, binary
from harness.process import eventually, free_port, running, script
from harness.registry import Registry, registry
from prometheus_client.metrics import MetricWrapperBase
from starlette.routing import BaseRoute, Route

from meshconfig.repository import read
from registrar.admin.metrics_text import METRICS
from registrar.cli import main as registrar
from registrar.command_line import VERBS as REGISTRAR_VERBS
from registrar.config.configuration import flag
from registrar.config.schema import schema
from registrar.config.settings import FLAGS, VARIABLES
from registry import metrics
from registry.app import build_app, describe
from registry.background.traffic_metrics import FAMILIES
from registry.cli import main as registry_command
from registry.core.event import EventKind
from registry.core.mesh import MeshEventKind
from registry.core.verdict.catalogue import CATEGORIES
from registry.settings import Settings
from registryctl.cli import main as registryctl
from registryctl.command import SHARED
from registryctl.doctor.catalogue import CHECKS
from registryctl.errors import NEGATIVE, CtlError
from registryctl.settings import VARIABLES as OPERATOR_VARIABLES

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
# What users copy: settings stand in them, too.
DEPLOYED = sorted(
    path
    for path in [*ROOT.glob("deploy/**/*"), ROOT / "docker-compose.yml", ROOT / "Dockerfile"]
    if path.is_file() and path.suffix in {"", ".json", ".py", ".service", ".yaml", ".yml"}
)
MESH = ROOT / "docs" / "mesh.md"
README, QUICKSTART = ROOT / "README.md", ROOT / "docs" / "quickstart.md"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page that are marked as one of these languages."""
    return [match["text"] for match in _FENCE.finditer(page.read_text()) if match["language"] in languages]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def section(page: Path, heading: str) -> str:
    """Return the part of a page under one heading."""
    text = re.split(rf"^#+ {re.escape(heading)}$", prose(page), maxsplit=1, flags=re.MULTILINE)[1]
    return re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]


def rows(page: Path, *, under: str = "") -> list[list[str]]:
    """Return the cells of every table row of a page, or of the part under one heading, without the heads."""
    text = section(page, under) if under else prose(page)
    tables = re.findall(r"^\|.*\|\n\|[ |:-]+\|\n((?:\|.*\|\n)*)", text, re.MULTILINE)
    lines = [line for table in tables for line in table.splitlines()]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def relative(page: Path) -> str:
    """Return a page's name for a test's id."""
    return str(page.relative_to(ROOT))


def differences(documented: Iterable[object], there: Iterable[object]) -> dict[str, list[object]]:
    """Return what a page lacks and what it has too much of; empty when it is right."""
    documented, there = set(documented), set(there)
    differing = {"missing": sorted(there - documented, key=str), "of nothing": sorted(documented - there, key=str)}
    return {name: items for name, items in differing.items() if items}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("generate", REFERENCE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=relative)
def test_generated_tables_are_what_the_code_says(generator: ModuleType, page: Path) -> None:
    """`make docs` would change nothing: every setting stands there as the code has it."""
    assert page.read_text() == generator.written(page.read_text()), "run `make docs` and commit it"


def test_no_generated_table_was_taken_out_of_its_page(generator: ModuleType) -> None:
    """Each table that can be generated is asked for by one marker."""
    asked = [
        name
        for page in REFERENCE.glob("*.md")
        for name in re.findall(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", page.read_text(), re.DOTALL)
    ]
    assert sorted(asked) == sorted(generator.SECTIONS)


def test_every_setting_is_documented() -> None:
    """The page of settings has a row for each variable of all programs, and for no other."""
    documented = {cells[0].strip("`") for cells in rows(REFERENCE / "settings.md")}
    there = {f"REGISTRY_{name.upper()}" for name in Settings.model_fields} | set(VARIABLES)
    there |= {variable.name for variable in OPERATOR_VARIABLES}
    assert differences((name for name in documented if name.isupper()), there) == {}


@pytest.mark.parametrize("page", [*PAGES, *DEPLOYED], ids=relative)
def test_variables_that_pages_and_examples_name_exist(page: Path) -> None:
    """No page and no file that users copy names a variable that the programs would refuse."""
    # The last is one that containers inject: the page of settings says so.
    known = {f"REGISTRY_{name.upper()}" for name in Settings.model_fields} | set(VARIABLES)
    known |= {"REGISTRY_TEST_DATABASE_URL", "REGISTRY_PORT"} | {variable.name for variable in OPERATOR_VARIABLES}
    named = set(re.findall(r"\b(?:REGISTRY|REGISTRAR|REGISTRYCTL)_[A-Z][A-Z_]*[A-Z]\b", page.read_text()))
    assert named - known == set()


def test_the_example_of_a_file_is_valid(tmp_path: Path) -> None:
    """`registrar validate` accepts the file of the settings page, and finds two services in it."""
    (example,) = blocks(REFERENCE / "settings.md", "yaml")
    path = tmp_path / "registrar.yaml"
    path.write_text(example)
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")}
    done = subprocess.run(
        [*script("registrar"), "validate", "--config", str(path)], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [service["service"] for service in json.loads(done.stdout)["services"]] == ["shop", "shop-admin"]


def collectors() -> set[tuple[str, str, str]]:
    """Return the name, type and labels of each metric, as the page writes them."""
    metrics_there = set()
    for collector in vars(metrics).values():
        if isinstance(collector, MetricWrapperBase):
            (metric,) = collector.describe()
            suffix = "_total" if metric.type == "counter" else ""
            labels = ", ".join(f"`{label}`" for label in collector._labelnames)
            metrics_there.add((f"`{metric.name}{suffix}`", metric.type, labels))
        elif isinstance(collector, metrics.ServiceGauge):
            metrics_there.update((f"`{metric.name}`", metric.type, "`service`") for metric in collector.collect())
    for family in (*METRICS, *FAMILIES):
        metrics_there.add((f"`{family.name}`", family.type, ", ".join(f"`{label}`" for label in family.labels)))
    return metrics_there


def test_every_metric_is_documented() -> None:
    """The page of metrics has each metric with its type and labels, what it counts, and what to do when it moves."""
    documented = rows(REFERENCE / "metrics.md")
    assert differences((tuple(cells[:3]) for cells in documented), collectors()) == {}
    assert [cells[0] for cells in documented if len(cells) != 5 or not all(cells[3:])] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_metrics_that_pages_name_exist(page: Path) -> None:
    """A name in code style that looks like a metric of ours is one."""
    named = {f"`{name}`" for name in re.findall(r"`((?:registry|registrar|headcount_traffic)_[a-z_]+)`", prose(page))}
    # A table of the database and keys of the registrar's file are no metrics.
    keys = {f"`{field}`" for _, field in VARIABLES.values()}
    assert named - {name for name, _, _ in collectors()} <= {"`registry_state`"} | keys


def served(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    """Yield every route, those of included routers too."""
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:
            included = getattr(route, "original_router", None)
            yield from served(included.routes if included is not None else ())


def operations() -> set[tuple[str, str]]:
    """Return each route and its operationId; a second spelling with a trailing slash, and HEAD, are no routes."""
    there = set()
    for route in served(build_app().routes):
        if route.methods != {"HEAD"} and (route.path == "/" or not route.path.endswith("/")):
            name = route.operation_id if isinstance(route, APIRoute) else route.name
            # Of several methods the page has the first row; its text names the others.
            method = "GET" if "GET" in (route.methods or ()) else min(route.methods or ("",))
            there.add((f"`{method} {route.path}`", f"`{name}`"))
    return there


def routes_documented() -> list[list[str]]:
    """Return the rows of the API page that are about a route."""
    return [cells for cells in rows(REFERENCE / "api.md") if re.match(r"`[A-Z]+ /", cells[0])]


def test_every_route_is_documented() -> None:
    """The page of the API has each route with its operationId, and no other."""
    assert len(operations()) > 25
    assert differences(((cells[0], cells[1]) for cells in routes_documented()), operations()) == {}


def test_documented_statuses_are_those_of_openapi() -> None:
    """Each route's row has the statuses that openapi.yaml promises; 421, which every route may answer, is left out."""
    paths = describe(build_app())["paths"]
    wrong = {}
    for route, _, statuses, *_ in routes_documented():
        method, path = route.strip("`").split(" ")
        operation = paths.get(path, {}).get(method.lower())
        if operation is not None and statuses.split() != (
            promised := sorted(operation["responses"].keys() - {"421"}, key=lambda status: (status[0] != "2", status))
        ):
            wrong[route] = " ".join(promised)
    assert wrong == {}


def test_every_kind_of_event_is_documented() -> None:
    """The page of the API explains each kind of event that can be written, and no other."""
    documented = (cells[0].strip("`") for cells in rows(REFERENCE / "api.md", under="Events"))
    assert differences(documented, (*get_args(EventKind), *get_args(MeshEventKind))) == {}


def documented_options(heading: str) -> set[str]:
    """Return the options in the first column of a section's tables, exit statuses left out."""
    cells = (row[0] for row in rows(REFERENCE / "commands.md", under=heading))
    return {name.strip("` ") for cell in cells if not cell[0].isdigit() for name in cell.split(",")}


def registry_options() -> dict[str, set[str]]:
    """Return the options of each verb of `registry`, and under its own name those before a verb."""
    group: Any = typer.main.get_command(registry_command)
    verbs = {"`registry`": _options(group)}
    return verbs | {f"`registry {name}`": _options(verb) - {"--help"} for name, verb in _leaves(group)}


def _leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the verbs of a group, those of its groups too, by their whole names; what only programs call is hidden."""
    for name, verb in group.commands.items():
        if verb.hidden:
            continue
        if hasattr(verb, "commands"):
            yield from _leaves(verb, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", verb


def _options(command: Any) -> set[str]:
    return {name for option in command.params for name in option.opts} | {"--help"}


def operator_verbs() -> dict[str, Any]:
    """Return the verbs of `registryctl`, by their headings."""
    group: Any = typer.main.get_command(registryctl)
    return {f"`registryctl {name}`": verb for name, verb in _leaves(group)}


def _flags(params: Iterable[Any]) -> set[str]:
    options = [option for option in params if option.param_type_name == "option"]
    return {name for option in options for name in [*option.opts, *option.secondary_opts]}


def test_every_verb_of_registryctl_is_documented_with_its_options() -> None:
    """Each verb has a section with its own options; what all verbs have stands once, before them."""
    group: Any = typer.main.get_command(registryctl)
    shared = {name for verb in operator_verbs().values() for name in _flags(_of_all(verb))}
    documented = documented_options("`registryctl`")
    assert differences(documented, shared | _flags(group.params) | {"--help", "-h"}) == {}
    for heading, verb in operator_verbs().items():
        assert differences(documented_options(heading), _flags(verb.params) - shared) == {}, heading


def _of_all(verb: Any) -> list[Any]:
    return [option for option in verb.params if option.name in SHARED]


def test_the_exit_statuses_of_registryctl_are_documented() -> None:
    """The page has each status that an error has, and those of a negative answer and of an interruption."""
    documented = {cells[0] for cells in rows(REFERENCE / "commands.md", under="`registryctl`") if cells[0].isdigit()}
    kinds = CtlError.__subclasses__()
    assert documented == {"0", str(NEGATIVE), *(str(kind.status) for kind in kinds), "130"}


def test_every_check_is_explained() -> None:
    """The page of checks has a section for each check that `registryctl check` makes, and for no other."""
    page = ROOT / "docs" / "checks.md"
    checks = {*CHECKS, *(rule.id for rules in CATEGORIES.values() for rule in rules)}
    assert differences(re.findall(r"^### (.+)$", prose(page), re.MULTILINE), checks) == {}
    for name in checks:
        text = section(page, name)
        assert all(word in text for word in ("**Asked:**", "**Matters:**", "**Do:**")), name


def test_every_verb_of_registry_is_documented_with_its_options() -> None:
    """Each verb has a section, whose tables have its options; `registry` itself has its own."""
    for heading, options in registry_options().items():
        assert differences(documented_options(heading), options) == {}, heading


@pytest.mark.parametrize("verb", REGISTRAR_VERBS)
def test_every_verb_of_registrar_is_documented_with_its_options(verb: str) -> None:
    """A verb's section has its options in its table, or says that they are those of `registrar run`."""
    assert documented_options("`registrar`") == {"--version", "--help", "-h"}
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"registrar.commands.{verb.replace('-', '_')}").add_arguments(parser)
    options = {name for action in parser._actions for name in action.option_strings}
    text = " ".join(section(REFERENCE / "commands.md", f"`registrar {verb}`").split())
    same = "same flags as `registrar run`" in text
    documented = documented_options(f"`registrar {verb}`")
    if same:
        # A table of such a verb has what it takes besides; one of exit statuses may name options of others.
        documented = set(map(flag, FLAGS)) | (documented & options)
    assert differences(documented, options) == {}


def test_the_schema_of_the_file_is_committed() -> None:
    """`make docs` would write the same schema, it is one, and the example of the settings page meets it."""
    committed = json.loads((REFERENCE / "registrar.schema.json").read_text())
    assert committed == schema(), "run `make docs` and commit it"
    jsonschema.Draft202012Validator.check_schema(committed)
    for example in blocks(REFERENCE / "settings.md", "yaml"):
        jsonschema.validate(yaml.safe_load(example), committed)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"zoen": "a"}, committed)


def test_no_verb_is_documented_that_there_is_not() -> None:
    """The headings of the page of commands are the programs and their verbs."""
    headings = re.findall(r"^#+ (`.+`)$", (REFERENCE / "commands.md").read_text(), re.MULTILINE)
    there = [*registry_options(), "`registrar`", *(f"`registrar {verb}`" for verb in REGISTRAR_VERBS)]
    there += ["`registryctl`", *operator_verbs()]
    assert differences(headings, there) == {}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_commands_that_pages_name_exist(page: Path) -> None:
    """No page tells to run a verb or a make target that there is not."""
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    verbs = {heading.strip("`") for heading in registry_options()} | {f"registrar {verb}" for verb in REGISTRAR_VERBS}
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    verbs |= {heading.strip("`") for heading in operator_verbs()}
    programs = "registry|registrar|registryctl"
    named = {f"{program} {verb}" for program, verb in re.findall(rf"`({programs}) ([a-z][a-z-]*)\b[^`]*`", text)}
    # Of a group of verbs, like `registry token create`, the name of the group is enough.
    assert named <= verbs | {" ".join(verb.split()[:2]) for verb in verbs}


def test_programs_that_pages_name_are_installed() -> None:
    """The page of commands has a section for each console script."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    headings = re.findall(r"^## `(\w+)`$", (REFERENCE / "commands.md").read_text(), re.MULTILINE)
    assert headings == list(scripts)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["validate", "--endpoint", "nowhere"], 2), (["validate", "--registry-url", "http://r", "--weight", "0"], 2)],
)
def test_a_wrong_setting_of_the_registrar_is_exit_status_2(arguments: list[str], status: int) -> None:
    """The page of commands promises 2 for what cannot be used."""
    assert registrar(arguments) == status


ARCHITECTURE = ROOT / "docs" / "architecture.md"
# The packages that have a map of their parts there, with the heading of the map.
MAPS = {"registry": "Map of the registry", "registrar": "Map of the registrar"}


def chapter(page: Path, heading: str) -> str:
    """Return the part of a page under one heading of the second level, with its subsections."""
    text = re.split(rf"^## {re.escape(heading)}$", prose(page), maxsplit=1, flags=re.MULTILINE)[1]
    return re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]


CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def recipe_steps() -> list[str]:
    """Return the steps of every recipe, and the paragraphs of those without steps, that name a file."""
    recipes = chapter(CONTRIBUTING, "Recipes")
    parts = re.split(r"\n\n|\n(?=\d\. )|^### .*$", recipes, flags=re.MULTILINE)
    return [" ".join(part.split()) for part in parts if re.search(r"`(src|tests)/", part)]


def test_files_that_contributing_names_exist() -> None:
    """A file or folder in code style is one of the repository."""
    named = re.findall(r"`((?:src|tests|docs|deploy|migrations)/[\w/.-]+)`", prose(CONTRIBUTING))
    assert len(named) > 25
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("step", recipe_steps(), ids=lambda step: step[:40])
def test_names_in_a_recipe_are_in_its_files(step: str) -> None:
    """What a step tells to look for (`TYPES`, `Policy.allow`) is in one of the files that the step names."""
    words = re.findall(r"`([^`]+)`", step)
    paths = [ROOT / word for word in words if (ROOT / word).exists()]
    sources = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))]
    text = "\n".join(file.read_text() for file in sources)
    names = {name for word in words if re.fullmatch(r"\w+(\.\w+)*(\(\))?", word) for name in re.findall(r"\w+", word)}
    # Variables are looked for by a test of their own.
    sought = (name for name in names if not name.startswith("REGISTRY_"))
    assert sorted(name for name in sought if not re.search(rf"\b{name}\b", text)) == []


@pytest.mark.parametrize("package", MAPS)
def test_the_map_has_every_part_of_the_package(package: str) -> None:
    """The map has each package (`name/`) and module (`name`) at the root of a program, and no other."""
    cells = [cells[0] for cells in rows(ARCHITECTURE, under=MAPS[package])]
    mapped = [name for cell in cells for name in re.findall(r"`([a-z0-9_]+/?)`", cell)]
    root = ROOT / "src" / package
    there = [f"{path.name}/" for path in root.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    there += [path.stem for path in root.glob("*.py") if path.stem != "__init__"]
    assert differences(mapped, there) == {}
    assert len(mapped) == len(set(mapped))


@pytest.mark.parametrize("package", MAPS)
def test_modules_that_the_map_names_exist(package: str) -> None:
    """Each `package/module` of the map and of the paths under it is a file."""
    named = set(re.findall(r"`([a-z0-9_]+(?:/[a-z0-9_]+)+)`", chapter(ARCHITECTURE, MAPS[package])))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / "src" / package / f"{name}.py").is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_resolve(page: Path) -> None:
    """A relative link leads to a file of the repository, and its fragment to a heading of that file."""
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked() -> None:
    """A reader gets to each page of docs/ by a link of another one."""
    targets = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in _LINK.findall(prose(page))
        if not link.startswith("#") and (page.parent / link.partition("#")[0]).resolve() != page
    }
    assert [relative(page) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in targets] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """The lists of docs/index.md have each page of the site once, and no other."""
    home = ROOT / "docs" / "index.md"
    lists = re.findall(r"^```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)^```$", home.read_text(), re.MULTILINE | re.DOTALL)
    entries = [re.sub(r"^.*<(.+)>$", r"\1", line) for text in lists for line in text.splitlines()]
    listed = [
        (ROOT / f"{entry[1:]}.md") if entry.startswith("/") else (home.parent / f"{entry}.md") for entry in entries
    ]
    # The first page of a code host is not one of the site's: docs/index.md is in its place.
    pages = [*PAGES, *ROOT.glob("benchmarks/*.md")]
    assert differences(listed, {*pages} - {home, README}) == {}
    assert len(listed) == len(set(listed))


def anchors(page: Path) -> set[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_json_and_yaml_blocks_parse(page: Path) -> None:
    """A block that says it is JSON or YAML is."""
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block)


def test_the_definitions_of_the_mesh_page_are_valid() -> None:
    """Its blocks that begin with the name of a file are one repository, with a warning for the split alone."""
    named = [re.match(r"# (\S+\.yaml)\n", block) for block in blocks(MESH, "yaml")]
    files = {name[1]: block for name, block in zip(named, blocks(MESH, "yaml"), strict=True) if name}
    configuration, faults = read(files)
    assert [str(fault) for fault in faults if "split" not in fault.message] == []
    assert configuration is not None
    assert {*configuration.callers} >= {"web", "shop"}


def commands(block: str) -> list[list[str]]:
    """Split a block of shell into its commands' words, and a command into its pipe's first part."""
    joined = block.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def curls(page: Path, *, of_envoy: bool = False) -> list[str]:
    """Return the blocks that consist of curl and ask the registry, or Envoy."""
    asking = [block for block in blocks(page, "sh") if all(words[0] == "curl" for words in commands(block))]
    return [block for block in asking if bool(re.search(r":(9901|10000)\b", block)) == of_envoy]


def run_curls(block: str, ports: dict[str, int]) -> str:
    """Run a block of curl commands as it stands, but for the ports; return what the last one printed."""
    said = ""
    for words in commands(block):
        command = [re.sub(r"(?<=//127\.0\.0\.1:)\d+", lambda port: str(ports[port[0]]), word) for word in words]
        # -g is not on the page, but brackets are no globs in what it asks.
        options = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "20", "--globoff"]
        done = subprocess.run([command[0], *options, *command[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        said = done.stdout
    return said


def shape(value: object) -> object:
    """Return what a JSON document looks like, without its values."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


@pytest.mark.parametrize("page", [README, QUICKSTART], ids=relative)
def test_curl_examples_work(database: str, workplace: Path, page: Path) -> None:
    """Every curl of the page succeeds, in the order of the page, and answers in the form that the page shows."""
    text = page.read_text()
    examples = curls(page)
    assert examples
    with registry(database, workplace) as served:
        for block in examples:
            said = run_curls(block, {"8080": served.port})
            shown = re.match(r"```\n\n```json\n(.*?)```", text[text.index(block) + len(block) :], re.DOTALL)
            if shown is not None:
                assert shape(json.loads(said)) == shape(json.loads(shown[1])), said


def test_the_bodies_of_curl_examples_are_json() -> None:
    """What the pages send with -d is JSON, on every page."""
    bodies = [
        words[index + 1]
        for page in PAGES
        for block in blocks(page, "sh")
        for words in commands(block)
        for index, word in enumerate(words)
        if words[0] == "curl" and word == "-d"
    ]
    assert len(bodies) >= 3
    assert all(isinstance(json.loads(body), dict) for body in bodies)


class _App(http.server.BaseHTTPRequestHandler):
    """An app that is well on every path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def app() -> Iterator[int]:
    """The port of a small app."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _App) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


@pytest.mark.parametrize("page", [README, QUICKSTART], ids=relative)
def test_the_registrar_of_the_page_registers_its_app(database: str, workplace: Path, app: int, page: Path) -> None:
    """The page's `registrar run`, with the variables that it sets, brings an app into the registry as HEALTHY."""
    (words,) = [
        words
        for block in blocks(page, "sh")
        for words in commands(block)
        if any(Path(word).name == "registrar" for word in words)
    ]
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    assert [Path(word).name for word in words[len(variables) :]] == ["registrar", "run"]
    service, endpoint = variables["REGISTRAR_SERVICE"], f"127.0.0.1:{app}"
    assert variables["REGISTRAR_ENDPOINT"] == "127.0.0.1:8000"
    with registry(database, workplace) as served:
        assert variables["REGISTRAR_REGISTRY_URL"] == "http://127.0.0.1:8080"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")}
        changed = {"REGISTRAR_REGISTRY_URL": served.url, "REGISTRAR_ENDPOINT": endpoint}
        log = workplace / f"registrar-{app}.log"
        with running([*script("registrar"), "run"], env=inherited | variables | changed, log=log):
            eventually(partial(_is_healthy, served, service, endpoint), within=10, said=log.read_text)


def _is_healthy(served: Registry, service: str, endpoint: str) -> bool:
    return served.statuses(service) == {endpoint: "HEALTHY"}


def bootstrap_of(page: Path) -> str:
    """Return the Envoy configuration of a page: its only YAML block with static resources."""
    (text,) = [block for block in blocks(page, "yaml") if "static_resources" in block]
    return text


@contextlib.contextmanager
def envoy_of(page: Path, ports: dict[str, int], directory: Path) -> Iterator[Envoy]:
    """Run an Envoy with the page's configuration and token directory as they stand, but for the ports."""
    (prepare,) = [block for block in blocks(page, "sh") if "mkdir -p envoy-token" in block]
    subprocess.run(["/bin/sh", "-ec", prepare], cwd=directory, check=True)
    config = re.sub(r"(?<=port_value: )\d+", lambda port: str(ports[port[0]]), bootstrap_of(page))
    path = directory / f"{page.stem}.yaml"
    path.write_text(config)
    log = directory / f"{page.stem}-envoy.log"
    command = [binary(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with (
        running(command, log=log, folder=directory) as process,
        contextlib.closing(Envoy(ports["9901"], ports["10000"], log)) as started,
    ):
        eventually(lambda: process.poll() is not None or started.live(), within=30, said=log.read_text)
        assert process.poll() is None, log.read_text()[-2000:]
        yield started


@pytest.mark.envoy
def test_the_bootstrap_of_the_quickstart_works(database: str, tmp_path: Path, app: int) -> None:
    """Envoy starts with it, takes every answer, follows a drain, and its listener leads to the app."""
    (cluster,) = [
        cluster
        for cluster in yaml.safe_load(bootstrap_of(QUICKSTART))["static_resources"]["clusters"]
        if _is_eds(cluster)
    ]
    name, endpoint = cluster["name"], f"127.0.0.1:{app}"
    service = cluster["eds_cluster_config"].get("service_name", name)
    with registry(database, tmp_path) as served:
        ports = {"8080": served.port, "9901": free_port(), "9903": free_port(), "10000": free_port()}
        with envoy_of(QUICKSTART, ports, tmp_path) as envoy:
            assert served.register(service, endpoint).status_code == 200
            eventually(lambda: envoy.hosts(name) == {endpoint: "HEALTHY"}, within=5)
            answer = httpx.get(f"http://127.0.0.1:{ports['10000']}/", trust_env=False, timeout=10)
            assert (answer.status_code, answer.text) == (200, "hello")
            for block in curls(QUICKSTART, of_envoy=True):
                assert run_curls(block, ports)
            served.client.post(f"/v1/services/{service}/endpoints/{endpoint}/drain")
            eventually(lambda: envoy.hosts(name) == {endpoint: "DRAINING"}, within=5)
            assert envoy.counter(name, "update_rejected") == 0
            assert envoy.counter(name, "update_success") >= 2
            assert not re.search(r"\[(error|critical)\]|deprecated", envoy.log.read_text())


def _is_eds(cluster: dict[str, Any]) -> bool:
    return cluster.get("type") == "EDS"


def test_every_bootstrap_that_is_shown_is_the_recommended_one() -> None:
    """`make docs` would change none: quickstart, compose and the ECS task show the recommended text."""
    script = ROOT / "deploy" / "envoy" / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bootstrap_of(QUICKSTART).count("retry_policy") == 2


def test_the_cluster_of_the_readme_is_part_of_the_bootstrap() -> None:
    """What the README shows of a cluster has the values of the whole configuration that it leads to."""
    (excerpt,) = [yaml.safe_load(block) for block in blocks(README, "yaml")]
    (cluster,) = filter(_is_eds, yaml.safe_load(bootstrap_of(QUICKSTART))["static_resources"]["clusters"])
    assert excerpt == {key: cluster[key] for key in excerpt}
    assert len(README.read_text().splitlines()) <= 160
