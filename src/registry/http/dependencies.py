"""Arguments of routes: the use cases that they call, and the principal that asks.

`registry.process` builds each use case once, and `registry.app` keeps them by their class. FastAPI passes a route those
that its arguments are annotated with.
"""

from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Header, Request

from registry.auth.certificate import certificate_names, certificate_of
from registry.auth.principal import AUTHORIZATION, Principal, peer_of
from registry.client_deadline import note_client_wait
from registry.core.clock import Clock
from registry.http.browser_session import session_of, statements_of
from registry.http.headers import PREFER, header
from registry.http.lists.document import Conditions, conditions_of
from registry.http.lists.lists import Lists
from registry.settings import Settings
from registry.usecases.audit import AuditTrail
from registry.usecases.authentication import Authentication
from registry.usecases.bulk import BulkChanges
from registry.usecases.catalog import Catalog
from registry.usecases.credentials import Credentials
from registry.usecases.drop_in import DropInHosts
from registry.usecases.errands import Errands
from registry.usecases.expiry import ExpiryControl
from registry.usecases.explain import Explanations
from registry.usecases.heartbeat import Heartbeats
from registry.usecases.history import History
from registry.usecases.login import Logins
from registry.usecases.mesh import MeshConfiguration
from registry.usecases.mesh_revisions import MeshRevisions
from registry.usecases.mesh_rollout import MeshRollouts
from registry.usecases.mesh_services import MeshServices
from registry.usecases.mesh_status import MeshStatus
from registry.usecases.oidc_sign_in import OidcSignIns
from registry.usecases.operator_deregistration import OperatorDeregistration
from registry.usecases.overrides import OverrideListing
from registry.usecases.presence import ServiceStrength
from registry.usecases.probe_reports import ProbeReports
from registry.usecases.process_health import ProcessHealth
from registry.usecases.registration import Registrations
from registry.usecases.shares import TrafficShares
from registry.usecases.shifts import TrafficShifts
from registry.usecases.sign_in import SignIns
from registry.usecases.silence import Silences
from registry.usecases.status import Status
from registry.usecases.subscribers import SubscriberListing
from registry.usecases.traffic import Traffic
from registry.usecases.verdict import Verdicts
from registry.usecases.whoami import Whoami
from registry.xds.discovery import Discovery
from registry.xds.edge_discovery import EdgeDiscovery
from wire.token_masking import without_tokens

Part = TypeVar("Part")


def part_of(request: Request, kind: type[Part]) -> Part:
    """Return the part of this class that the application was built with."""
    part = request.app.state.parts.get(kind)
    if part is None:
        raise TypeError(f"the application was built without a {kind.__name__}")
    return cast("Part", part)


def _part(kind: type[Part]) -> Any:  # noqa: ANN401  # as FastAPI's Depends
    async def find(request: Request) -> Part:
        return part_of(request, kind)

    return Depends(find)


AuditPart = Annotated[AuditTrail, _part(AuditTrail)]
BulkPart = Annotated[BulkChanges, _part(BulkChanges)]
CatalogPart = Annotated[Catalog, _part(Catalog)]
ClockPart = Annotated[Clock, _part(Clock)]
CredentialsPart = Annotated[Credentials, _part(Credentials)]
DiscoveryPart = Annotated[Discovery, _part(Discovery)]
EdgePart = Annotated[EdgeDiscovery, _part(EdgeDiscovery)]
DropInPart = Annotated[DropInHosts, _part(DropInHosts)]
ErrandsPart = Annotated[Errands, _part(Errands)]
ExpiryPart = Annotated[ExpiryControl, _part(ExpiryControl)]
ExplanationsPart = Annotated[Explanations, _part(Explanations)]
HeartbeatsPart = Annotated[Heartbeats, _part(Heartbeats)]
HistoryPart = Annotated[History, _part(History)]
OidcSignInsPart = Annotated[OidcSignIns, _part(OidcSignIns)]
OperatorDeregistrationPart = Annotated[OperatorDeregistration, _part(OperatorDeregistration)]
OverridesPart = Annotated[OverrideListing, _part(OverrideListing)]
ProcessHealthPart = Annotated[ProcessHealth, _part(ProcessHealth)]
MeshRolloutPart = Annotated[MeshRollouts, _part(MeshRollouts)]
MeshPart = Annotated[MeshConfiguration, _part(MeshConfiguration)]
MeshRevisionsPart = Annotated[MeshRevisions, _part(MeshRevisions)]
MeshServicesPart = Annotated[MeshServices, _part(MeshServices)]
MeshStatusPart = Annotated[MeshStatus, _part(MeshStatus)]
ListsPart = Annotated[Lists, _part(Lists)]
LoginsPart = Annotated[Logins, _part(Logins)]
ProbeReportsPart = Annotated[ProbeReports, _part(ProbeReports)]
RegistrationsPart = Annotated[Registrations, _part(Registrations)]
SettingsPart = Annotated[Settings, _part(Settings)]
SignInsPart = Annotated[SignIns, _part(SignIns)]
SharesPart = Annotated[TrafficShares, _part(TrafficShares)]
ShiftsPart = Annotated[TrafficShifts, _part(TrafficShifts)]
SilencesPart = Annotated[Silences, _part(Silences)]
StrengthPart = Annotated[ServiceStrength, _part(ServiceStrength)]
StatusPart = Annotated[Status, _part(Status)]
SubscribersPart = Annotated[SubscriberListing, _part(SubscriberListing)]
TrafficPart = Annotated[Traffic, _part(Traffic)]
VerdictsPart = Annotated[Verdicts, _part(Verdicts)]
WhoamiPart = Annotated[Whoami, _part(Whoami)]


async def _check_ready(request: Request) -> None:
    # Asked for here, and not as an argument: FastAPI would look at the arguments anew for each of 107 routes.
    part_of(request, ProcessHealth).check_ready()


READY = Depends(_check_ready)
"""For a router whose routes are answered 503 until this process has read the registry's state."""


async def principal_of(request: Request, actor: str = "") -> Principal:
    """Return the principal of a request that the application answers."""
    authorization = header(request.scope["headers"], AUTHORIZATION)
    authentication = part_of(request, Authentication)
    names = certificate_names(certificate_of(request.scope))
    return await authentication.principal(
        peer_of(request.client),
        authorization,
        names,
        actor=actor,
        cookie=session_of(request.scope),
        statements=statements_of(request.scope),
    )


async def _reader(request: Request) -> Principal:
    return await _principal_in_time(request)


async def _actor(
    request: Request,
    x_actor: Annotated[
        str | None,
        Header(
            max_length=128,
            pattern=r"^[A-Za-z0-9 ._@:+/-]*$",
            description="Who asks, for the history. Not verified.",
        ),
    ] = None,
) -> Principal:
    return await _principal_in_time(request, without_tokens(x_actor or ""))


async def _principal_in_time(request: Request, actor: str = "") -> Principal:
    """Return the principal of a request, and note how long its client waits, before anything is waited for."""
    note_client_wait(header(request.scope["headers"], PREFER))
    return await principal_of(request, actor)


Reader = Annotated[Principal, Depends(_reader)]
"""The principal of a request that changes nothing."""
Actor = Annotated[Principal, Depends(_actor)]
"""The principal of a write, which may name itself for the history."""


async def _conditions(
    request: Request,
    _if_none_match: Annotated[
        str | None, Header(alias="if-none-match", description="The ETag that is held already.")
    ] = None,
) -> Conditions:
    return conditions_of(request.scope["headers"])


Taken = Annotated[Conditions, Depends(_conditions)]
"""The representation of a list that a request takes."""
