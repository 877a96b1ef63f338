from __future__ import annotations

import string
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncnotify._asyncpg.dsn import (
    describe_target,
    dsn_parameters,
    normalize_dsn,
    several_hosts,
    single_host,
    split_hosts,
)
from asyncnotify._errors import ConfigurationError

WORDS = st.text(string.ascii_letters + string.digits + "_-./:,%&=+ é'\"", min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)


# -- what the driver is given ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://joe:p%40ss@db:5433/app?sslmode=require",
        "postgres://db",
        "postgresql://",
        "postgresql://h1:1,[::1]:2/app?target_session_attrs=any",
        "postgresql:///app?host=/var/run/postgresql",
    ],
)
def test_a_url_of_the_drivers_own_is_left_alone(dsn: str) -> None:
    """What asyncpg takes is passed on as it is, to the letter."""
    assert normalize_dsn(dsn) == dsn


@pytest.mark.parametrize(
    ("pasted", "taken"),
    [
        ("postgresql+asyncpg://joe:p%40ss@db:5433/app", "postgresql://joe:p%40ss@db:5433/app"),
        ("postgres+asyncpg://db/app", "postgresql://db/app"),
        ("postgresql+asyncpg://[::1]:5433/app", "postgresql://[::1]:5433/app"),
        ("postgresql+asyncpg://db/app?ssl=require", "postgresql://db/app?sslmode=require"),
        (
            "postgresql+asyncpg://db/app?prepared_statement_cache_size=0&application_name=me",
            "postgresql://db/app?application_name=me",
        ),
        (
            "postgresql+asyncpg://db?async_fallback=1&prepared_statement_name_func=x&user=joe",
            "postgresql://db?user=joe",
        ),
        (
            "postgresql+asyncpg:///app?host=h1:1&host=h2:2&host=h3",
            "postgresql:///app?host=h1:1,h2:2,h3",
        ),
        (
            "postgresql+asyncpg:///app?host=/var/run/postgresql",
            "postgresql:///app?host=/var/run/postgresql",
        ),
    ],
)
def test_a_url_of_sqlalchemy_is_made_the_drivers(pasted: str, taken: str) -> None:
    """The driver's name and SQLAlchemy's own arguments go; ssl and repeated hosts are renamed."""
    assert urlsplit(normalize_dsn(pasted)) == urlsplit(taken)


@given(st.dictionaries(WORDS.filter(lambda word: word not in {"ssl", "host"}), WORDS, max_size=4))
def test_other_arguments_of_a_url_of_sqlalchemy_survive(parameters: dict[str, str]) -> None:
    """Whatever else the query holds reaches the driver unchanged, however it is encoded."""
    taken = normalize_dsn(f"postgresql+asyncpg://db/app?{urlencode(parameters)}")
    assert dict(parse_qsl(urlsplit(taken).query)) == parameters


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
        "postgresql+asyncpg://joe:s3c[ret@db/app",
        "postgresql+asyncpg://joe:s3cret\u2100@db/app",
    ],
)
def test_r43_what_is_no_postgresql_url_is_refused_without_a_word_of_it(dsn: str) -> None:
    """The error says what a DSN looks like, and nothing of the one that was given."""
    with pytest.raises(ConfigurationError, match=r"the DSN (must begin with|cannot be read)") as it:
        normalize_dsn(dsn)
    assert "s3c" not in f"{it.value} {it.value!r}"
    assert it.value.__cause__ is it.value.__context__ is None


def test_parameters_of_what_cannot_be_read_are_none() -> None:
    """Looking for an argument in a broken DSN finds none, and raises nothing."""
    assert dsn_parameters("postgresql://[") == dsn_parameters(None) == dsn_parameters("") == {}
    assert dsn_parameters("postgresql://db?a=1&b=%20") == {"a": "1", "b": " "}


# -- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "arguments", "shown"),
    [
        ("postgresql://joe:s3cret@db:5433/app", {}, "joe@db:5433/app"),
        ("postgresql+asyncpg://joe:s3cret@db/app", {}, "joe@db/app"),
        ("postgresql://j%40e:s3cret@db/my%20app", {}, "j@e@db/my app"),
        ("postgresql://joe:s3cret@[::1]:5433/app", {}, "joe@[::1]:5433/app"),
        ("postgresql://joe:s3cret@h1:1,h2:2/app", {}, "joe@h1:1,h2:2/app"),
        ("postgresql://joe:s3cr@et@db/app", {}, "joe@db/app"),
        ("postgresql://joe:s3c:ret@db/app", {}, "joe@db/app"),
        ("postgresql:///app?host=/tmp&password=s3cret", {}, "/tmp/app"),
        ("postgresql://db/app?password=s3cret&user=joe", {}, "db/app"),
        ("postgresql://db/app", {"user": "ann", "password": "s3cret"}, "ann@db/app"),
        (
            "postgresql://joe@db/app",
            {"host": "db2", "port": 5434, "database": "x"},
            "joe@db2:5434/x",
        ),
        (None, {"host": ["h1", "h2"], "password": "s3cret"}, "h1,h2"),
        (None, {"dsn": "unused"}, "localhost"),
        (None, {}, "localhost"),
        ("postgresql://[", {"password": "s3cret"}, "an unreadable DSN"),
    ],
)
def test_a_target_is_shown_as_user_host_port_database(
    dsn: str | None, arguments: dict[str, object], shown: str
) -> None:
    """A log says whom we connect to, as far as it is known, and never with which password."""
    assert describe_target(dsn, arguments) == shown


def test_a_target_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no DSN says so, PGUSER, PGHOST and PGDATABASE do."""
    monkeypatch.setenv("PGUSER", "joe")
    monkeypatch.setenv("PGHOST", "db")
    monkeypatch.setenv("PGDATABASE", "app")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    assert describe_target(None, {}) == "joe@db/app"


@given(
    st.lists(st.integers(0, 0xD7FF).map(chr)).map("".join),
    st.sampled_from(["postgresql", "postgresql+asyncpg"]),
)
def test_r43_a_target_never_holds_an_encoded_password(text: str, scheme: str) -> None:
    """Any password, percent-encoded, stays out of what is shown."""
    password = quote(f"s3cret{text}", safe="")
    assert describe_target(f"{scheme}://joe:{password}@db:5433/app", {}) == "joe@db:5433/app"


@pytest.mark.parametrize("start", ["abc", "987"])
@pytest.mark.parametrize("character", sorted(set(string.punctuation + " \t\n")))
def test_r43_a_target_never_holds_a_password_that_was_not_encoded(
    character: str, start: str
) -> None:
    """A password is pasted as it is: what is shown holds no piece of it, not even as a port."""
    shown = describe_target(f"postgresql://joe:{start}{character}xyz@db:5433/app", {})
    assert start not in shown
    assert "xyz" not in shown


@pytest.mark.parametrize(
    "dsn", ["host=db user=joe password=s3cret", "joe:s3cret@db/app", "postgresql:joe:s3cret@db"]
)
def test_r43_a_target_never_holds_a_dsn_that_is_no_url(dsn: str) -> None:
    """A listener with a DSN of another kind is refused at start; until then its repr is mute."""
    assert "s3cret" not in describe_target(dsn, {})


# -- several hosts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "arguments", "pairs"),
    [
        ("postgresql://h1:1,h2:2/app", {}, [("h1", 1), ("h2", 2)]),
        ("postgresql://joe:a,b@h1,h2:2/app", {}, [("h1", None), ("h2", 2)]),
        ("postgresql://[::1]:1,[fe80::2]/app", {}, [("::1", 1), ("fe80::2", None)]),
        ("postgresql://%2Ftmp,h2:2/app", {}, [("/tmp", None), ("h2", 2)]),
        ("postgresql:///app?host=/run/a,/run/b", {}, [("/run/a", None), ("/run/b", None)]),
        ("postgresql:///app?host=h1:1,h2:2", {}, [("h1", 1), ("h2", 2)]),
        ("postgresql:///app?host=h1,h2&port=1,2", {}, [("h1", 1), ("h2", 2)]),
        ("postgresql:///app?host=h1,h2&port=7", {}, [("h1", 7), ("h2", 7)]),
        (None, {"host": ["h1", "h2"]}, [("h1", None), ("h2", None)]),
        (None, {"host": ["h1", "h2"], "port": 7}, [("h1", 7), ("h2", 7)]),
        (None, {"host": ("h1", "h2"), "port": (1, 2)}, [("h1", 1), ("h2", 2)]),
        (None, {"host": ["/run/a:1", "h2"]}, [("/run/a:1", None), ("h2", None)]),
        ("postgresql://h1:1,h2:2/app", {"host": "h3,h4"}, [("h3", None), ("h4", None)]),
        ("postgresql://h1:1/app", {}, []),
        ("postgresql://joe:a,b@h1/app", {}, []),
        ("postgresql:///app?host=/run/a", {}, []),
        ("postgresql://h1,h2/app", {"host": "h3"}, []),
        (None, {"host": ["h1"]}, []),
        (None, {}, []),
        ("postgresql://[,", {}, []),
    ],
)
def test_several_hosts_are_told_apart(
    dsn: str | None, arguments: dict[str, object], pairs: list[tuple[str, int | None]]
) -> None:
    """Each with its port, if it has one; one host alone is left to the driver."""
    assert split_hosts(dsn, arguments) == pairs
    assert several_hosts(dsn, arguments) == bool(pairs)


@pytest.mark.parametrize(
    ("dsn", "arguments", "host"),
    [
        ("postgresql://h1:1/app", {}, "h1"),
        ("postgresql://joe:s3cret@[::1]:1/app", {}, "::1"),
        ("postgresql://%2Frun%2Fa/app", {}, "/run/a"),
        ("postgresql:///app?host=/run/a", {}, "/run/a"),
        ("postgresql://h1/app", {"host": "h2"}, "h2"),
        (None, {"host": ["h2"]}, "h2"),
        (None, {}, ""),
    ],
)
def test_a_single_host_is_found(dsn: str | None, arguments: dict[str, object], host: str) -> None:
    """Its name, to be looked up before the driver does; without its port."""
    assert single_host(dsn, arguments) == host


@pytest.mark.parametrize("host", ["::1", ["::1"], "fe80::1", "2001:db8::5432"])
def test_a_single_address_of_ipv6_needs_no_brackets(host: object) -> None:
    """host= is given an address as asyncpg takes it."""
    assert single_host(None, {"host": host}) == (host if isinstance(host, str) else "::1")


def test_several_hosts_are_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither a DSN nor an argument names a host, PGHOST does."""
    monkeypatch.setenv("PGHOST", "h1,h2")
    assert split_hosts(None, {}) == [("h1", None), ("h2", None)]
    assert split_hosts("postgresql:///app", {}) == [("h1", None), ("h2", None)]
    assert split_hosts("postgresql://h3/app", {}) == []


def test_addresses_of_ipv6_in_an_argument_need_no_brackets() -> None:
    """host= is given addresses as asyncpg takes them."""
    assert split_hosts(None, {"host": ["::1", "fe80::2"]}) == [("::1", None), ("fe80::2", None)]


def test_several_ports_are_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGHOST and PGPORT may both be lists, one port for each host."""
    monkeypatch.setenv("PGHOST", "h1,h2")
    monkeypatch.setenv("PGPORT", "1,2")
    assert split_hosts(None, {}) == [("h1", 1), ("h2", 2)]


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://a:,b:1/x", [("a", None), ("b", 1)]),
        ("postgresql://a:,b:/x", [("a", None), ("b", None)]),
    ],
)
def test_an_empty_port_is_none(dsn: str, hosts: list[tuple[str, int | None]]) -> None:
    """As libpq takes it: the default serves."""
    assert split_hosts(dsn, {}) == hosts


def test_an_empty_port_is_no_part_of_the_only_host() -> None:
    """What is looked up is the name alone."""
    assert single_host("postgresql://db.example:/x", {}) == "db.example"


def test_several_hosts_are_no_single_one() -> None:
    """A list of hosts is never looked up as if it were one name."""
    assert single_host("postgresql://a,b/x?port=1,2,3", {}) == ""
