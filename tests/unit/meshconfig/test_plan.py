"""The plan of an apply: the resources and Envoys that change, and the steps that lose no request."""

from meshconfig.effective import Configuration
from meshconfig.plan import EnvoyVersion, Fleet, ResourceNames, Step
from meshconfig.planning import make_plan
from meshconfig.resource import Kind, Resource, Snapshot, make_resource

EMPTY = (Configuration(), Snapshot({}))


def snapshot(clusters: dict[str, str], uses: tuple[str, ...], *, timeout: str = "1s") -> Snapshot:
    """Return what ``web`` is served: clusters with their connect time-outs, and a route to some of them."""
    made = [make_resource("clusters", {"name": name, "connect_timeout": time}) for name, time in clusters.items()]
    routes = make_resource("routes", {"name": "default", "uses": uses, "timeout": timeout}, uses=uses)
    kinds: dict[Kind, dict[str, Resource]] = {"clusters": {each.name: each for each in made}}
    return Snapshot({"web": {**kinds, "routes": {"default": routes}}})


def steps(before: Snapshot, after: Snapshot, fleet: Fleet | None = None) -> list[Step]:
    """Return the steps of the only node."""
    [node] = make_plan((Configuration(), before), (Configuration(), after), fleet=fleet).nodes
    return list(node.steps)


def test_equal_bytes_wake_nobody() -> None:
    """A plan without changes is empty."""
    same = (Configuration(), snapshot({"user": "1s"}, ("user",)))
    assert make_plan(same, same).empty


def test_a_switch_of_clusters_takes_three_steps() -> None:
    """The new cluster first, then the route, and the old cluster last; the first two wait for every Envoy."""
    before, after = snapshot({"user": "1s"}, ("user",)), snapshot({"next": "1s"}, ("next",))
    assert steps(before, after, Fleet({"web": 3})) == [
        Step(("clusters",), "clusters: add next", 3),
        Step(("routes",), "routes: change default", 3),
        Step(("clusters",), "clusters: remove user", 0),
    ]


def test_an_addition_takes_two_steps() -> None:
    """Nothing is taken away, so that there is no third step; nobody polls, and 0 are awaited."""
    before, after = snapshot({"user": "1s"}, ("user",)), snapshot({"user": "2s", "pay": "1s"}, ("user", "pay"))
    assert steps(before, after, Fleet()) == [
        Step(("clusters",), "clusters: add pay, change user", 0),
        Step(("routes",), "routes: change default", 0),
    ]


def test_a_removal_takes_two_steps() -> None:
    """The routes leave the cluster first, together with changes of clusters that stay."""
    before, after = snapshot({"user": "1s", "pay": "1s"}, ("user", "pay")), snapshot({"user": "2s"}, ("user",))
    assert steps(before, after, Fleet({"web": 2})) == [
        Step(("clusters", "routes"), "clusters: change user; routes: change default", 2),
        Step(("clusters",), "clusters: remove pay", 0),
    ]


def test_a_change_of_values_is_one_step() -> None:
    """The routes use the same clusters before and after: no order of the changes can lose a request."""
    before, after = snapshot({"user": "1s"}, ("user",)), snapshot({"user": "2s"}, ("user",), timeout="2s")
    assert steps(before, after) == [Step(("clusters", "routes"), "clusters: change user; routes: change default", 0)]


def test_subscribers_that_nobody_counted_are_not_zero() -> None:
    """Without a registry the number of Envoys is unknown, which is no number."""
    before, after = snapshot({}, ()), snapshot({"pay": "1s"}, ("pay",))
    [node] = make_plan((Configuration(), before), (Configuration(), after)).nodes
    assert node.envoys is None
    assert node.steps[0].awaited is None
    assert node.resources["clusters"] == ResourceNames(added=("pay",))


def test_versions_without_a_proof_are_listed() -> None:
    """Each version that polled and that no proof covers is listed with the number of its Envoys."""
    fleet = Fleet(versions={"1.36.2": 2, "1.40.0": 40})
    assert make_plan(EMPTY, EMPTY, fleet=fleet, proven=["1.40.0"]).unproven_versions == (EnvoyVersion("1.36.2", 2),)


def test_many_names_are_counted() -> None:
    """A sentence lists the first names, and counts the others."""
    many = {f"s{number}": "1s" for number in range(6)}
    assert steps(snapshot({}, ()), snapshot(many, tuple(many)))[0].action == "clusters: add s0, s1, s2 and 3 more"
