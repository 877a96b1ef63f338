from __future__ import annotations

import pytest

from asyncnotify._asyncpg._parameters.hosts import check_hosts, describe_hosts, read_hosts
from asyncnotify._errors import ConfigurationError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": "db"}, ["db:5432"]),
        ({"host": "db", "port": "5433"}, ["db:5433"]),
        ({"host": "a,b", "port": "1,2"}, ["a:1", "b:2"]),
        ({"host": "a,b", "port": "5433"}, ["a:5433", "b:5433"]),
        ({"host": "a:1,b:2"}, ["a:1", "b:2"]),
        ({"host": "[::1]:5433"}, ["[::1]:5433"]),
        ({"host": "::1"}, ["[::1]:5432"]),
        ({"host": "/var/run/postgresql"}, ["/var/run/postgresql:5432"]),
        ({"host": "db", "hostaddr": "127.0.0.1"}, ["127.0.0.1:5432"]),
    ],
)
def test_hosts_are_read_with_their_ports(options: dict[str, str], expected: list[str]) -> None:
    """Names, addresses and folders; one port for all of them, or one for each."""
    assert [str(host) for host in read_hosts(options)] == expected


def test_an_address_that_is_given_keeps_the_name_for_the_certificate() -> None:
    """hostaddr says where, host says who."""
    (host,) = read_hosts({"host": "db", "hostaddr": "127.0.0.1"})
    assert (host.name, host.address) == ("db", "127.0.0.1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "a,b,c", "port": "1,2"}, "3 hosts, but 2 ports"),
        ({"host": "a,b", "hostaddr": "127.0.0.1"}, "2 hosts, but 1 addresses"),
        ({"host": "db", "port": "0"}, "between 1 and 65535"),
        ({"host": "db", "port": "99999"}, "between 1 and 65535"),
        ({"host": "db", "hostaddr": "db.example"}, "hostaddr must be an IP address"),
        ({"host": "@abstract"}, "must not begin with @"),
    ],
)
def test_r48_what_cannot_be_is_refused(options: dict[str, str], words: str) -> None:
    """Before anything is connected to, and by its name."""
    with pytest.raises(ConfigurationError, match=words):
        check_hosts(options)


@pytest.mark.parametrize(
    "options", [{"host": "s3cret@db"}, {"host": "db", "port": "s3cret"}, {"host": "s3 cret"}]
)
def test_r43_a_piece_of_a_password_is_not_repeated(options: dict[str, str]) -> None:
    """What was taken for a host or a port may be the end of one."""
    with pytest.raises(ConfigurationError) as raised:
        check_hosts(options)
    assert "cret" not in str(raised.value)


def test_without_a_host_a_local_server_is_meant() -> None:
    """localhost comes last, behind the folders where a socket is."""
    *_, last = read_hosts({})
    assert last.address == "localhost"


@pytest.mark.parametrize(
    ("known", "given", "shown"),
    [
        ({"host": "db"}, {"port": "5433"}, "db:5433"),
        ({"host": "a,b"}, {"port": "1,2"}, "a:1,b:2"),
        ({"host": "::1"}, {}, "[::1]"),
        ({}, {"service": "orders"}, "the service orders"),
        ({}, {}, "localhost"),
    ],
)
def test_hosts_are_described_for_logs(
    known: dict[str, str], given: dict[str, str], shown: str
) -> None:
    """With the ports that the caller gave."""
    assert describe_hosts(known, given) == shown
