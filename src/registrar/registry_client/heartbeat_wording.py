"""The names that each registry reads in a batch of heartbeats; needed for this version alone.

A registry of the version before calls the lists ``beats`` and ``answers`` and refuses any other name.
"""

import msgspec
from msgspec import Struct

from registrar.registry_client.registries import RegistryAddress
from wire.model import DeprecatedHeartbeatBatch, DeprecatedHeartbeatResults, HeartbeatBatch, HeartbeatResults
from wire.problem import Problem

TRIAL_INTERVAL = 300.0
"""Seconds between two trials at one registry; one that is upgraded is sent the current names by then."""


class Wording(Struct, frozen=True):
    """One set of names for a batch's two lists.

    Attributes:
        batch: type of the request.
        results: decoder of the response.
    """

    batch: type[HeartbeatBatch]
    results: msgspec.json.Decoder[HeartbeatResults]


CURRENT = Wording(HeartbeatBatch, msgspec.json.Decoder(HeartbeatResults))
DEPRECATED = Wording(DeprecatedHeartbeatBatch, msgspec.json.Decoder(DeprecatedHeartbeatResults))


class Wordings:
    """The wording that each registry is sent.

    A registry is sent the current one first, and the deprecated one once when it did not understand that. The outcome
    of such a trial is remembered for five minutes, so that a registry of the version before costs no second request
    with each heartbeat, and neither does one that understands neither. Only what the registry itself responds is an
    outcome: behind a proxy that refuses batches, each is tried in both.
    """

    def __init__(self) -> None:
        # Registries that understood the deprecated wording alone, and until when that is believed, on the loop's
        # clock. Written after each trial.
        self._deprecated: dict[RegistryAddress, float] = {}
        # Refusals, by registry and status, that the registry itself repeated for the other wording, and until when that
        # is believed, on the loop's clock. Written after each trial.
        self._futile: dict[tuple[RegistryAddress, int], float] = {}

    def first(self, registry: RegistryAddress, now: float) -> Wording:
        """Return the wording to send."""
        return DEPRECATED if now < self._deprecated.get(registry, now) else CURRENT

    def second(self, registry: RegistryAddress, sent: Wording, problem: Problem, now: float) -> Wording | None:
        """Return the wording to try after a refusal; None when another one would not help."""
        if not not_understood(problem) or now < self._futile.get((registry, problem.status), now):
            return None
        return CURRENT if sent is DEPRECATED else DEPRECATED

    def understood(self, registry: RegistryAddress, wording: Wording, now: float) -> None:
        """Take note that the second wording was the right one."""
        self._deprecated = {each: until for each, until in self._deprecated.items() if now < until}
        if wording is DEPRECATED:
            self._deprecated[registry] = now + TRIAL_INTERVAL
        else:
            self._deprecated.pop(registry, None)

    def futile(self, registry: RegistryAddress, problem: Problem, now: float) -> None:
        """Take note that this refusal is not about the wording."""
        self._futile = {refusal: until for refusal, until in self._futile.items() if now < until}
        self._futile[registry, problem.status] = now + TRIAL_INTERVAL


def not_understood(problem: Problem) -> bool:
    """Return whether a refusal may be about the names in the batch, and is not about one heartbeat in it."""
    return problem.status == 404 or (problem.status == 422 and problem.pointer in (None, "$"))
