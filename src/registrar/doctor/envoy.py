"""The examination of the Envoy beside, whose admin interface traffic figures, shifts and errands are from."""

from registrar.diagnostic import Diagnostic, Section, Severity
from registrar.envoy_admin.address import EnvoyAdminAddress
from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.errors import EnvoyAdminError

_TIMEOUT = 2.0
"""Seconds in which an Envoy has to answer; it does so on its main thread."""
_MAX_BYTES = 64 * 1024
"""Bytes of an Envoy's description of itself at most; it has about 10 kB."""


async def examine_envoy(address: EnvoyAdminAddress) -> Section:
    """Return whether an Envoy answers at the address of its admin interface."""
    return Section("Envoy", [await _answers(address)])


async def _answers(address: EnvoyAdminAddress) -> Diagnostic:
    try:
        answer = await EnvoyAdminClient(address, _TIMEOUT).read("/server_info", max_bytes=_MAX_BYTES)
    except EnvoyAdminError as error:
        text = f"no Envoy answers: {error}; its traffic is not reported, no shift counts it, and errands fail"
        fix = "start Envoy, or set REGISTRAR_ENVOY_ADMIN to the address of `admin` in its bootstrap"
        return Diagnostic(Severity.WARN, text, fix)
    if b'"hot_restart_version"' not in answer:
        text = f"what answers at {address} is no Envoy's admin interface"
        return Diagnostic(Severity.WARN, text, "set REGISTRAR_ENVOY_ADMIN to the address of `admin` in its bootstrap")
    return Diagnostic(Severity.OK, f"an Envoy answers at {address}")
