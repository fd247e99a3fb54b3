"""Access to the demo's registry: the tokens of its programs, and the link that signs a person in."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry_demo.bootstrap import CALLER
from registry_demo.command import run_command
from registry_demo.connection import Connection
from registry_demo.errors import BrokenError
from registry_demo.process import Process
from wire.http1 import Response

CREATE_TIMEOUT = 30.0
"""Seconds that `registry token create` may take."""
_REQUEST_TIMEOUT = 10.0
"""Seconds that a request for a token may take."""
_PRIVATE = 0o600
"""Mode of the files with tokens."""

_GRANTS: Mapping[str, Sequence[Mapping[str, Sequence[str]]]] = {
    "registrar": [{"verbs": ["register"], "services": ["shop", "shop-next", CALLER], "addresses": ["127.0.0.0/8"]}],
    "envoy": [{"verbs": ["discover"], "services": ["shop", "shop-next", "web"]}],
}
"""By the kind of a token, its grants: what each program needs, and nothing else."""


class DemoAccess:
    """The credentials of one run, in files that only its user can read.

    Args:
        directory: the directory of the demo.
        registry: the registry, which has access on.
        port: where it listens.
    """

    def __init__(self, directory: Path, registry: Process, port: int) -> None:
        self._directory = directory
        self._registry = registry
        self._port = port

    @property
    def operator_file(self) -> Path:
        """The file with the token that may do everything."""
        return self._directory / "operator-token"

    @property
    def registrar_file(self) -> Path:
        """The file with the token that all registrars share."""
        return self._directory / "registrar-token"

    async def create_tokens(self, envoy_file: Path) -> None:
        """Make the first token as an operator does, beside the registry, and with it those of registrars and Envoy.

        Args:
            envoy_file: where Envoy expects its token.

        Raises:
            BrokenError: the registry does not give them.
        """
        await self._create_first_token()
        for kind, file in (("registrar", self.registrar_file), ("envoy", envoy_file)):
            made = await self._post("/v1/tokens", {"name": f"demo-{kind}", "kind": kind, "grants": _GRANTS[kind]})
            file.touch(_PRIVATE)
            file.write_text(made["token"], encoding="utf-8")

    async def sign_in_link(self) -> str:
        """Return the path at the console that signs one browser in, once, within a minute.

        Raises:
            BrokenError: the registry does not give one.
        """
        path: str = (await self._post("/v1/login/code", {}))["path"]
        return path

    async def try_as_stranger(self) -> int:
        """Poll without a credential, and return the status."""
        return (await self._send("/v3/discovery:endpoints", {"resource_names": ["shop"]}, None)).status

    async def try_as_thief(self) -> int:
        """Register an endpoint of another service with the registrars' token, and return the status of its result."""
        registration = {"instance_id": "thief", "incarnation": 1}
        heartbeat = {"service": "web", "endpoint": f"127.0.0.1:{self._port}", "registration": registration}
        response = await self._send("/v1/heartbeats", {"heartbeats": [heartbeat]}, self.registrar_file)
        status: int = json.loads(response.body)["results"][0]["problem"]["status"]
        return status

    async def _create_first_token(self) -> None:
        command = ["token", "create", "--admin", "--name", "demo", "--out", str(self.operator_file)]
        settings = {"REGISTRY_DATA_DIR": str(self._directory / "data")}
        finished = await run_command(
            [sys.executable, "-m", "registry.cli", *command], self._directory, settings, CREATE_TIMEOUT
        )
        if finished.status:
            raise BrokenError(f"registry token create failed: {finished.output}", self._registry)

    async def _post(self, path: str, document: object) -> Any:  # noqa: ANN401  # JSON
        """Send a document with the operator's token, and return the answer's."""
        response = await self._send(path, document, self.operator_file)
        if response.status != 201:
            # The problem document of a refusal; it has no token.
            raise BrokenError(
                f"POST {path} was answered {response.status}: {response.body.decode(errors='replace')}", self._registry
            )
        return json.loads(response.body)

    async def _send(self, path: str, document: object, token: Path | None) -> Response:
        headers = {"content-type": "application/json"}
        if token is not None:
            headers["authorization"] = _bearer(token)
        connection = Connection(self._port)
        try:
            return await connection.post(path, headers, json.dumps(document).encode(), _REQUEST_TIMEOUT)
        except OSError as error:
            raise BrokenError(f"the registry does not answer POST {path}: {error}", self._registry) from None
        finally:
            connection.close()


def _bearer(token: Path) -> str:
    return f"Bearer {token.read_text(encoding='utf-8').strip()}"
