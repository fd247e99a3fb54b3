"""One service of a gateway that is refused holds back neither the others nor another gateway."""

from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshconfig.effective import Configuration
from meshconfig.gateway_isolation import GatewayRefusedError, IsolatedGateway, isolate
from meshconfig.position import Fault, Position
from meshconfig.proof import RefusedPart
from meshconfig.resource import Catalog, Snapshot
from meshconfig.snapshot import compile_gateways

GATEWAY = "listen: {port: 50051}\nselect: {metadata: {protocol: grpc}}\npaths: true\n"
FILES = {
    "gateways/staging.yaml": GATEWAY,
    "gateways/other.yaml": "listen: {port: 50052}\nselect: {services: [listed, shop]}\n",
    "edges/www.yaml": "broken: here\n",
    "services/shop.yaml": "service: shop\nprovides: {defaults: {timeout: 3s}}\n",
}
GRPC = {"protocol": ("grpc",)}


def catalog(**services: str) -> Catalog:
    """Return a catalog of services, each with the gRPC service that it announces."""
    return Catalog(dict.fromkeys(services, GRPC), {name: (announced,) for name, announced in services.items()})


class Prover:
    """An Envoy that refuses clusters by name, and routes by the path that they have."""

    def __init__(
        self, clusters: Collection[str] = (), paths: Collection[str] = (), *, everything: bool = False
    ) -> None:
        self._clusters = clusters
        self._paths = paths
        self._everything = everything

    def __call__(self, _configuration: Configuration, snapshot: Snapshot) -> Sequence[RefusedPart]:
        """Return what it refuses."""
        fault = Fault(Position("gateways/staging.yaml"), "Envoy refuses it.")
        if self._everything:
            return [RefusedPart(fault)]
        ((_, kinds),) = snapshot.nodes.items()
        clusters = [RefusedPart(fault, name) for name in kinds["clusters"] if name in self._clusters]
        body = kinds["routes"]["default"].body.decode()
        routes = [RefusedPart(fault, path.partition(".")[0]) for path in self._paths if f'"/{path}/"' in body]
        return [*clusters, *routes]


def isolated(
    registered: Catalog,
    prover: Prover,
    *,
    accepted: Catalog = Catalog(),  # noqa: B008  # it is frozen
    served: Collection[str] = (),
    name: str = "staging",
) -> IsolatedGateway:
    """Return the gateway as it may be served."""
    gateway = isolate(FILES, name, registered, accepted, served, prover)
    assert gateway is not None
    return gateway


def services(gateway: IsolatedGateway) -> list[str]:
    """Return the services that a gateway leads to."""
    ((_, kinds),) = gateway.snapshot.nodes.items()
    return sorted(kinds["clusters"])


def test_a_new_service_that_is_refused_is_left_out() -> None:
    """The others are served, those that are new too."""
    gateway = isolated(catalog(a="a.v1.A", bad="bad.v1.B", new="n.v1.N"), Prover({"bad"}), served={"a"})
    assert services(gateway) == ["a", "new"]
    assert set(gateway.refused) == {"bad"}
    assert "bad" not in gateway.catalog.metadata


def test_a_service_that_changed_for_the_worse_is_served_as_it_was() -> None:
    """Its change is refused, and not its requests; a second service comes meanwhile."""
    gateway = isolated(
        catalog(a="a.v2", new="n.v1.N"), Prover(paths={"a.v2"}), accepted=catalog(a="a.v1"), served={"a"}
    )
    assert services(gateway) == ["a", "new"]
    assert b'"/a.v1/"' in gateway.snapshot.nodes["staging"]["routes"]["default"].body
    assert gateway.catalog.grpc_services["a"] == ("a.v1",)
    assert set(gateway.refused) == {"a"}


@pytest.mark.parametrize("accepted", [Catalog(), catalog(a="a.v1.A")])
def test_a_served_service_is_never_left_out(accepted: Catalog) -> None:
    """Its clients would get 404. Where nobody knows how it was, or it is refused as it was too, the gateway stays."""
    with pytest.raises(GatewayRefusedError) as error:
        isolated(catalog(a="a.v1.A", new="n.v1.N"), Prover({"a"}), accepted=accepted, served={"a"})
    assert error.value.service == "a"


def test_a_refusal_of_no_service_is_the_gateways_affair() -> None:
    """A listener is refused as a whole; leaving services out would empty it."""
    with pytest.raises(GatewayRefusedError) as error:
        isolated(catalog(a="a.v1.A"), Prover(everything=True))
    assert error.value.service == ""


def test_a_file_of_another_service_that_is_refused_by_now_does_not_matter() -> None:
    """A newer version may refuse what an older one took: only the gateways that use the service are concerned."""
    files = {**FILES, "services/shop.yaml": "service: shop\nunheard: of\n"}
    gateway = isolate(files, "staging", catalog(a="a.v1.A"), Catalog(), {"a"}, Prover())
    assert gateway is not None
    assert (services(gateway), gateway.refused) == (["a"], {})
    with pytest.raises(GatewayRefusedError, match=r"services/shop\.yaml:2:1"):
        isolate(files, "other", Catalog(), Catalog(), {"shop"}, Prover())
    other = isolate(files, "other", Catalog(), Catalog(), {"listed"}, Prover())
    assert other is not None
    assert (services(other), set(other.refused)) == (["listed"], {"shop"})


def test_a_file_of_the_gateway_itself_that_is_refused_is_its_affair() -> None:
    """Another gateway is compiled as before."""
    files = {**FILES, "gateways/staging.yaml": "unheard: of\n"}
    with pytest.raises(GatewayRefusedError, match=r"gateways/staging\.yaml"):
        isolate(files, "staging", Catalog(), Catalog(), (), Prover())
    assert isolate(files, "other", Catalog(), Catalog(), (), Prover()) is not None


@pytest.mark.parametrize("name", ["www", "shop", "nobody"])
def test_what_is_no_gateway_is_nothing(name: str) -> None:
    """Edges have listeners as well."""
    assert isolate(FILES, name, Catalog(), Catalog(), (), Prover()) is None


def test_a_defect_of_the_compiler_holds_back_the_service_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The services are tried one by one, where compiling them together fails."""

    def defective(configuration: Configuration, registered: Catalog) -> Snapshot:
        if "bad" in registered.metadata:
            raise ZeroDivisionError
        return compile_gateways(configuration, registered)

    monkeypatch.setattr("meshconfig.gateway_isolation.compile_gateways", defective)
    gateway = isolated(catalog(a="a.v1.A", bad="bad.v1.B"), Prover(), served={"a"})
    assert services(gateway) == ["a"]
    assert "ZeroDivisionError" in gateway.refused["bad"]


NAMES = st.sets(st.sampled_from("abcdef"))


@given(registered=NAMES, refused=NAMES, accepted=NAMES, served=NAMES)
def test_no_served_service_is_lost_and_no_refused_cluster_served(
    registered: set[str], refused: set[str], accepted: set[str], served: set[str]
) -> None:
    """Whatever is refused, a gateway that is served new has all good services, and those of its own that it had."""
    served &= registered
    before = catalog(**{name: f"{name}.before" for name in accepted})
    now = catalog(**{name: f"{name}.now" for name in registered})
    if lost := refused & served:
        with pytest.raises(GatewayRefusedError) as error:
            isolated(now, Prover(refused), accepted=before, served=served)
        assert error.value.service in lost
        return
    gateway = isolated(now, Prover(refused), accepted=before, served=served)
    assert set(services(gateway)) == registered - refused
