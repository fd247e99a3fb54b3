"""The examination of the credentials: whether they are accepted, and what they allow at each registry."""

import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from registrar.config.settings import LoginMethod, Settings
from registrar.credentials.aws_identity import aws_region, check_identity, identity_headers
from registrar.credentials.aws_keys import find_keys, key_source
from registrar.credentials.sigv4 import AwsKeys
from registrar.diagnostic import Diagnostic, Section, Severity
from registrar.errors import AwsIdentityUnavailable, RegistryRefused, RegistryUnavailable
from registrar.identity.resolver import Identity
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.dns import resolve
from registrar.registry_client.http_client import NO_RESPONSE
from registrar.registry_client.registries import RegistryAddress, RegistryUrls
from registrar.registry_client.registry_probe import ask, is_registry
from wire.envoy_token import SDS_FILE

_NONCE_BYTES = 16
_SESSION_LIFE = 3600.0
"""Seconds after which the token of a login in Envoy's file has ended."""
_FIXES = {
    401: "compare REGISTRAR_LOGIN_AUDIENCE with the registry's REGISTRY_AWS_AUDIENCE, the clocks, and the role's keys",
    403: "give this role an identity at the registry; its message says what does not match",
    404: "let the registry allow AWS logins; one without access control accepts heartbeats without a login too",
}


class Wanted(Struct, frozen=True):
    """A registration that this process would make, or a service that its edge would discover for Envoys."""

    service: str
    endpoint: str = ""
    """Empty for a service to discover."""

    def __str__(self) -> str:
        return f"register {self.service} at {self.endpoint}" if self.endpoint else f"discover {self.service}"


class Whoami(Struct, frozen=True):
    """The fields that are read of the registry's ``/v1/whoami``."""

    principal: str
    mode: str = ""
    problem: str | None = None


class Authorization(Struct, frozen=True):
    """The fields that are read of the registry's ``/v1/authorize``."""

    allowed: bool
    enforced: bool = True
    reason: str = ""


class AccessExamination:
    """Examines the credential of the settings; it logs in if they say so, and ends that session again.

    Args:
        settings: the settings, or the valid part of them.
        identity: the instance.
        environ: the environment of the process.
        wanted: what to ask about.
    """

    def __init__(
        self, settings: Settings, identity: Identity, environ: Mapping[str, str], wanted: Sequence[Wanted]
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._environ = environ
        self._wanted = wanted
        self._region = aws_region(environ, identity.region)
        self._tls = settings.registry_tls

    async def examine(self) -> list[Section]:
        """Return the sections of the credential, and of Envoy's token if this process writes it."""
        sections = []
        keys = None
        if self._settings.login is LoginMethod.AWS:
            keys, diagnostic = await self._keys()
            sections.append(Section("AWS role", [diagnostic]))
        if self._settings.login is None or keys is not None:
            sections += [
                Section(f"Access at {url}", await self._at_registry(url, keys))
                for url in self._settings.registry_url.urls
            ]
        if self._settings.envoy_token_file:
            sections.append(Section("Envoy's token", _envoy_token(self._settings)))
        return sections

    async def _keys(self) -> tuple[AwsKeys | None, Diagnostic]:
        try:
            check_identity(self._region, self._identity.instance_id)
            source = key_source(self._environ)
            keys = await find_keys(self._environ)
        except AwsIdentityUnavailable as error:
            return None, Diagnostic(Severity.FAIL, str(error), error.fix)
        kind = "" if keys.session_token else "; they are a user's, and a registry accepts those of a role alone"
        severity = Severity.OK if keys.session_token else Severity.FAIL
        fix = "" if keys.session_token else "use the keys of a role: of the task, the instance, or an assumed one"
        return keys, Diagnostic(severity, f"keys from {source.name}, for STS in {self._region}{kind}", fix)

    async def _at_registry(self, url: str, keys: AwsKeys | None) -> list[Diagnostic]:
        bearer = self._settings.bearer
        diagnostics = []
        if keys is not None:
            bearer, diagnostic = await self._login(url, keys)
            diagnostics.append(diagnostic)
            if not bearer:
                return diagnostics
        try:
            registries = [RegistryAddress(url, address) for address in await resolve(RegistryAddress(url, "").name)]
            diagnostics += await self._allowed(registries, bearer)
            if keys is not None:
                # The session was for this examination alone.
                await ask(registries, self._tls, "POST", "/v1/logout", bearer=bearer)
        except NO_RESPONSE as error:
            reason = str(error) or type(error).__name__
            diagnostics.append(Diagnostic(Severity.NOTE, f"not examined: {reason}"))
        return diagnostics

    async def _login(self, url: str, keys: AwsKeys) -> tuple[str, Diagnostic]:
        audience, instance_id = self._settings.login_audience or "", self._identity.instance_id
        nonce = secrets.token_hex(_NONCE_BYTES)
        headers = identity_headers(keys, self._region, audience, instance_id, nonce, time.time())
        async with RegistryClient(RegistryUrls(url), tls=self._tls) as client:
            try:
                answer, _ = await client.login(headers)
            except RegistryRefused as error:
                fix = _FIXES.get(error.problem.status, "see the registry's message")
                return "", Diagnostic(Severity.FAIL, f"the login is refused: {error}", fix)
            except RegistryUnavailable as error:
                fix = "the registrar repeats it; the registry's log says whether it is PostgreSQL or AWS's STS"
                return "", Diagnostic(Severity.FAIL, f"the login is not answered: {error}", fix)
        return answer.registrar.token, Diagnostic(Severity.OK, f"logs in as {answer.principal}")

    async def _allowed(self, registries: Sequence[RegistryAddress], bearer: str) -> list[Diagnostic]:
        if not is_registry(await ask(registries, self._tls, "GET", "/readyz")):
            return [Diagnostic(Severity.NOTE, "not examined: no registry answers there")]
        response = await ask(registries, self._tls, "GET", "/v1/whoami", bearer=bearer)
        if response.status != 200:
            return [Diagnostic(Severity.NOTE, "a registry of an older version, without access control")]
        whoami = msgspec.json.decode(response.body, type=Whoami)
        serious = Severity.FAIL if whoami.mode == "on" else Severity.WARN
        if whoami.problem:
            fix = "set another token, or log in with REGISTRAR_LOGIN=aws"
            return [Diagnostic(serious, f"the credential is not accepted: {whoami.problem}", fix)]
        diagnostics = [Diagnostic(Severity.OK, f"requests are from {whoami.principal}; REGISTRY_AUTH is {whoami.mode}")]
        for wanted in self._wanted:
            asked = {"verb": "discover", "service": wanted.service}
            if wanted.endpoint:
                asked |= {
                    "verb": "register",
                    "endpoint": wanted.endpoint,
                    "instance_id": self._identity.instance_id,
                }
            body = msgspec.json.encode(asked)
            response = await ask(registries, self._tls, "POST", "/v1/authorize", content=body, bearer=bearer)
            if response.status == 200:
                answer = msgspec.json.decode(response.body, type=Authorization)
                diagnostics.append(_decision(wanted, answer))
        return diagnostics


def _decision(wanted: Wanted, answer: Authorization) -> Diagnostic:
    if answer.allowed:
        return Diagnostic(Severity.OK, f"may {wanted}")
    # Envoys may have polled for a service by a mistake of theirs.
    severity = Severity.FAIL if answer.enforced and wanted.endpoint else Severity.WARN
    later = "" if answer.enforced else ", once access control is on"
    fix = "let somebody with the verb admin grant it; `registrar doctor` says when it is enough"
    return Diagnostic(severity, f"may not {wanted}{later}: {answer.reason}", fix)


def _envoy_token(settings: Settings) -> list[Diagnostic]:
    """Return what is wrong with the directory and the file of Envoy's token."""
    path = Path(settings.envoy_token_file).absolute()
    directory = path.parent
    if not directory.is_dir():
        fix = f"make it, for this user to write and for Envoy's group to read: install -d -m 2750 -g envoy {directory}"
        return [Diagnostic(Severity.FAIL, f"{directory} is no directory", fix)]
    if not os.access(directory, os.W_OK | os.X_OK):
        fix = "let this user own it, with mode 2750 and Envoy's group"
        return [Diagnostic(Severity.FAIL, f"{directory} cannot be written to by this user", fix)]
    diagnostics = []
    if not path.with_name(SDS_FILE).exists():
        note = f"{SDS_FILE} is not there yet: the registrar writes it at its start, and Envoy needs it at its own"
        diagnostics.append(Diagnostic(Severity.NOTE, note))
    try:
        status = path.stat()
    except OSError:
        return [*diagnostics, Diagnostic(Severity.NOTE, f"{path} is not there yet: a running registrar writes it")]
    if not status.st_size:
        note = f"{path} is empty, so Envoy polls without a token: a running registrar writes one"
        return [*diagnostics, Diagnostic(Severity.NOTE, note)]
    age = max(0.0, time.time() - status.st_mtime)
    limit = _SESSION_LIFE if settings.login is not None else math.inf
    if age > limit:
        text = f"{path} was written {age:.0f}s ago, so its token has ended: an Envoy that starts gets no endpoints"
        diagnostics.append(Diagnostic(Severity.WARN, text, "start the registrar, or see `registrar status`"))
    else:
        diagnostics.append(Diagnostic(Severity.OK, f"{path} was written {age:.0f}s ago"))
    return diagnostics
