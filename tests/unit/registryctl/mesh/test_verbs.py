"""The verbs of `registryctl mesh` that need no registry, as their users run them."""

from pathlib import Path

import pytest
from harness.operator import registryctl

from registryctl.mesh.starter import FILES

SAMPLES = Path(__file__).parents[3] / "samples/import"


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """The mesh that `init` writes."""
    root = tmp_path / "mesh"
    assert registryctl(None, "mesh", "init", str(root)).status == 0
    return root


def edit(root: Path, file: str, before: str, after: str) -> None:
    """Replace a text that stands once in a file."""
    text = (root / file).read_text()
    assert text.count(before) == 1
    (root / file).write_text(text.replace(before, after))


def test_a_new_mesh_is_valid_without_a_warning(mesh: Path) -> None:
    """What `init` writes needs no edit, and it writes over nothing."""
    said = registryctl(None, "mesh", "validate", str(mesh), "--strict")
    assert (said.status, said.out) == (0, f"{len(FILES)} files: 2 services, 1 dependency\n")
    again = registryctl(None, "mesh", "init", str(mesh))
    assert again.status == 2
    assert "is there already" in again.err


def test_every_fault_is_told_with_its_line(mesh: Path) -> None:
    """All at once, with the fix; for scripts as the API has them."""
    edit(mesh, "services/web.yaml", "timeout: 100ms", "timeout: 100x, retri: 1")
    said = registryctl(None, "mesh", "validate", str(mesh))
    assert said.status == 1
    first, second, last = said.out.splitlines()
    assert first.startswith("services/web.yaml:7:28: timeout is '100x'")
    assert second.endswith("Did you mean retry?")
    assert last == "2 errors in 3 files"
    listed = registryctl(None, "mesh", "validate", str(mesh), "-o", "json").json
    assert (listed["valid"], [fault["line"] for fault in listed["faults"]]) == (False, [7, 7])
    refused = registryctl(None, "mesh", "show", "web", "--dir", str(mesh))
    assert (refused.status, refused.err.count("services/web.yaml:7:")) == (4, 2)


def test_show_says_where_each_value_is_from(mesh: Path) -> None:
    """A caller in short, one of its dependencies in full; a misspelt name gets the nearest."""
    said = registryctl(None, "mesh", "show", "web", "--dir", str(mesh)).out.splitlines()
    assert said[1].split() == ["shop", "service", "shop,", "http1", "/ping", "100ms", "off", "services/web.yaml:7:5"]
    rows = [line.split() for line in registryctl(None, "mesh", "show", "web", "shop", "-d", str(mesh)).out.splitlines()]
    assert ["timeout", "callee", "services/shop.yaml:7:23", "3s"] in rows
    assert ["panic_threshold", "built", "in", "30"] in rows
    missing = registryctl(None, "mesh", "show", "wbe", "-d", str(mesh))
    assert (missing.status, missing.err.splitlines()[-1].strip()) == (3, "did you mean web?")


def test_two_directories_are_compared_by_meaning(mesh: Path, tmp_path: Path) -> None:
    """A new dependency takes two steps; a comment is no difference."""
    copy = tmp_path / "copy"
    registryctl(None, "mesh", "init", str(copy))
    edit(copy, "services/web.yaml", "service: web\n", "service: web # the shop window\n")
    same = registryctl(None, "mesh", "diff", str(mesh), str(copy))
    assert (same.status, same.out) == (0, f"no changes against {mesh}\n")
    edit(copy, "services/web.yaml", "timeout: 100ms", "timeout: 250ms")
    (copy / "services/cart.yaml").write_text("service: cart\n")
    edit(copy, "services/web.yaml", "dependencies:\n", "dependencies:\n- service: cart\n")
    said = registryctl(None, "mesh", "diff", str(mesh), str(copy))
    assert said.status == 3
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert lines[:3] == [
        "services/cart.yaml + cart (calls nothing)",
        "services/web.yaml:5:3 + web → cart (service cart, http1)",
        "services/web.yaml:8:28 ~ web → shop /ping: timeout 100ms → 250ms",
    ]
    assert "1. clusters: add cart, then wait for its Envoys" in lines
    one = registryctl(None, "mesh", "diff", str(mesh))
    assert (one.status, f"registryctl mesh diff current {mesh}" in one.err) == (2, True)


def test_a_bootstrap_is_printed_as_json(mesh: Path) -> None:
    """It is what an Envoy starts with."""
    said = registryctl(None, "mesh", "bootstrap", "web", "--dir", str(mesh))
    assert said.json["node"]["cluster"] == "web"
    assert registryctl(None, "mesh", "bootstrap", "none", "--dir", str(mesh)).status == 3


def test_bootstrap_for_ads_names_the_grpc_listeners(mesh: Path) -> None:
    """With --ads nothing polls; an invalid address and files beside a stream are usage errors."""
    arguments = ("mesh", "bootstrap", "web", "--dir", str(mesh), "--ads")
    printed = registryctl(None, *arguments, "registry-1:18000", "--ads", "registry-2:18000")
    assert "api_config_source" not in printed.out
    assert printed.json["dynamic_resources"]["ads_config"]["api_type"] == "DELTA_GRPC"
    refused = registryctl(None, *arguments, "registry")
    assert (refused.status, "registry" in refused.err) == (2, True)
    both = registryctl(None, *arguments, "registry-1:18000", "--mount", "/etc/mesh")
    assert (both.status, "--mount" in both.err) == (2, True)


def test_a_mesh_is_published_in_phases(mesh: Path, tmp_path: Path) -> None:
    """Only what changed is written; without an Envoy the error says how to publish without a proof."""
    place = str(tmp_path / "published")
    command = ("mesh", "publish", place, "--dir", str(mesh), "--unproven")
    assert registryctl(None, *command).out == f"{place}: wrote 7 objects, 0 were there already\n"
    assert registryctl(None, *command).out == f"{place}: wrote 0 objects, 6 were there already\n"
    refused = registryctl(None, *command[:-1], "--with", "/none/envoy")
    assert (refused.status, "--unproven" in refused.err) == (2, True)


def test_the_longest_name_that_a_file_can_have_is_published(tmp_path: Path) -> None:
    """What is written aside has a name of its own, of a length of its own."""
    folder, name = tmp_path / "mesh" / "services", "s" * 250
    folder.mkdir(parents=True)
    (folder / f"{name}.yaml").write_text(f"service: {name}\n")
    place = tmp_path / "published"
    said = registryctl(None, "mesh", "publish", str(place), "--dir", str(folder.parent), "--unproven")
    assert (said.status, (place / "bootstrap" / f"{name}.json").exists()) == (0, True), said.out
    assert not [path for path in place.rglob("*") if path.name.endswith(".new")]


def test_the_schema_of_each_kind_is_printed() -> None:
    """It is for editors; a misspelt kind gets the nearest."""
    assert registryctl(None, "mesh", "schema", "service").json["$ref"] == "#/$defs/Service"
    assert "anyOf" in registryctl(None, "mesh", "schema").json
    assert "did you mean service?" in registryctl(None, "mesh", "schema", "servce").err


def test_nothing_of_an_import_is_lost_silently(tmp_path: Path) -> None:
    """Losses are printed and keep everything from being written, until they are accepted; then the result is valid."""
    out = tmp_path / "imported"
    command = (
        "mesh",
        "import",
        "kumonos",
        str(SAMPLES / "20-kumonos-service-definition.json"),
        "--service",
        "web",
        "--out",
        str(out),
    )
    refused = registryctl(None, *command)
    assert refused.status == 2
    assert "nothing is written" in refused.out
    assert not out.exists()
    assert registryctl(None, *command, "--accept-losses").status == 0
    assert registryctl(None, "mesh", "validate", str(out)).status == 0
    assert "is there already" in registryctl(None, *command, "--accept-losses").err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("twice.yml", "dependencies:\n- {name: a, name: b}\n", "twice.yml:2:13: The key 'name' is there twice"),
        ("twice.json", '{"dependencies": [{"name": "a", "name": "b"}]}', "the key 'name' is there twice"),
        ("deep.yml", "dependencies: " + "[" * 200_000, "nests deeper than 32 levels"),
        ("deep.json", '{"dependencies": ' + "[" * 200_000, "it nests too deep"),
        ("loop.yml", "dependencies: &a [*a]\n", "stands within itself"),
        (
            "bomb.yml",
            "a: &a {x: 1}\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
            + "dependencies: *i\n",
            "more than 100,000 nodes",
        ),
    ],
    ids=lambda value: value if str(value).endswith(("yml", "json")) else "",
)
def test_a_hostile_import_is_refused_where_it_stands(tmp_path: Path, name: str, text: str, said: str) -> None:
    """It neither loses the first of two keys, nor ends the process, nor takes its memory."""
    document = tmp_path / name
    document.write_text(text)
    refused = registryctl(None, "mesh", "import", "kumonos", str(document), "--out", str(tmp_path / "out"))
    assert (refused.status, said in refused.err) == (2, True), refused.err
    assert not (tmp_path / "out").exists()


def test_foreign_formats_are_named(tmp_path: Path) -> None:
    """A document of another format is refused by its name, also in a file of several documents."""
    istio = tmp_path / "istio.yaml"
    istio.write_text("apiVersion: networking.istio.io/v1\nkind: VirtualService\n---\nkind: x\n")
    said = registryctl(None, "mesh", "import", "appmesh", str(istio))
    assert (said.status, "this is Istio, and no appmesh" in said.err) == (2, True)
    assert "no format that can be imported" in registryctl(None, "mesh", "import", "consul", str(istio)).err
