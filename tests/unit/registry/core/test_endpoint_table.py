"""A table of endpoints is a mapping like any other, whatever shares an address."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import endpoint

from registry.core.endpoint import Endpoint
from registry.core.endpoint_table import AddressPort, EndpointTable

_MADE = endpoint(1)
_KEYS = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"]), st.integers(1, 4))
_STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "copy", "be copied"]), _KEYS), max_size=40)


def _at(key: AddressPort, number: int) -> Endpoint:
    return replace(_MADE, id=number, address=key[0], port=key[1])


@given(_STEPS)
def test_a_table_is_what_a_dict_is(steps: list[tuple[str, AddressPort]]) -> None:
    """After every step; and neither a copy nor what it was copied from changes with the other."""
    table, model = EndpointTable(), dict[AddressPort, Endpoint]()
    copies: list[tuple[EndpointTable, dict[AddressPort, Endpoint]]] = []
    for number, (step, key) in enumerate(steps):
        if step == "put":
            model[key] = _at(key, number)
            table.put(model[key])
        elif step == "remove":
            assert table.remove(key) is model.pop(key, None)
        elif step == "copy":
            copies.append((table, dict(model)))
            table = table.copy()
        else:
            copies.append((table.copy(), dict(model)))
        assert (len(table), bool(table)) == (len(model), bool(model))
        assert table == model
        assert table.get(key) is model.get(key)
        assert (key in table) == (key in model)
        assert set(table) == set(model)
        assert dict(table.items()) == model
        assert sorted(map(id, table.values())) == sorted(map(id, model.values()))
    for kept, expected in copies:
        assert kept == expected


def test_of_two_endpoints_at_one_place_the_last_one_stays() -> None:
    """As in a dict that is made of them."""
    first, second = _at(("10.0.0.1", 1), 1), _at(("10.0.0.1", 1), 2)
    table = EndpointTable([first, second])
    assert (len(table), table["10.0.0.1", 1]) == (1, second)


def test_a_port_more_of_an_address_costs_no_copy_of_the_others() -> None:
    """Ten thousand endpoints of one address took as many dicts of them all: minutes in place of an instant."""
    table = EndpointTable(_at(("10.0.0.1", port), port) for port in range(1, 10_001))
    held = table._by_address["10.0.0.1"]
    table.put(_at(("10.0.0.1", 20_000), 20_000))
    table.remove(("10.0.0.1", 1))
    assert table._by_address["10.0.0.1"] is held
    table.copy()
    table.put(_at(("10.0.0.1", 1), 1))
    assert table._by_address["10.0.0.1"] is not held
