"""DSNs: which are taken, what becomes of each parameter, and which are refused, and how."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import AnyUrl, PostgresDsn
from sqlalchemy import URL, make_url

from asyncnotify import Listener, Notifier
from asyncnotify._asyncpg._parameters.dsn import read_dsn
from asyncnotify._asyncpg._parameters.libpq import sort_out
from asyncnotify._errors import ConfigurationError

FULL = {"user": "joe", "password": "p@ss", "host": "db", "port": "5433", "dbname": "app"}


def options(dsn: object) -> dict[str, str]:
    """Return what a DSN says, by libpq's names."""
    found = read_dsn(dsn)
    assert not found.settings
    return found.options


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        ("", r"is empty \(leave dsn out to use PGHOST\)"),
        ("host=localhost dbname=app", r"is no URL \(its parts can be given as host=, port="),
        ("/run/postgresql", "is no URL "),
        ("mysql://joe@db/app", "is no URL of PostgreSQL, but begins with mysql://"),
        ("postgresql+psycopg2://joe@db/app", r"for another driver \(postgresql\+psycopg2://\)"),
        ("joe:s3cret://db", "but begins with something else"),
    ],
)
def test_what_is_no_url_of_postgresql_is_refused(dsn: str, told: str) -> None:
    """The error says what the DSN is instead, and how it must begin; a password is not shown."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_dsn(dsn)
    assert "it must begin with postgresql://" in str(caught.value)
    assert "s3cret" not in str(caught.value)


# -- schemes and objects --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgres+asyncpg"]
)
def test_urls_of_postgresql_and_of_sqlalchemys_asyncpg_are_taken(scheme: str) -> None:
    """Each means the same."""
    assert options(f"{scheme}://joe:p%40ss@db:5433/app") == FULL


@pytest.mark.parametrize(
    ("pasted", "meant"),
    [
        ("postgresql+asyncpg://db/app?ssl=require", {"sslmode": "require"}),
        (
            "postgresql+asyncpg://db/app?prepared_statement_cache_size=0&application_name=a+b",
            {"application_name": "a b"},
        ),
        ("postgresql+asyncpg://db/app?async_fallback=1&prepared_statement_name_func=x", {}),
        ("postgresql+asyncpg:///app?host=h1:1&host=h2:2&host=h3", {"host": "h1:1,h2:2,h3"}),
        (
            "postgresql+asyncpg:///app?host=h1&host=h2&port=1&port=2",
            {"host": "h1,h2", "port": "1,2"},
        ),
        ("postgresql+asyncpg://x/app?host=/run/postgresql", {"host": "/run/postgresql"}),
        ("postgresql://db/app?ssl=true", {"sslmode": "require"}),
        ("postgresql://db/app?host=h2&host=h3", {"host": "h3"}),
        ("postgresql://db/app?database=other", {"dbname": "other"}),
    ],
)
def test_parameters_get_libpqs_names(pasted: str, meant: dict[str, str]) -> None:
    """Those of SQLAlchemy and of JDBC are renamed; those of SQLAlchemy alone are left out."""
    plain = {"dbname": "app"} | ({"host": "db"} if "://db" in pasted else {})
    assert options(pasted) == {**plain, **meant}


@pytest.mark.parametrize(
    "url",
    [
        URL.create("postgresql+asyncpg", "joe", "p@ss", "db", 5433, "app"),
        make_url("postgresql://joe:p%40ss@db:5433/app"),
        PostgresDsn("postgresql://joe:p%40ss@db:5433/app"),
        PostgresDsn("postgresql+asyncpg://joe:p%40ss@db:5433/app"),
        AnyUrl("postgres://joe:p%40ss@db:5433/app"),
    ],
    ids=lambda url: type(url).__name__,
)
def test_url_objects_are_taken_with_their_password(url: Any) -> None:
    """SQLAlchemy's and pydantic's; a listener made of one shows no password."""
    assert options(url) == FULL
    for kind in (Listener, Notifier):
        assert "joe@db:5433/app" in repr(kind(url)) or kind is Notifier


def test_the_query_of_a_url_object_counts() -> None:
    """Hosts that are repeated are a list; strings are as they are, not encoded."""
    query = {"host": ("h1:1", "h2:2"), "ssl": "require", "application_name": "a+b %41"}
    url = URL.create("postgresql+asyncpg", database="app", query=query)
    expected = {"dbname": "app", "host": "h1:1,h2:2", "sslmode": "require"}
    assert options(url) == {**expected, "application_name": "a+b %41"}


@pytest.mark.parametrize("kind", [Listener, Notifier])
def test_a_url_whose_password_is_masked_is_refused(kind: Any) -> None:
    """``str(url)`` has put three asterisks in its place: the error says so."""
    masked = str(URL.create("postgresql+asyncpg", "joe", "s3cret", "db"))
    with pytest.raises(ConfigurationError, match="masked"):
        kind(masked)


@pytest.mark.parametrize("thing", [b"postgresql://db", 1, URL, object(), ["postgresql://db"]])
def test_what_is_no_dsn_is_a_type_error(thing: Any) -> None:
    """It names the type that was given."""
    with pytest.raises(TypeError, match=f"not of type {type(thing).__name__}"):
        Listener(thing)


@pytest.mark.parametrize("kind", [Listener, Notifier])
@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "s3cret",
        "host=db password=s3cret",
        "mysql://joe:s3cret@db/app",
        "postgresql:joe:s3cret@db",
        "//joe:s3cret@db",
        "joe:s3cret@db/app",
        "+asyncpg://joe:s3cret@db",
        "postgresql+psycopg://joe:s3cret@db/app",
        "postgresql+psycopg2://joe:s3cret@db/app",
        "postgresql+asyncpg://joe:s3c[ret@[db/app",
        "postgresql://joe:s3cr%et@db/app",
        "postgresql://joe:a@s3cret@db/app",
        "postgresql://joe:s3cret/app",
        "postgresql://db:0/app",
        "postgresql://db:65536/app",
        "postgresql://db:٣/app",
        "postgresql://db:1,2,3/app?port=1,2",
        "postgresql://a..s3cret/app",
        "postgresql://db?sslmode=s3cret",
        "postgresql://db?target_session_attrs=s3cret",
        "postgresql://db?client_encoding=s3cret",
        "postgresql://db?s3cret",
        "postgresql://db?s3cret!=1",
        "postgresql://db?sslnegotiation=direct",
        "postgresql://db?sslrootcert=system&sslmode=require",
        "postgresql://db?hostaddr=s3cret",
        "postgresql://db/?host=@s3cret",
        "postgresql://db?host=s3c%20ret",
        "postgresql://db?options=%00s3cret",
    ],
)
def test_r43_a_dsn_that_cannot_be_right_is_refused_in_the_constructor(
    kind: Any,
    dsn: str,
) -> None:
    """Without any I/O, and without repeating any part of it."""
    with pytest.raises(ConfigurationError) as refused:
        kind(dsn)
    error: BaseException | None = refused.value
    while error is not None:
        assert not any(part in repr(error) for part in ("s3c", "ret", "s3"))
        error = error.__cause__ or error.__context__


def test_a_port_that_is_no_number_is_not_blamed_on_the_password() -> None:
    """The error names what is wrong."""
    with pytest.raises(ConfigurationError, match="a port must be a number") as refused:
        Listener("postgresql://db:abc/app")
    assert "password" not in str(refused.value)


# -- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "advice"),
    [
        ("channel_binding=require", "verify-full"),
        ("connect_timeout=10", "connect_timeout="),
        ("keepalives=1", "keepalive="),
        ("keepalives_idle=30", "keepalive="),
        ("keepalives_interval=30", "keepalive="),
        ("keepalives_count=3", "keepalive="),
        ("tcp_user_timeout=3", "keepalive="),
        ("gssencmode=require", "GSSAPI"),
        ("require_auth=scram-sha-256", "verify-full"),
        ("requirepeer=postgres", "remove it"),
        ("sslsni=0", "always sent"),
        ("min_protocol_version=3.2", "3.0"),
        ("replication=database", "cannot listen"),
        ("sslcertmode=require", "must be one of"),
        ("ssl=no-verify", "sslmode="),
        ("pgbouncer=true", "session mode"),
        ("schema=public", "search_path="),
        ("currentSchema=public", "search_path="),
        ("sslaccept=strict", "sslmode=verify-full"),
        ("pool_timeout=10", "no pool"),
        ("connection_limit=1", "no pool"),
        ("statement_cache_size=0", "argument"),
        ("command_timeout=5", "operation_timeout="),
        ("timeout=5", "connect_timeout="),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_refused_by_name(
    parameter: str, advice: str
) -> None:
    """The error says what to do instead."""
    with pytest.raises(ConfigurationError, match=parameter.partition("=")[0]) as refused:
        Listener(f"postgresql://db/app?{parameter}")
    assert advice in str(refused.value)


@pytest.mark.parametrize(
    "parameter",
    [
        "channel_binding=prefer",
        "gssencmode=disable",
        "sslcompression=0",
        "sslsni=1",
        "max_protocol_version=latest",
        "require_auth=",
        "connect_timeout=",
    ],
)
def test_a_parameter_that_asks_for_nothing_has_no_effect(parameter: str) -> None:
    """What it says is so anyway."""
    assert options(f"postgresql://db?{parameter}") == {"host": "db"}


def test_what_libpq_does_not_know_is_a_setting_of_the_server() -> None:
    """As asyncpg has it; of several values the last one counts."""
    found = read_dsn("postgresql://db?search_path=a&search_path=b&my.own=1&TimeZone=UTC")
    assert found.settings == {"search_path": "b", "my.own": "1", "TimeZone": "UTC"}


def test_the_error_says_where_the_parameter_stands() -> None:
    """A variable of the environment is named as such."""
    with pytest.raises(ConfigurationError, match="channel_binding in PGCHANNELBINDING"):
        sort_out([("channel_binding", "require")], source="PGCHANNELBINDING")
