"""A table of endpoints is a mapping like any other, whatever shares an address."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import endpoint

from registry.core.endpoint import Endpoint
from registry.core.endpoint_table import AddressPort, EndpointTable

_MADE = endpoint(1)
_KEYS = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"]), st.integers(1, 4))
_STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "copy"]), _KEYS), max_size=40)


def _at(key: AddressPort, number: int) -> Endpoint:
    return replace(_MADE, id=number, address=key[0], port=key[1])


@given(_STEPS)
def test_a_table_is_what_a_dict_is(steps: list[tuple[str, AddressPort]]) -> None:
    """After every step; and a copy does not change with what it was copied from."""
    table, model = EndpointTable(), dict[AddressPort, Endpoint]()
    copies: list[tuple[EndpointTable, dict[AddressPort, Endpoint]]] = []
    for number, (step, key) in enumerate(steps):
        if step == "put":
            model[key] = _at(key, number)
            table.put(model[key])
        elif step == "remove":
            assert table.remove(key) is model.pop(key, None)
        else:
            copies.append((table, dict(model)))
            table = table.copy()
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
