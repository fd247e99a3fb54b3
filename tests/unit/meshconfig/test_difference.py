"""The difference of two configurations: meanings rather than texts, with positions, equal ones put together."""

from msgspec.structs import replace

from meshconfig.change import Change
from meshconfig.definition.admin import Admin
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.fault_injection import FaultInjection
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.retry import Retry
from meshconfig.definition.route import HeaderMatch, Route
from meshconfig.definition.service import Objectives
from meshconfig.difference import differences
from meshconfig.effective import Caller, Configuration, Origin
from meshconfig.position import BUILT_IN, Position
from meshconfig.repository import read

BUILT_IN_ORIGIN = Origin("built in", BUILT_IN)


def configuration(*callers: Caller, mesh: Mesh | None = None) -> Configuration:
    """Return a configuration of these callers."""
    return Configuration(mesh=mesh or Mesh(), callers={caller.service: caller for caller in callers})


def caller(service: str, *dependencies: Dependency, origins: dict[str, Origin] | None = None) -> Caller:
    """Return a caller of these dependencies."""
    return Caller(service, dependencies, origins=origins or {})


def dependency(name: str, *routes: Route) -> Dependency:
    """Return a dependency on the service of this name, with one route for all unless some are given."""
    return Dependency(name=name, service=name, routes=routes or (Route(prefix="/"),))


def only(before: Configuration, after: Configuration) -> Change:
    """Return the single difference."""
    [change] = differences(before, after)
    return change


def test_equal_configurations_do_not_differ() -> None:
    """Equal values are no difference, wherever they are written."""
    written = {"user.routes[0].timeout": Origin("mesh", Position("mesh.yaml", 3, 1))}
    before = configuration(caller("web", dependency("user")))
    after = configuration(caller("web", dependency("user"), origins=written))
    assert differences(before, after) == []


def test_a_value_of_a_route_is_named_with_its_line() -> None:
    """A narrowed timeout is one change of one route, at the line that writes it, in the spelling of a file."""
    at = Origin("route", Position("services/web.yaml", 12, 5))
    before = configuration(caller("web", dependency("user", Route(path="/ping", timeout=0.1))))
    after = configuration(
        caller("web", dependency("user", Route(path="/ping", timeout=90)), origins={"user.routes[0].timeout": at})
    )
    assert only(before, after) == Change(
        "changed", ("web → user /ping",), ("web",), "timeout", "100ms", "1m30s", at.position, "route"
    )


def test_a_default_is_one_change_with_all_whom_it_concerns() -> None:
    """The same line that changes the same value for many routes is told once."""
    at = Origin("mesh", Position("mesh.yaml", 7, 3))
    names = ("cart", "web")
    before = configuration(*(caller(name, dependency("user")) for name in names))
    after = configuration(
        *(
            caller(name, dependency("user", Route(prefix="/", timeout=3)), origins={"user.routes[0].timeout": at})
            for name in names
        )
    )
    change = only(before, after)
    assert (change.subjects, change.nodes, change.layer) == (("cart → user", "web → user"), names, "mesh")


def test_a_line_that_was_deleted_is_the_position_of_the_built_in_value() -> None:
    """No file writes the new value, so that the change points to the line that wrote the old one."""
    old = Origin("dependency", Position("services/web.yaml", 9, 3))
    path = "user.routes[0].retry.attempts"
    before = configuration(
        caller("web", dependency("user", Route(prefix="/", retry=Retry(attempts=5))), origins={path: old})
    )
    after = configuration(caller("web", dependency("user"), origins={path: BUILT_IN_ORIGIN}))
    change = only(before, after)
    assert (change.field, change.before, change.after) == ("retry.attempts", "5", "3")
    assert (change.position, change.layer) == (old.position, "built in")


def test_switching_a_policy_is_a_change_of_the_whole_block() -> None:
    """``null`` is ``off``; a block of nothing but built-in values is ``on``."""
    before = configuration(caller("web", dependency("user")))
    after = configuration(caller("web", dependency("user", Route(prefix="/", retry=None))))
    change, back = only(before, after), only(after, before)
    assert (change.field, change.before, change.after) == ("retry", "on", "off")
    assert (back.before, back.after) == ("off", "on")


def test_routes_are_matched_by_what_they_match() -> None:
    """An inserted route is an addition and does not change the routes behind it."""
    rest = Route(prefix="/", timeout=1)
    canary = Route(prefix="/api", methods=("GET",), headers=(HeaderMatch(name="x-user", exact="jason"),))
    before = configuration(caller("web", dependency("user", rest)))
    after = configuration(caller("web", dependency("user", canary, rest)))
    change = only(before, after)
    assert (change.what, change.subjects) == ("added", ("web → user GET /api* [x-user: jason]",))


def test_a_new_order_of_routes_is_a_change() -> None:
    """The first route that matches wins, so that their order has a meaning."""
    routes = (Route(prefix="/a"), Route(prefix="/"))
    before = configuration(caller("web", dependency("user", *routes)))
    after = configuration(caller("web", dependency("user", *reversed(routes))))
    change = only(before, after)
    assert (change.field, change.before, change.after) == ("order of routes", "[/a*, /*]", "[/*, /a*]")


def test_dependencies_and_callers_come_and_go() -> None:
    """Each comes and goes with a word about what it leads to."""
    before = configuration(caller("web", dependency("user")))
    after = configuration(
        caller("web", Dependency(name="pay", address="pay.example:443", routes=(Route(prefix="/"),))), caller("cart")
    )
    told = [(each.what, each.subjects[0], each.before or each.after) for each in differences(before, after)]
    assert told == [
        ("added", "cart", "calls nothing"),
        ("added", "web → pay", "address pay.example:443, http1"),
        ("removed", "web → user", "service user, http1"),
    ]


def test_a_target_of_a_split_changes_by_value_alone() -> None:
    """The split says that a target comes or goes; a policy of a target that stays is compared."""
    target = Dependency(name="next", service="next")
    before = configuration(Caller("web", targets=(target,)))
    after = configuration(Caller("web", targets=(replace(target, keep_alive=1.5),)))
    assert only(before, after).field == "keep_alive"
    assert differences(before, configuration(caller("web"))) == []


def test_mesh_gateways_and_objectives_are_compared() -> None:
    """What stands in the bootstrap is marked: Envoys take it when they start."""
    staging = Gateway(gateway="staging", listen=GatewayListen(port=50051), select=Select())
    before = Configuration(gateways={"staging": staging})
    after = Configuration(
        mesh=Mesh(admin=Admin(port=9902), dns_family="auto"),
        gateways={"staging": replace(staging, paths=True)},
        objectives={"user": Objectives(p99=0.3)},
    )
    assert [(each.subjects[0], each.field, each.after, each.bootstrap) for each in differences(before, after)] == [
        ("gateway staging", "paths", "true", False),
        ("mesh", "admin.port", "9902", True),
        ("mesh", "dns_family", "auto", False),
        ("user slo", "p99", "300ms", False),
    ]


def test_a_fault_is_told_with_its_content() -> None:
    """A block that is written where there was none is shown with what it writes."""
    before = configuration(caller("web", dependency("user")))
    after = configuration(caller("web", dependency("user", Route(prefix="/", fault=FaultInjection(abort=None)))))
    assert only(before, after).after == "on"


def test_policies_of_a_gateway_are_compared_for_each_service() -> None:
    """A callee's new default changes how a gateway uses it; a service that comes or goes does not."""
    gateways = {"staging": Gateway(gateway="staging", listen=GatewayListen(port=50051), select=Select())}
    user, cart = Dependency(name="user", service="user"), Dependency(name="cart", service="cart")
    before = Configuration(gateways=gateways, targets={"staging": {"user": user}})
    after = Configuration(gateways=gateways, targets={"staging": {"user": replace(user, timeout=1), "cart": cart}})
    change = only(before, after)
    assert (change.subjects, change.field, change.after) == (("gateway staging → user",), "timeout", "1s")


def test_a_gateway_differs_by_the_services_that_it_serves_alone() -> None:
    """Where that is known; and the line is the one that is changed, in the callee's file."""
    gateway = "listen: {port: 50051}\nselect: {metadata: {tier: web}}\n"
    former, latter = (
        read({"gateways/staging.yaml": gateway, "services/user.yaml": f"provides: {{defaults: {{timeout: {time}}}}}\n"})
        for time in ("3s", "4s")
    )
    assert former[0] is not None
    assert latter[0] is not None
    assert differences(former[0], latter[0], {"staging": ()}) == []
    (change,) = differences(former[0], latter[0], {"staging": ("user",)})
    assert (change.subjects, change.field) == (("gateway staging → user",), "timeout")
    assert str(change.position) == "services/user.yaml:1:32"


def test_values_of_the_mesh_gateways_and_edges_have_lines() -> None:
    """Their origins say where each is written; a route of a site is named by its place in the lists."""
    files = {
        "mesh.yaml": "admin:\n  port: 9902\n",
        "gateways/staging.yaml": "gateway: staging\nlisten: {port: 50051}\nselect: {services: [web]}\npaths: true\n",
        "edges/www.yaml": (
            "edge: www\nlisten: {port: 8080}\nsites:\n- hosts: [www.example]\n  routes:\n"
            "  - {prefix: /, service: web, timeout: 3s}\n"
        ),
        "services/web.yaml": "service: web\n",
    }
    edited = {
        "mesh.yaml": "admin:\n  port: 9903\n",
        "gateways/staging.yaml": files["gateways/staging.yaml"].replace("true", "false"),
        "edges/www.yaml": files["edges/www.yaml"].replace("3s", "4s"),
    }
    before, faults = read(files)
    after, _ = read(files | edited)
    assert before is not None, faults
    assert after is not None
    assert [(str(each.position), each.subjects, each.field) for each in differences(before, after)] == [
        ("edges/www.yaml:6:40", ("edge www",), "sites[0].routes[0].timeout"),
        ("gateways/staging.yaml:4:8", ("gateway staging",), "paths"),
        ("mesh.yaml:2:9", ("mesh",), "admin.port"),
    ]


def test_a_first_definition_changes_nothing_that_was_there() -> None:
    """Its mesh is new as a whole, and no value of it was another one before."""
    after, _ = read({"mesh.yaml": "environment: staging\ndrain_time: 1m\n", "services/web.yaml": ""})
    assert after is not None
    mesh, web = differences(Configuration(), after)
    assert (mesh.what, mesh.subjects, mesh.after) == (
        "added",
        ("mesh",),
        "environment staging, registries [127.0.0.1:8080]",
    )
    assert (web.what, web.subjects) == ("added", ("web",))
    second, _ = read({"mesh.yaml": "environment: test\ndrain_time: 1m\n", "services/web.yaml": ""})
    assert second is not None
    assert only(after, second).field == "environment"
