"""The errand `config`: a section of Envoy's configuration, without what is secret in it."""

from collections.abc import Sequence
from functools import partial

import msgspec

from registrar.errands.admin import ErrandAdmin
from registrar.errands.redaction import Redaction
from registrar.errands.refused import RefusedError
from registrar.thread_call import call_in_thread
from wire.errand import Config, ConfigResult, Section

MAX_BYTES = 200 * 1024
"""Bytes of the resources in a result."""


async def look(admin: ErrandAdmin, wanted: Config) -> ConfigResult:
    """Return the resources of a section, as many as fit.

    Raises:
        EnvoyAdminError: Envoy did not answer, or the section is too long.
        RefusedError: no resource has the name.
        msgspec.DecodeError: the answer is not as Envoy writes it.
    """
    resources = await admin.config(wanted.section, wanted.name)
    if wanted.name and not resources:
        raise RefusedError(f"this Envoy has none of {wanted.section} named {wanted.name}")
    # Megabytes take seconds, in which heartbeats are due and Envoy probes the edge.
    return await call_in_thread(partial(_shown, wanted.section, resources))


def _shown(section: Section, resources: Sequence[msgspec.Raw]) -> ConfigResult:
    redaction = Redaction()
    shown = []
    room = MAX_BYTES
    for resource in resources:
        document = redaction.shown(msgspec.json.decode(resource))
        room -= len(msgspec.json.encode(document))
        if room < 0:
            break
        shown.append(document)
    return ConfigResult(section, shown, redaction.cut, len(resources) - len(shown))
