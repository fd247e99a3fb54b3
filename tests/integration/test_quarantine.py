"""What was written past the API spoils no answer: it is kept out alone, counted, shown and replaced."""

from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import registry


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("weight = 0", "weight 0 is not from 1 to 10000"),
        ("weight = 4000000000 / 2", "weight 2000000000 is not from 1 to 10000"),
        ("address = '0.0.0.0'", "is not an address that traffic can be sent to"),
        ("metadata = '[1]'", "the metadata is no JSON object"),
        ("health = 'healthy'", "'healthy' is not a valid Report"),
    ],
)
def test_a_spoilt_row_is_kept_out_alone(
    database: str, server: Postgres, workplace: Path, service: str, spoil: str, reason: str
) -> None:
    """The other endpoints stay as they are, and the row is shown with its reason."""
    with registry(database, workplace) as found:
        found.register(service, "10.0.0.1:80")
        found.register(service, "10.0.0.2:80")
        change = "change = change + 100"
        server.execute(f"UPDATE endpoints SET {spoil}, {change} WHERE host(address) = '10.0.0.2'", url=database)
        server.execute(f"UPDATE services SET {change}, version = version + 100", url=database)
        server.execute("SELECT pg_notify('headcount_changes', $1)", service, url=database)

        def quarantined() -> bool:
            told = found.client.get(f"/v1/services/{service}").json()
            return any(reason in why for why in told["quarantined"].values())

        eventually(quarantined, within=6)
        assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"
        if "address" not in spoil:
            # The row is not in the answers, its owner's next registration mends it, and nothing failed meanwhile.
            told = found.client.get(f"/v1/services/{service}/endpoints/10.0.0.2:80/explain").json()
            assert "quarantined" in told["because"][0]
            assert found.register(service, "10.0.0.2:80").status_code == 200
            assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY", "10.0.0.2:80": "HEALTHY"}
            assert found.client.get(f"/v1/services/{service}").json()["quarantined"] == {}
