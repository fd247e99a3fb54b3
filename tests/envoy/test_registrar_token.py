"""A real Envoy whose token the registrar writes: from a start without any file to the session after the next."""

import asyncio
from pathlib import Path

import pytest
from harness.envoy import recommended_envoy
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.link import FakeKeys
from harness.management_stub import management_stub
from integration.registrar.processes import admin, environment, registrar, until

from meshconfig.recommended_bootstrap import registries
from wire.envoy_token import TOKEN_FILE

pytestmark = pytest.mark.envoy

_HOST = "10.0.0.1:80"


async def test_envoy_follows_the_registrars_login(service: str, tmp_path: Path) -> None:
    """Envoy starts once the registrar is healthy, brings the login's token, and loses no host when it changes."""
    directory = tmp_path / "envoy-token"
    directory.mkdir()
    with FakeKeys() as agent, management_stub([_HOST], ["hcs_envoy-1", "hcs_envoy-2"]) as stub:
        async with FakeRegistry() as fake, FakeApp() as app:
            fake.closed = True
            where = f"unix:{tmp_path}/admin.sock"
            environ = environment(
                fake,
                app,
                REGISTRAR_LOGIN="aws",
                REGISTRAR_LOGIN_AUDIENCE="headcount-tests",
                REGISTRAR_ENVOY_TOKEN_FILE=str(directory / TOKEN_FILE),
                REGISTRAR_ADMIN_LISTEN=where,
                AWS_REGION="eu-central-1",
                **agent.variables,
            )
            async with registrar(environ), admin(where) as client:
                await until(client, "/healthcheck", 200)
                way = registries(f"127.0.0.1:{stub.port}", token_directory=str(directory))
                opened = recommended_envoy(tmp_path, way, service)
                envoy = await asyncio.to_thread(opened.__enter__)
                try:

                    async def hosts() -> dict[str, str]:
                        return await asyncio.to_thread(envoy.hosts, service)

                    async with asyncio.timeout(10):
                        while list(await hosts()) != [_HOST]:
                            await asyncio.sleep(0.05)
                    assert {poll.authorization for poll in stub.polls} == {"Bearer hcs_envoy-1"}
                    fake.tokens.clear()
                    async with asyncio.timeout(10):
                        while stub.polls[-1].authorization != "Bearer hcs_envoy-2":
                            assert list(await hosts()) == [_HOST]
                            await asyncio.sleep(0.05)
                    assert {poll.status for poll in stub.polls} <= {200, 304}
                    assert "hcs_" not in await asyncio.to_thread(envoy.config_dump)
                finally:
                    await asyncio.to_thread(opened.__exit__, None, None, None)
