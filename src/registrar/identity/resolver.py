"""Resolution of identity and address: the first source that knows wins, and the log names it."""

import time
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from registrar.errors import AddressError
from registrar.event_log import EventLogger
from registrar.identity.refusal import accept
from registrar.identity.source import Answer, Facts, Location, Source
from registrar.identity.spec import EndpointSpec
from wire.address import format_endpoint

log = EventLogger(__name__)


class Identity(Struct, frozen=True):
    """The owner of this process's endpoints.

    Attributes:
        instance_id: the task or machine.
        incarnation: larger at each start.
        region: Envoy's locality region.
        zone: Envoy's locality zone.
        cluster: the ECS cluster.
        cluster_arn: the ARN of the ECS cluster.
        task: the id of the ECS task.
        revision: the default for services that name no build.
        service: the default for services without a name.
        prober: whether it probes other endpoints when the registry asks it to, by REGISTRAR_PROBES.
    """

    instance_id: str
    incarnation: int
    region: str = ""
    zone: str = ""
    cluster: str = ""
    cluster_arn: str = ""
    task: str = ""
    revision: str = ""
    service: str = ""
    prober: bool = False


class Explanation(Struct, frozen=True):
    """One source's answer in the search for an address, as `doctor` prints it.

    Attributes:
        source: its name.
        asked: the URL, file or calls that were asked; empty when nothing was.
        answered: the answer, or why there is none.
        location: the endpoint's location in the answer, or None.
        fix: how to make the source answer; empty when nothing is wrong.
        chosen: whether this location is advertised.
        refused: whether the search ends here without an address, and ``registrar run`` with it.
    """

    source: str
    asked: str
    answered: str
    location: Location | None = None
    fix: str = ""
    chosen: bool = False
    refused: bool = False


async def resolve_identity(sources: Sequence[Source]) -> Identity:
    """Return this start's identity, each fact from the first source that knows it.

    Raises:
        IdentityError: the source that has to know the instance id does not.
    """
    known_facts: dict[str, str] = {}
    origin: dict[str, str] = {}
    for source in sources:
        if len(known_facts) == len(structs.fields(Facts)):
            break
        facts = await source.facts()
        for name in facts.__struct_fields__:
            value: str = getattr(facts, name)
            if value and name not in known_facts:
                known_facts[name], origin[f"{name}_from"] = value, source.name
    identity = structs.replace(Identity("", _first_incarnation()), **known_facts)
    fields: dict[str, Any] = {**known_facts, **origin}
    log.info("identified", incarnation=identity.incarnation, **fields)
    return identity


def restarted(identity: Identity) -> Identity:
    """Return the identity of the same instance's next start."""
    return structs.replace(identity, incarnation=max(_first_incarnation(), identity.incarnation + 1))


async def resolve_location(spec: EndpointSpec, sources: Sequence[Source], container: str = "") -> Location:
    """Return the location of the endpoint of ``spec``.

    Raises:
        AddressError: no source knows it, or its address must not be advertised.
    """
    silent: list[tuple[Source, Answer]] = []
    for source in sources:
        answer = await source.locate(spec, container)
        if answer.location is not None:
            location = accept(answer.location)
            log.info(
                "address_resolved",
                endpoint=format_endpoint(location.address, location.port),
                setting=str(spec),
                source=source.name,
                reason=answer.said,
            )
            return location
        silent.append((source, answer))
    raise _nowhere(spec, silent)


async def explain(sources: Sequence[Source], spec: EndpointSpec, container: str = "") -> list[Explanation]:
    """Return the answer of each source about ``spec``, in the order in which they are asked.

    Sources behind the one that decides are asked as well, because their answers would count if it failed; but not the
    costly ones, and none after a refusal, which ends the search.
    """
    explanations: list[Explanation] = []
    for source in sources:
        refused = next((each.source for each in explanations if each.refused), "")
        chosen = next((each.source for each in explanations if each.chosen), "")
        if refused or (chosen and source.costly):
            explanations.append(Explanation(source.name, "", f"not asked: {refused or chosen} decided"))
        else:
            explanations.append(await _explanation(source, spec, container, decided=bool(chosen)))
    return explanations


async def _explanation(source: Source, spec: EndpointSpec, container: str, *, decided: bool) -> Explanation:
    try:
        answer = await source.locate(spec, container)
    except AddressError as error:
        return Explanation(source.name, "", error.fault, fix=error.fix, refused=not decided)
    if answer.location is None:
        return Explanation(source.name, answer.asked, answer.said, fix=answer.fix)
    try:
        location = accept(answer.location)
    except AddressError as error:
        said = f"{answer.said}; {error.fault}"
        return Explanation(source.name, answer.asked, said, answer.location, error.fix, refused=not decided)
    return Explanation(source.name, answer.asked, answer.said, location, answer.fix, chosen=not decided)


def _nowhere(spec: EndpointSpec, silent: Sequence[tuple[Source, Answer]]) -> AddressError:
    """Return the error that names each source without an answer, and how to make it answer."""
    asked = ", ".join(source.name for source, _ in silent)
    fixes = [f"{source.name}: {answer.said}; {answer.fix}" for source, answer in silent if answer.fix]
    by_hand = f"name it, like REGISTRAR_ENDPOINT=10.0.0.5:{spec.port}"
    return AddressError(f"no address found for {spec} (asked: {asked})", ". Or ".join([*fixes, by_hand]))


def _first_incarnation() -> int:
    """Return milliseconds since the epoch: larger at each start, as long as the clock is right.

    Where it is not, the registry's 409 names the incarnation to exceed; see ``lease``.
    """
    return max(1, time.time_ns() // 1_000_000)
