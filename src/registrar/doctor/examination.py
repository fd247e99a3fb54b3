"""The examination: each part that a registrar needs is tried once, with the registrar's own code."""

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from registrar.checks.check import CheckTarget, Options
from registrar.checks.http import HttpOptions
from registrar.checks.network import NetworkOptions
from registrar.checks.push import PushOptions
from registrar.checks.result import Outcome
from registrar.checks.schedule import probe_once
from registrar.checks.threshold import OnFail
from registrar.config.settings import Service, Settings
from registrar.diagnostic import Diagnostic, Section, Severity
from registrar.doctor.access import AccessExamination, Wanted
from registrar.doctor.edge import examine_edge, polled_services
from registrar.doctor.envoy import examine_envoy
from registrar.endpoint.endpoints import identity_sources, with_task_defaults
from registrar.errors import ConfigurationError, IdentityError
from registrar.identity.resolver import Explanation, Identity, explain, resolve_identity
from registrar.identity.source import Location
from registrar.identity.spec import EndpointSpec
from registrar.registry_client.registry_probe import probe_registry
from registrar.registry_client.tls import RegistryTls
from wire.address import format_endpoint, is_exposed
from wire.x509 import Validity, show_time

_SEVERITIES = {
    Outcome.PASSED: Severity.OK,
    Outcome.DEGRADED: Severity.WARN,
    Outcome.FAILED: Severity.FAIL,
}
_FIX_NETWORK = (
    "start the app, and let it listen on the advertised address, not on 127.0.0.1 alone; then send it a request "
    "from another machine"
)
_FIX_ANSWER = "the app answers, but not as the check wants: correct REGISTRAR_CHECK_HTTP_PATH, or see the app's own log"
_FIX_OTHER = "fix the cause that the check names, or correct the check's settings"
_STATUS = re.compile(r"[1-5]\d\d ")
# The endpoint that stands for the address if no service is configured.
_ANY = EndpointSpec.parse(":8080")


class Doctor:
    """Examines one machine or task.

    Args:
        settings: the settings, or the valid part of them.
        faults: the errors in the settings.
        environ: the environment of the process.
    """

    def __init__(self, settings: Settings, faults: Sequence[str], environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._faults = faults
        self._environ = environ
        self._sources = identity_sources(settings, environ, patience=0)

    async def examine(self) -> AsyncIterator[Section]:
        """Yield the section of each subject as soon as it is examined."""
        yield _configuration(self._settings, self._faults)
        try:
            identity = await resolve_identity(self._sources)
            yield _instance(identity)
        except IdentityError as error:
            identity = Identity("", 1)
            yield Section("Instance", [Diagnostic(Severity.FAIL, error.fault, error.fix)])
        wanted = []
        for service in self._settings.services or (None,):
            explanations = await self._explain(service)
            yield _address(service, explanations)
            location = next((source.location for source in explanations if source.chosen), None)
            if service is not None and location is not None:
                yield await _checks(service, location, identity)
                wanted.append(Wanted(service.service or identity.service, _text(location)))
        tls = self._settings.registry_tls
        if tls.files:
            yield Section("TLS to the registry", _tls(tls, encrypted=bool(self._settings.registry_url.encrypted)))
        for url in self._settings.registry_url.urls:
            exposure = _exposure(url) if self._settings.has_credential else []
            yield Section(f"Registry {url}", [*await probe_registry(url, tls), *exposure])
        if self._settings.envoy_admin is not None:
            yield await examine_envoy(self._settings.envoy_admin)
        yield await examine_edge(self._settings, self._environ)
        wanted += map(Wanted, polled_services(self._settings, self._environ))
        for section in await AccessExamination(self._settings, identity, self._environ, wanted).examine():
            yield section

    async def _explain(self, service: Service | None) -> list[Explanation]:
        if service is None:
            return await explain(self._sources, _ANY)
        return await explain(self._sources, service.endpoint, service.container)


def _configuration(settings: Settings, faults: Sequence[str]) -> Section:
    diagnostics = [Diagnostic(Severity.FAIL, fault, _fix(fault)) for fault in faults]
    if not diagnostics:
        names = ", ".join(
            f"{service.service or '(named by the task)'} {service.endpoint}" for service in settings.services
        )
        diagnostics = [Diagnostic(Severity.OK, f"valid, for {names}; `registrar validate` prints all of them")]
    return Section("Settings", diagnostics)


def _fix(fault: str) -> str:
    place, _, _ = fault.partition(":")
    if place.startswith("no service"):
        return "export REGISTRAR_SERVICE=shop REGISTRAR_ENDPOINT=:8080, or name a YAML file with REGISTRAR_CONFIG"
    if fault.startswith("REGISTRAR_REGISTRY_URL: not set"):
        return "export REGISTRAR_REGISTRY_URL=http://<a registry>:8080; `registry serve` starts one"
    return f"correct {place}; docs/reference/settings.md has the format of every setting"


def _tls(tls: RegistryTls, *, encrypted: bool) -> list[Diagnostic]:
    if not encrypted:
        text = f"{', '.join(map(str, tls.files))} {'has' if len(tls.files) == 1 else 'have'} no effect over http"
        return [Diagnostic(Severity.NOTE, text, "write https:// in REGISTRAR_REGISTRY_URL, where the registry has TLS")]
    try:
        validity = tls.validity
    except OSError as error:
        return [Diagnostic(Severity.FAIL, str(error), "correct the path or the file; a registrar does not start so")]
    diagnostics = [Diagnostic(Severity.OK, f"{', '.join(map(str, tls.files))} can be used")]
    if validity is not None:
        diagnostics.append(_own_certificate(validity, time.time()))
    return diagnostics


def _own_certificate(validity: Validity, now: float) -> Diagnostic:
    complaint = validity.complaint(now)
    if complaint is not None:
        return Diagnostic(
            Severity.FAIL, f"the registrar's certificate {complaint}", "renew it: registries refuse the connection"
        )
    return Diagnostic(Severity.OK, f"the registrar's certificate is valid until {show_time(validity.not_after)}")


def _exposure(url: str) -> list[Diagnostic]:
    if not is_exposed(url):
        return []
    text = "the token is sent unencrypted; anyone who can read the traffic can use it"
    fix = "let the registry serve TLS (REGISTRY_TLS_CERT_FILE), and write https:// in REGISTRAR_REGISTRY_URL"
    return [Diagnostic(Severity.WARN, text, fix)]


def _instance(identity: Identity) -> Section:
    zone = f"region {identity.region or 'unknown'}, zone {identity.zone or 'unknown'}"
    diagnostics = [Diagnostic(Severity.OK, f"instance id {identity.instance_id}, {zone}")]
    if not identity.zone:
        diagnostics.append(
            Diagnostic(
                Severity.NOTE,
                "without a zone Envoy's zone-aware routing does not work for this endpoint",
                "set REGISTRAR_REGION and REGISTRAR_ZONE",
            )
        )
    return Section("Instance", diagnostics)


def _address(service: Service | None, explanations: Sequence[Explanation]) -> Section:
    title = f"Address of {service.service or 'the service'} {service.endpoint}" if service else "Address of :8080"
    advertised = "is advertised" if service else "would be advertised"
    diagnostics = [_explained(source, advertised) for source in explanations]
    if not any(source.chosen for source in explanations):
        fix = next((source.fix for source in explanations if source.fix), "")
        diagnostics.append(
            Diagnostic(
                Severity.FAIL,
                "no address was found that other machines can reach",
                fix or "set the address, like REGISTRAR_ENDPOINT=10.0.0.5:8080",
            )
        )
    return Section(title, diagnostics)


def _explained(source: Explanation, advertised: str) -> Diagnostic:
    asked = f" [{source.asked}]" if source.asked else ""
    text = f"{source.source}{asked}: {source.answered}"
    if source.chosen and source.location is not None:
        return Diagnostic(Severity.OK, f"{text} → {_text(source.location)}, which {advertised}", source.fix)
    if source.refused:
        return Diagnostic(Severity.FAIL, text, source.fix)
    also = f" → {_text(source.location)}" if source.location is not None else ""
    return Diagnostic(Severity.NOTE, f"{text}{also}", source.fix)


def _text(location: Location) -> str:
    return format_endpoint(location.address, location.port)


async def _checks(service: Service, location: Location, identity: Identity) -> Section:
    try:
        service = with_task_defaults(service, identity)
    except ConfigurationError as error:
        return Section("Checks", [Diagnostic(Severity.FAIL, fault, _fix(fault)) for fault in error.faults])
    target = CheckTarget(location.address, location.port, service.service)
    diagnostics = [await _checked(options, target) for options in service.checks]
    return Section(f"Checks of {service.service} at {_text(location)}, once each", diagnostics)


async def _checked(options: Options, target: CheckTarget) -> Diagnostic:
    kind = options.__struct_config__.tag
    if isinstance(options, PushOptions):
        return Diagnostic(Severity.NOTE, f"{kind}: not examined: the app pushes its state to a running registrar")
    result = await probe_once(options.check(target), options)
    severity = _SEVERITIES.get(result.outcome, Severity.NOTE)
    if severity is not Severity.FAIL:
        return Diagnostic(severity, f"{kind}: {result.outcome}: {result.detail}")
    if options.on_fail is not OnFail.UNHEALTHY:
        # With on_fail degraded or ignore a failure takes nothing out of rotation.
        severity = Severity.WARN
    return Diagnostic(severity, f"{kind}: {result.outcome}: {result.detail}", _fix_of_check(options, result.detail))


def _fix_of_check(options: Options, detail: str) -> str:
    """Return what to do about a failed check, by whether the app has answered with an HTTP status."""
    if isinstance(options, HttpOptions) and _STATUS.match(detail):
        return _FIX_ANSWER
    return _FIX_NETWORK if isinstance(options, NetworkOptions) else _FIX_OTHER
