"""The console's pages of the mesh configuration, as a browser would ask for them: what they say, and their forms."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"
WEB = "service: web\ndependencies:\n- service: user\n  timeout: 2s\n"
FILES = {"mesh.yaml": "environment: test\n", "services/web.yaml": WEB, "services/user.yaml": "service: user\n"}
HOSTILE_FILES = {
    **FILES,
    "services/web.yaml": f"# {HOSTILE}\n{WEB}  headers: {{add: {{x-note: {json.dumps(HOSTILE)}}}}}\n- service: cart\n",
}


@pytest.fixture(scope="module")
def meshed(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry without an Envoy, so that revisions are applied unproven."""
    with registry(server.migrated_database(), workplace) as found:
        yield found


def page(found: Registry, path: str) -> str:
    """Return a page that there is."""
    answer = found.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), answer.text
    return answer.text


def words(text: str) -> str:
    """Return the words of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text.partition("<main")[2])).split())


def send(found: Registry, path: str, site: str = "same-origin", **fields: str) -> httpx.Response:
    """Send a form as the console's own page does."""
    return found.client.post(path, data={"who": "ann", **fields}, headers={"sec-fetch-site": site})


def apply(found: Registry, files: dict[str, str], reason: str, **fields: object) -> None:
    """Apply files without a proof."""
    document = {"files": files, "reason": reason, "unproven": True, **fields}
    answer = found.client.post("/v1/mesh/revisions", json=document)
    assert answer.status_code == 201, answer.text


def poll(found: Registry, kind: str, version: str = "", node: str = "web/task-1") -> str:
    """Poll as an Envoy of web, and return the version that it then holds."""
    names = {"resource_names": ["default"]} if kind == "routes" else {}
    body = {"version_info": version, "node": {"id": node, "cluster": "web"}, **names}
    answer = found.client.post(f"/v3/discovery:{kind}", json=body)
    return str(answer.json()["version_info"]) if answer.status_code == 200 else version


def test_the_pages_from_nothing_to_a_roll_back(meshed: Registry) -> None:
    """How to begin; who applied what and why; what waits for whom; and an operator's forms, which say so."""
    assert "registryctl mesh init" in page(meshed, "/ui/mesh")
    assert meshed.client.get("/ui/mesh/services/web").status_code == 404
    meshed.register("web", "10.0.0.1:80")
    assert "/ui/mesh/services/web" not in page(meshed, "/ui/services/web")

    apply(meshed, FILES, "web calls user", commit="5f0c1a9e")
    eventually(lambda: '<a href="/ui/mesh/services/web">' in page(meshed, "/ui/services/web"))
    first = words(page(meshed, "/ui/mesh"))
    assert "Unproven revision 1 is served" in first
    assert "Revision 1 is unproven: no Envoy has accepted its resources" in first
    assert "web calls user" in first
    held = {kind: poll(meshed, kind, poll(meshed, kind)) for kind in ("clusters", "routes")}

    apply(meshed, HOSTILE_FILES, HOSTILE)
    eventually(lambda: "web/task-1" in words(page(meshed, "/ui/mesh")), within=10)
    second = page(meshed, "/ui/mesh")
    assert "Unproven revision 2 is being rolled out: 1 service waits for Envoys" in words(second)
    assert "Step 1 of 2: new clusters are served beside the old ones" in words(second)
    caller = page(meshed, "/ui/mesh/services/web")
    assert 'href="/ui/mesh/revisions/2?file=services%2Fweb.yaml#L5"><bdi>services/web.yaml:5</bdi>' in caller
    assert "clusters 2 , version 2.1" in words(caller)
    assert "1.1 of 2.1" in words(caller)
    revision = page(meshed, "/ui/mesh/revisions/2")
    assert "web → cart added" in words(revision)
    assert "timeout" not in words(revision)
    file = page(meshed, "/ui/mesh/revisions/2?file=services%2Fweb.yaml")
    assert '<li id="L5"><code>  timeout: 2s</code></li>' in file
    for text in (second, caller, revision, file, page(meshed, "/ui/events?kind=mesh_applied")):
        assert "&lt;script&gt;alert(1)" in text
        assert "<script>alert" not in text
        assert "<img src=x" not in text

    paused = send(meshed, "/ui/mesh/revisions/2/pause", reason="look first", back="/ui/mesh")
    assert (paused.status_code, paused.headers["location"]) == (303, "/ui/mesh?done=mesh_paused")
    shown = words(page(meshed, "/ui/mesh?done=mesh_paused"))
    assert "The roll-out was paused." in shown
    assert "The roll-out of unproven revision 2 is paused" in shown
    assert "look first" in shown
    assert send(meshed, "/ui/mesh/revisions/2/resume", reason="go on").status_code == 303
    assert send(meshed, "/ui/mesh/revisions/2/promote", reason="all of them").status_code == 422
    assert send(meshed, "/ui/mesh/revisions/1/rollback", "cross-site", reason="x").status_code == 403
    back = send(meshed, "/ui/mesh/revisions/1/rollback", reason="web is slow", back="/ui/mesh")
    assert back.headers["location"] == "/ui/mesh?done=mesh_rolled_back"
    third = words(page(meshed, "/ui/mesh"))
    assert "evision 3" in third
    assert "web is slow" in third
    assert "ann from 127.0.0.1" in third
    assert "back to 1" in third
    assert "web → cart removed" in words(page(meshed, "/ui/mesh/revisions/3"))
    assert poll(meshed, "routes", held["routes"]) == held["routes"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/mesh/revisions/99", 404),
        ("/ui/mesh/revisions/0", 422),
        ("/ui/mesh/revisions/1?file=nothing", 404),
        ("/ui/mesh/services/nobody", 404),
        ("/ui/mesh?before=0", 422),
    ],
)
def test_errors_are_pages(meshed: Registry, path: str, status: int) -> None:
    """With their status and a way on."""
    if meshed.client.get("/v1/mesh/revisions/1").status_code == 404:
        apply(meshed, FILES, "a first one")
    answer = meshed.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text


def test_a_share_is_promoted(meshed: Registry) -> None:
    """The page says which share gets which revision, and the form gives it to all."""
    apply(meshed, {**FILES, "services/web.yaml": WEB.replace("2s", "4s")}, "a share", share=10)
    eventually(lambda: "10 % of the node ids of web get it" in words(page(meshed, "/ui/mesh")), within=5)
    number = meshed.client.get("/v1/mesh/revisions/current").json()["number"]
    assert send(meshed, f"/ui/mesh/revisions/{number}/promote", reason="no errors").status_code == 303
    eventually(lambda: "of the node ids of web" not in words(page(meshed, "/ui/mesh")), within=20)
