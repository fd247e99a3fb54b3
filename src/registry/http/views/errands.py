"""The JSON documents of errands."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from registry.core.errands import MAX_ALL, MAX_REGISTRARS, State, StoredErrand
from registry.http.openapi import show_examples
from registry.http.views.epoch import Epoch
from registry.usecases.errands import Question
from wire.errand import OPTIONAL_SERVICE_PATTERN, Arguments, Clusters, ErrandResult, verb_of
from wire.model import Text

_decode = msgspec.json.Decoder(ErrandResult).decode


class ErrandRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A question to the Envoys of a service, or to the one beside an endpoint."""

    arguments: Annotated[Arguments, Meta(description="The verb and what it needs.")]
    service: Annotated[
        str,
        Meta(
            max_length=255,
            pattern=OPTIONAL_SERVICE_PATTERN,
            description="May be left out where one service alone has the endpoint.",
        ),
    ] = ""
    endpoint: Annotated[str, Meta(max_length=64, description="ip:port; IPv6 in brackets. The one Envoy to ask.")] = ""
    reason: Annotated[Text, Meta(description="Why, for the history.")] = ""
    all: Annotated[
        bool,
        Meta(description=f"Ask every registrar, up to {MAX_ALL}; otherwise {MAX_REGISTRARS} of them, in every zone."),
    ] = False
    confirm: Annotated[
        str, Meta(max_length=255, description="The name of the service whose Envoys are asked; all needs it.")
    ] = ""


class ErrandView(Struct, frozen=True):
    """An errand: what was asked of which registrar, by whom, and what has become of it."""

    id: str
    service: str
    endpoint: str
    instance_id: str
    verb: str
    state: Annotated[
        State,
        Meta(
            description="`asked`: waits for its registrar. `collected`: its registrar has it. `answered`: there is a "
            "result. `not_collected`, `not_answered`, `lost`: there will be none, and `explanation` says why."
        ),
    ]
    asked_at: Epoch
    actor: str
    reason: str
    callee: Annotated[str, Meta(description="The service whose requests the caller's Envoy looks at; else empty.")] = ""
    explanation: str = ""
    result: ErrandResult | None = None


class ErrandsAsked(Struct, frozen=True):
    """The errands that one question made; `GET /v1/errands/{id}` has the result of each."""

    errands: list[ErrandView]
    registrars: Annotated[int, Meta(description="Registrars that could have been asked.")]


class ErrandAnswered(Struct, frozen=True):
    """Whether a result was taken, or the errand had one already."""

    taken: bool


def errand_view(errand: StoredErrand) -> ErrandView:
    """Return the document of an errand."""
    return ErrandView(
        errand.id,
        errand.service,
        errand.endpoint,
        errand.instance_id,
        verb_of(errand.arguments),
        errand.state,
        errand.asked_at,
        errand.actor,
        errand.reason,
        errand.callee,
        errand.explanation,
        None if errand.result is None else _decode(errand.result),
    )


def question_view(question: Question) -> ErrandsAsked:
    """Return the document of a question."""
    return ErrandsAsked([errand_view(each) for each in question.errands], question.registrars)


_ASKED = StoredErrand(
    id="5b1d0f6a9c3e7a42",
    service="shop",
    address="10.0.0.5",
    port=8080,
    instance_id="i-0abc",
    arguments=Clusters("payments"),
    callee="",
    reason="payments fails",
    actor="anna",
    now=1_763_600_000.0,
    asked_at=1_763_600_000.0,
    collect_until=1_763_600_015.0,
    answer_seconds=15.0,
)
show_examples(errand_view(_ASKED), question_view(Question([_ASKED], 3)))
