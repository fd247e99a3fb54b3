"""The commands by which docs/security.md closes a registry, run as they stand."""

import os
import re
import stat
import subprocess
from pathlib import Path

import httpx
from harness.access import bearer
from harness.process import eventually, free_port, script
from harness.registry import Registry, registry

PAGE = Path(__file__).parents[4] / "docs" / "security.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(heading: str) -> list[str]:
    """Return the commands under a heading of the second order."""
    text = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return _BLOCK.findall(text)


class Operator:
    """A shell in a directory of its own, with the programs on its path."""

    def __init__(self, directory: Path, served: Registry, database: str) -> None:
        self.directory = directory
        self._port = str(served.port)
        self._env = {
            "PATH": f"{Path(script('registryctl')[0]).parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "COLUMNS": "100",
            "REGISTRY_DATABASE_URL": database,
            "REGISTRYCTL_URL": served.url,
        }

    def run(self, block: str) -> str:
        """Run a block as it stands, but for the port, and return what it printed; no command of it may fail."""
        done = subprocess.run(
            ["/bin/sh", "-ec", block.replace("8080", self._port)],
            cwd=self.directory,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def token(self, name: str) -> str:
        """Return a token that was written to a file of its owner's."""
        path = self.directory / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        return path.read_text().strip()


def test_a_registry_is_closed_by_the_commands_of_the_page(database: str, workplace: Path, tmp_path: Path) -> None:
    """In audit with step 3 to 6, then on with the verbs of step 7, then with none left out."""
    first, others, questions, closing = blocks("Close a running registry")
    listen, data = f"127.0.0.1:{free_port()}", str(tmp_path / "data")
    with registry(database, workplace, listen=listen, data_dir=data, auth="audit") as served:
        assert served.register("shop", "10.0.0.5:8080", ttl=600).status_code == 200
        operator = Operator(tmp_path, served, database)
        operator.run(first)
        operator.run(others)
        shop, envoys = operator.token("shop.token"), operator.token("envoys.token")
        assert put(served, shop).status_code == 200
        assert operator.run(questions)
    variables = dict(re.findall(r"REGISTRY_(\w+)=(\S+)", closing))
    assert variables.pop("AUTH") == "on"
    kept = {name.lower(): value for name, value in variables.items()}
    with registry(database, workplace, listen=listen, data_dir=data, auth="on", **kept) as served:
        assert put(served, "").status_code == 200
        assert served.poll("shop").status_code == 200
        assert served.client.post("/v1/services/shop/endpoints/10.0.0.5:8080/drain").status_code == 401
        assert served.client.get("/metrics").status_code == 401
    with registry(database, workplace, listen=listen, data_dir=data, auth="on") as served:
        assert [put(served, "").status_code, served.poll("shop").status_code] == [401, 401]
        assert put(served, shop).status_code == 200
        assert served.client.get("/metrics", headers=bearer(operator.token("prometheus.token"))).status_code == 200
        assert served.client.get("/v1/services", headers=bearer(operator.token("ann.token"))).status_code == 200
        body = {"node": {"id": "test"}, "resource_names": ["shop"]}
        polled = served.client.post("/v3/discovery:endpoints", json=body, headers=bearer(envoys))
        assert polled.json()["resources"]
        for block in (*blocks("Rotate and revoke"), *blocks("Clients without credentials")):
            operator.run(block)
        successor = operator.token("shop.token.new")
        eventually(lambda: put(served, successor).status_code == 200, within=5)


def put(served: Registry, token: str) -> httpx.Response:
    """Renew the endpoint of shop."""
    body = {"instance_id": "i-10.0.0.5:8080", "incarnation": 1, "ttl": 600}
    url = "/v1/services/shop/endpoints/10.0.0.5:8080"
    return served.client.put(url, json=body, headers=bearer(token) if token else {})


def test_the_first_token_makes_no_database(tmp_path: Path) -> None:
    """Where no URL is set and no registry was started, the command says so, and begins no empty PostgreSQL."""
    done = subprocess.run(
        [*script("registry"), "token", "create", "--admin"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "REGISTRY_DATABASE_URL is not set, and there is no embedded PostgreSQL in" in done.stderr
    assert not list(tmp_path.iterdir())
