"""What `registrar doctor` says of a credential, before anything is registered."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.fake_registry import FakeRegistry
from harness.link import FakeKeys

from registrar.config.settings import LoginMethod, Settings
from registrar.diagnostic import Severity
from registrar.doctor.access import AccessExamination, Wanted
from registrar.identity.resolver import Identity
from registrar.registry_client.registries import RegistryUrls
from wire.envoy_token import TOKEN_FILE
from wire.problem import Problem

SHOP = Wanted("shop", "10.0.0.5:8080")
SECRETS = ("hcs_", "s3cret")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    """A registry with access control."""
    async with FakeRegistry() as fake:
        fake.closed = True
        yield fake


@pytest.fixture
def agent() -> Iterator[FakeKeys]:
    """The agent of a container."""
    with FakeKeys() as fake:
        fake.keys["SecretAccessKey"] = "s3cret"
        yield fake


async def said(
    registry: FakeRegistry, environ: dict[str, str], wanted: Wanted = SHOP, **settings: Any
) -> list[tuple[Severity, str]]:
    """Return the diagnostics, each as its severity and its text with its fix."""
    all_settings = Settings(registry_url=RegistryUrls(registry.url), **settings)
    sections = await AccessExamination(all_settings, Identity("task-1", 1), environ, [wanted]).examine()
    diagnostics = [diagnostic for section in sections for diagnostic in section.diagnostics]
    assert all(diagnostic.fix for diagnostic in diagnostics if diagnostic.severity is Severity.FAIL)
    assert not [secret for secret in SECRETS if secret in str(diagnostics)]
    return [(diagnostic.severity, f"{diagnostic.text}; {diagnostic.fix}") for diagnostic in diagnostics]


def logging_in(agent: FakeKeys) -> dict[str, str]:
    """Return the environment of a task with a role."""
    return {**agent.variables, "AWS_REGION": "eu-central-1"}


AWS: dict[str, Any] = {"login": LoginMethod.AWS, "login_audience": "headcount-tests"}


async def test_a_login_that_works_leaves_no_session(registry: FakeRegistry, agent: FakeKeys) -> None:
    """The role, the principal and the grant are named, and the session is ended."""
    lines = await said(registry, logging_in(agent), **AWS)
    assert [severity for severity, _ in lines] == [Severity.OK] * 4
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI, for STS in eu-central-1" in lines[0][1]
    assert "logs in as aws:111122223333:shop-task-role/task-1" in lines[1][1]
    assert "may register shop at 10.0.0.5:8080" in lines[3][1]
    assert registry.tokens == set()


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "REGISTRAR_LOGIN_AUDIENCE"), (403, "identity"), (404, "without access control"), (503, "STS")],
)
async def test_a_login_that_does_not_work(registry: FakeRegistry, agent: FakeKeys, status: int, words: str) -> None:
    """The registry's words and the fix of each kind are named."""
    registry.refuse_login = Problem("Refused", status, "said by the registry")
    severity, text = (await said(registry, logging_in(agent), **AWS))[-1]
    assert (severity, "said by the registry" in text, words in text) == (Severity.FAIL, True, True)


async def test_no_keys_and_no_region(registry: FakeRegistry, agent: FakeKeys) -> None:
    """Nothing is sent to a registry."""
    ((severity, text),) = await said(
        registry, {"AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"}, **AWS
    )
    assert (severity, "taskRoleArn" in text) == (Severity.FAIL, True)
    ((severity, text),) = await said(registry, agent.variables, **AWS)
    assert (severity, "AWS_REGION" in text) == (Severity.FAIL, True)
    assert registry.logins == []


async def test_the_keys_of_a_user_are_no_role(registry: FakeRegistry) -> None:
    """A registry takes assumed roles alone, whose keys have a session token."""
    environ = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_REGION": "eu-central-1"}
    severity, text = (await said(registry, environ, **AWS))[0]
    assert (severity, "a role alone" in text) == (Severity.FAIL, True)


async def test_a_token(registry: FakeRegistry) -> None:
    """One that is known may register its service and no other; another is refused, and none is anonymous."""
    from registrar.config.secret import Secret

    token = Secret("hct_shop")
    registry.tokens = {"hct_shop"}
    assert (await said(registry, {}, token=token))[-1][0] is Severity.OK
    severity, text = (await said(registry, {}, Wanted("admin", "10.0.0.5:1"), token=token))[-1]
    assert (severity, "token:shop has no grant to register admin" in text) == (Severity.FAIL, True)
    # What an edge's Envoys polled for is asked about as well; they may have done so by mistake.
    severity, text = (await said(registry, {}, Wanted("admin"), token=token))[-1]
    assert (severity, "may not discover admin" in text) == (Severity.WARN, True)
    severity, text = (await said(registry, {}))[-1]
    assert (severity, "anonymous has no grant" in text) == (Severity.FAIL, True)
    registry.tokens = set()
    severity, text = (await said(registry, {}, token=token))[-1]
    assert (severity, "the token is not known" in text) == (Severity.FAIL, True)
    registry.closed = False
    assert (await said(registry, {}, token=token))[-1][0] is Severity.WARN


async def test_envoys_directory(registry: FakeRegistry, tmp_path: Path) -> None:
    """A directory that is missing is a failure; a token that is missing, or as old as a session, is named."""
    from registrar.config.secret import Secret

    registry.closed = False
    file = tmp_path / "run" / TOKEN_FILE
    settings: dict[str, Any] = {"envoy_token_file": str(file), "envoy_token": Secret("hct_envoy")}
    assert (await said(registry, {}, **settings))[-1][0] is Severity.FAIL
    file.parent.mkdir()
    assert (await said(registry, {}, **settings))[-1][0] is Severity.NOTE
    file.write_text("hct_envoy")
    assert (await said(registry, {}, **settings))[-1][0] is Severity.OK
