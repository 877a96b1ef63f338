"""A DSN of which one piece is replaced: for those that read it, all else is as it was."""

from __future__ import annotations

from typing import Final

import pytest

from asyncnotify._asyncpg._parameters.dsn import read_dsn
from asyncnotify.testing._dsn import pieces_of
from asyncnotify.testing._proxy.target import target_of
from asyncnotify.testing.plugin import ExistingServer
from asyncnotify.testing.proxy import FaultProxy

ADDRESS: Final = {"host", "hostaddr", "port"}
DSNS: Final = (
    "postgresql://h/db",
    "postgresql://h",
    "postgres://h?connect_timeout2=x",
    "postgresql://u:p%20w%2F%3F@h:1/db?application_name=my%20app",
    "postgresql://u:p?w#s@h:1/db?sslmode=require",
    "postgresql://h/db?options=-c%20statement_timeout%3D0&application_name=a%2Bb",
    "postgresql://h/db?application_name=a+b&search_path=",
    "postgresql://h/?dbname=db&application_name=x",
    "postgresql://h/db?database=other&user=u&",
    "postgresql://h/db?d%62name=other&h%6Fst=there",
    "postgresql://h1,h2:5433/db?target_session_attrs=any",
    "postgresql:///db?host=/run/postgresql&port=5433",
    "postgresql:///?host=h,/tmp&dbname=db&hostaddr=127.0.0.1,127.0.0.2",
    "postgresql://[::1]:5433/db?application_name=x",
    "postgresql+asyncpg://u@/db?host=a:1&host=b:2&application_name=my+app",
)


@pytest.mark.parametrize("dsn", DSNS)
@pytest.mark.parametrize("place", ["127.0.0.1", "::1"])
def test_behind_a_proxy_all_but_the_address_is_read_as_before(dsn: str, place: str) -> None:
    """Every parameter and every setting has the value that it had; the address is the proxy's."""
    before, after = read_dsn(dsn), read_dsn(str(pieces_of(dsn).with_address(place, 6543)))
    kept = {name: value for name, value in before.options.items() if name not in ADDRESS}
    assert after.options == {**kept, "host": place, "port": "6543"}
    assert after.settings == before.settings


@pytest.mark.parametrize("dsn", DSNS)
@pytest.mark.parametrize("name", ["asyncnotify_1", "a b/?&+%"])
def test_another_database_is_the_only_one_that_is_named(dsn: str, name: str) -> None:
    """A database in the query would replace it, and tests would change that one."""
    before, after = read_dsn(dsn), read_dsn(ExistingServer(dsn).dsn_for(name))
    assert after.options == {**before.options, "dbname": name}
    assert after.settings == before.settings


@pytest.mark.parametrize("dsn", DSNS)
def test_what_is_not_replaced_is_written_as_before(dsn: str) -> None:
    """Letter by letter, for each reader of URLs."""
    assert str(pieces_of(dsn)) == dsn


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        ("postgresql://u:p?w#s@h:1/db", ("h", 1)),
        ("postgresql://u:p@w@h/db", ("h", 5432)),
        ("postgresql://a:1,b:2/db", ("a", 1)),
        ("postgresql://%2Frun%2Fpostgresql:5433/db", ("/run/postgresql", 5433)),
        ("postgresql:///db?host=/run/postgresql", ("/run/postgresql", 5432)),
        ("postgresql://a:1/db?host=b,c&port=2,3", ("b", 2)),
        ("postgresql://a/db?hostaddr=127.0.0.1", ("127.0.0.1", 5432)),
        ("postgresql:///db?host=::1&port=1", ("::1", 1)),
        ("postgresql+asyncpg:///db?host=a:1&host=b:2", ("a", 1)),
    ],
)
def test_the_proxy_is_for_the_first_host_that_is_connected_to(
    dsn: str, address: tuple[str, int]
) -> None:
    """As libpq and SQLAlchemy read it: what is in the query replaces what is before it."""
    assert target_of(dsn) == address


@pytest.mark.parametrize("text", ["", "host=h dbname=db", "h/db"])
def test_what_is_no_url_is_refused(text: str) -> None:
    """Where a URL was to be changed, nothing is made up."""
    for call in (FaultProxy.for_dsn, FaultProxy("h", 1).proxied_dsn, ExistingServer):
        with pytest.raises(ValueError, match="the DSN is no URL"):
            call(text)


def test_no_message_and_no_repr_shows_a_password() -> None:
    """Though a part that was taken for the port may be its end."""
    with pytest.raises(ValueError, match="must be a number") as refused:
        target_of("postgresql://u:secret/more@h/db")
    assert "secret" not in str(refused.value)
    assert repr(ExistingServer("postgresql://u:sec?ret#more@h/db")) == "<ExistingServer on h>"
