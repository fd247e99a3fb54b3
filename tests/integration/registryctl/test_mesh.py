"""`registryctl mesh` against a real registry: plan, apply, history, rollback, and what is refused."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.envoy import binary
from harness.operator import Said, registryctl
from harness.postgres import Postgres
from harness.process import script
from harness.registry import Registry, registry


@pytest.fixture(scope="module")
def process(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry of its own without an Envoy, since all revisions of a registry are one history."""
    with registry(server.create_database(), workplace) as started:
        yield started


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A new mesh of two services, which no other test has edited."""
    root = tmp_path / "mesh"
    assert registryctl(None, "mesh", "init", str(root)).status == 0
    return root


def call(process: Registry, *words: str, **env: str) -> Said:
    """Run a verb of the mesh."""
    return registryctl(process.url, "mesh", *words, **env)


def apply(process: Registry, root: Path, *words: str) -> Said:
    """Apply a directory without a proof."""
    return call(process, "apply", str(root), "--reason", "a test", "--unproven", *words)


def begin(process: Registry, root: Path) -> None:
    """Apply a directory; what an earlier test has defined besides may go, although an Envoy may poll for it unseen."""
    assert apply(process, root, "--allow-removal", "cart").status == 0


def newest(process: Registry) -> int:
    """Return the number of the newest revision."""
    listed = call(process, "history", "-n", "1", "-o", "json").json["revisions"]
    return int(listed[0]["number"]) if listed else 0


def call_cart(root: Path) -> None:
    """Let web call cart."""
    web = root / "services/web.yaml"
    web.write_text(web.read_text().replace("dependencies:\n", "dependencies:\n- service: cart\n", 1))
    (root / "services/cart.yaml").write_text("service: cart\n")


def test_a_plan_is_applied_and_listed(process: Registry, mesh: Path) -> None:
    """The plan has lines, steps and the subscribers that are awaited; its exit status says whether there is one."""
    begin(process, mesh)
    assert call(process, "plan", str(mesh)).status == 0
    call_cart(mesh)
    process.client.post("/v3/discovery:clusters", json={"node": {"id": "i-1", "cluster": "web"}})
    said = call(process, "plan", str(mesh))
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert said.status == 3
    assert "services/web.yaml:5:3 + web → cart (service cart, http1)" in lines
    assert "1. clusters: add cart, then wait for 1 Envoy" in lines
    assert f"--base {newest(process)} --reason TEXT" in said.err
    done = apply(process, mesh, "--commit", "5f0c1a9e5f0c1a9e", "--base", str(newest(process)))
    assert done.out.splitlines()[1] == "it changes the resources of cart, web"
    row = call(process, "history", "-n", "1").out.splitlines()[1].split()
    assert row[0] == str(newest(process))
    assert row[3:] == ["ann", "from", "127.0.0.1", "5f0c1a9e5f", "nobody", "a", "test"]


def test_the_second_of_two_learns_whose_revision_came_between(process: Registry, mesh: Path) -> None:
    """One revision of two that are based on the same wins; the loser is told of it and what to run."""
    begin(process, mesh)
    base = newest(process)
    call_cart(mesh)
    words = ("mesh", "apply", str(mesh), "--reason", "a test", "--unproven", "--base", str(base), "--url", process.url)
    both = [
        subprocess.Popen([*script("registryctl"), *words, "--actor", name], stderr=subprocess.PIPE, text=True)
        for name in ("ann", "bert")
    ]
    said = {each.returncode: err for each in both for _, err in [each.communicate(timeout=60)]}
    assert sorted(said) == [0, 4]
    first, last = said[4].splitlines()[-2:]  # a busy machine says first that it is still at work
    assert re.match(rf"revision {base + 1} by (ann|bert) from 127.0.0.1: a test \(", first)
    assert f"registryctl mesh diff {base} {base + 1}" in last
    assert newest(process) == base + 1


def test_a_rollback_is_a_new_revision(process: Registry, mesh: Path) -> None:
    """It is one command, and says what it has changed; `diff` says the same of it by meaning."""
    begin(process, mesh)
    good = newest(process)
    call_cart(mesh)
    apply(process, mesh)
    said = call(process, "rollback", str(good), "--reason", "3 a.m.")
    assert said.out.startswith(f"applied revision {good + 2} by ann from 127.0.0.1: back to {good}; 3 a.m.\n")
    changed = call(process, "diff", str(good + 2))
    assert changed.status == 3
    assert "- web → cart (service cart, http1)" in changed.out
    assert call(process, "diff", str(good), "current").status == 0
    assert call(process, "rollback", "9999", "--reason", "x").status == 3


def test_a_roll_out_is_watched_paused_and_promoted(process: Registry, mesh: Path) -> None:
    """Its steps and the Envoys that it waits for are shown; one that stands still has an exit status of its own."""
    begin(process, mesh)
    call_cart(mesh)
    process.client.post("/v3/discovery:clusters", json={"node": {"id": "i-7", "cluster": "web"}})
    apply(process, mesh)
    assert "add clusters" in call(process, "rollout").out
    assert "goes no further" in call(process, "pause", "--reason", "look first").out
    stopped = call(process, "rollout", "--watch")
    assert stopped.status == 1
    assert "web: paused by ann from 127.0.0.1: look first" in stopped.out
    listed = call(process, "rollout").out
    assert re.search(r"web: paused by ann from 127\.0\.0\.1: look first, [0-9]+s ago", listed), listed
    (mesh / "services/shop.yaml").write_text("service: shop\nprovides: {defaults: {timeout: 4s}}\n")
    for said in (call(process, "plan", str(mesh)), apply(process, mesh)):
        assert "to web is paused by ann from 127.0.0.1: look first. This revision" in said.out + said.err
    call(process, "pause", "--reason", "look first")
    assert call(process, "resume").out == f"revision {newest(process)} goes on: web\n"
    (mesh / "services/shop.yaml").write_text("service: shop\nprovides: {defaults: {timeout: 2s}}\n")
    assert "began with 10 %" in apply(process, mesh, "--share", "10%").out
    assert "web: 10 % of its Envoys have a newer revision" in call(process, "rollout").out
    assert call(process, "promote").out.startswith(f"revision {newest(process)} goes to all Envoys: ")


def test_what_the_registry_refuses_has_lines(process: Registry, mesh: Path) -> None:
    """A definition that is gone while its Envoys poll is a fault with its fix, as are faults of a file."""
    call_cart(mesh)
    apply(process, mesh)
    process.client.post("/v3/discovery:clusters", json={"node": {"id": "i-1", "cluster": "cart"}})
    web = mesh / "services/web.yaml"
    web.write_text(web.read_text().replace("- service: cart\n", ""))
    (mesh / "services/cart.yaml").unlink()
    refused = apply(process, mesh)
    assert refused.status == 4
    assert "apply with --allow-removal cart." in refused.err.splitlines()[0]
    assert apply(process, mesh, "--allow-removal", "cart").status == 0


def test_effective_values_come_from_the_revision(process: Registry, mesh: Path) -> None:
    """`show` and `bootstrap` without a directory ask the registry, and say the same as with it."""
    begin(process, mesh)
    for words in (("show", "web"), ("show", "web", "shop"), ("bootstrap", "web")):
        assert call(process, *words).out == call(process, *words, "--dir", str(mesh)).out
    assert call(process, "show", "none").status == 3


@pytest.mark.envoy
def test_an_own_envoy_proves_where_the_registry_has_none(process: Registry, mesh: Path) -> None:
    """Without a proof nothing is applied, and the error says what to do; one of the sender's Envoy counts."""
    call_cart(mesh)
    process.register("cart", "10.9.9.9:80", metadata={"protocol": "grpc"})
    (mesh / "gateways").mkdir()
    (mesh / "gateways/staging.yaml").write_text(
        "gateway: staging\nlisten: {port: 50051, protocol: http2}\nselect: {metadata: {protocol: grpc}}\n"
    )
    refused = call(process, "apply", str(mesh), "--reason", "a test")
    assert refused.status == 4
    assert "--unproven" in refused.err
    proven = call(process, "apply", str(mesh), "--reason", "a test", "--with", str(binary()))
    assert proven.status == 0, proven
    assert "Envoy 1." in call(process, "history", "-n", "1").out
