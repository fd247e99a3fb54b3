"""Addresses of the processes behind a URL."""

import pytest

from registryctl.addresses import ProcessAddress, addresses_of


@pytest.mark.parametrize(
    ("url", "resolved", "expected"),
    [
        ("http://10.0.0.9:8080", ["10.0.0.1", "10.0.0.2"], [ProcessAddress("http://10.0.0.9:8080")]),
        ("http://[::1]:8080", ["10.0.0.1"], [ProcessAddress("http://[::1]:8080")]),
        ("http://registry:8080", ["10.0.0.1"], [ProcessAddress("http://registry:8080")]),
        ("http://registry:8080", [], [ProcessAddress("http://registry:8080")]),
        ("http://localhost:8080", ["127.0.0.1", "::1"], [ProcessAddress("http://localhost:8080")]),
        (
            "http://registry:8080",
            ["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2", "10.0.0.1"],
            [
                ProcessAddress("http://10.0.0.1:8080", "registry:8080"),
                ProcessAddress("http://10.0.0.2:8080", "registry:8080"),
            ],
        ),
        (
            "https://registry",
            ["fd00::1", "fd00::2"],
            [ProcessAddress("https://[fd00::1]", "registry"), ProcessAddress("https://[fd00::2]", "registry")],
        ),
    ],
)
def test_a_name_stands_for_its_addresses(url: str, resolved: list[str], expected: list[ProcessAddress]) -> None:
    """Several addresses of one family are several processes; two families of one host are one."""
    assert addresses_of(url, lambda _host: resolved) == expected
