"""The change of one endpoint in a transaction: as it was loaded, and as it is to be stored."""

from msgspec.structs import replace

from registry.core.endpoint import Endpoint


class EndpointChange:
    """One endpoint of a changeset: as it was loaded (None: it is new), and as it is to be stored."""

    __slots__ = ("after", "before", "gained", "granted")

    def __init__(self, before: Endpoint | None, after: Endpoint) -> None:
        self.before = before
        self.after = after
        self.gained = False
        """Whether the service has one endpoint more by it, which may fill the place of a lost one."""
        self.granted = False
        """Whether this transaction grants the endpoint a lease."""

    @property
    def changed(self) -> bool:
        """Whether the endpoint has to be stored."""
        return self.before != self.after

    @property
    def leased(self) -> bool:
        """Whether the endpoint may hold a lease; one that lapsed, left or was removed may not."""
        row = self.after
        return row.lapsed_at is None and row.leaving_at is None and row.removed_at is None

    def stored_as(self, endpoint_id: int) -> None:
        """Set the id that the database gave to a new endpoint."""
        self.after = replace(self.after, id=endpoint_id)

    @property
    def visible(self) -> bool:
        """Whether Envoy can see the change, so that the service needs a new version."""
        was_listed = self.before is not None and self.before.removed_at is None
        is_listed = self.after.removed_at is None
        if was_listed and is_listed and self.before is not None:
            return self.before.visible != self.after.visible
        return was_listed or is_listed
