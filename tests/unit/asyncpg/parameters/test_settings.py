"""What is connected to: arguments, DSN, service file and environment, one before the other."""

from __future__ import annotations

import getpass
import ssl
import string
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from asyncnotify import Listener
from asyncnotify._asyncpg._parameters.hosts import Host
from asyncnotify._asyncpg._parameters.settings import Given, Settings
from asyncnotify._errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "postgresql://joe@db/app"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)


def complete(
    dsn: str | None = None,
    environ: dict[str, str] | None = None,
    **arguments: Any,
) -> Settings:
    """Return all settings."""
    return Given(dsn, arguments).complete(environ or {})


def places(
    dsn: str | None = None,
    environ: dict[str, str] | None = None,
    **arguments: Any,
) -> list[tuple[str, int]]:
    """Return where it is connected to, in this order."""
    return [(host.address, host.port) for host in complete(dsn, environ, **arguments).hosts]


# -- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "arguments", "expected"),
    [
        ("postgresql://h1:1,h2:2/app", {}, [("h1", 1), ("h2", 2)]),
        ("postgresql://h1:1,h2/app", {}, [("h1", 1), ("h2", 5432)]),
        ("postgresql://joe:a,b@h1,h2:2/app", {}, [("h1", 5432), ("h2", 2)]),
        ("postgresql://[::1]:1,[fe80::2]/app", {}, [("::1", 1), ("fe80::2", 5432)]),
        ("postgresql://%2Ftmp,h2:2/app", {}, [("/tmp", 5432), ("h2", 2)]),
        ("postgresql:///app?host=/run/a,/run/b", {}, [("/run/a", 5432), ("/run/b", 5432)]),
        ("postgresql:///app?host=h1:1,h2:2", {}, [("h1", 1), ("h2", 2)]),
        ("postgresql:///app?host=h1,h2&port=1,2", {}, [("h1", 1), ("h2", 2)]),
        ("postgresql:///app?host=h1,h2&port=7", {}, [("h1", 7), ("h2", 7)]),
        ("postgresql://db:/app", {}, [("db", 5432)]),
        ("postgresql://db?hostaddr=192.0.2.7", {}, [("192.0.2.7", 5432)]),
        (None, {"host": ["h1", "h2"]}, [("h1", 5432), ("h2", 5432)]),
        (None, {"host": ["h1", "h2"], "port": 7}, [("h1", 7), ("h2", 7)]),
        (None, {"host": ("h1", "h2"), "port": (1, 2)}, [("h1", 1), ("h2", 2)]),
        (None, {"host": ["::1", "fe80::2"]}, [("::1", 5432), ("fe80::2", 5432)]),
        (None, {"host": "2001:db8::5432"}, [("2001:db8::5432", 5432)]),
        (None, {"host": ["/run/a", "h2"]}, [("/run/a", 5432), ("h2", 5432)]),
        ("postgresql://h1:1,h2:2/app", {"host": "h3,h4"}, [("h3", 5432), ("h4", 5432)]),
        ("postgresql://h1:1/app", {"port": 7}, [("h1", 7)]),
    ],
)
def test_hosts_are_found_each_with_its_port(
    dsn: str | None, arguments: dict[str, Any], expected: list[tuple[str, int]]
) -> None:
    """In the DSN or in arguments, which count more; a port that is not given is 5432."""
    assert places(dsn, **arguments) == expected


def test_an_address_beside_a_name_is_where_it_is_and_no_more() -> None:
    """``hostaddr`` is connected to; certificates and the password file know the name."""
    [host] = complete("postgresql://db/app?hostaddr=192.0.2.7").hosts
    assert host == Host("db", "192.0.2.7", 5432)


def test_without_a_host_a_local_server_is_looked_for() -> None:
    """At last on localhost; wherever that is found, any kind of server will do."""
    settings = complete("postgresql:///app")
    assert settings.hosts[-1] == Host("localhost", "localhost", 5432)
    assert settings.wanted == "any"


@pytest.mark.parametrize(
    ("dsn", "wanted"),
    [
        ("postgresql://h1,h2/app", "primary"),
        ("postgresql://h1:1,h1:2/app", "primary"),
        ("postgresql://h1,h2/app?target_session_attrs=any", "any"),
        ("postgresql://h1/app", "any"),
        ("postgresql://h1/app?target_session_attrs=read-write", "read-write"),
    ],
)
def test_among_several_hosts_the_primary_is_wanted(dsn: str, wanted: str) -> None:
    """LISTEN is refused on a standby; who says something else gets that."""
    assert complete(dsn).wanted == wanted


# -- the environment ------------------------------------------------------------------------------


def test_the_environment_says_what_nothing_else_does() -> None:
    """All variables of libpq that matter are honoured; a DSN counts more."""
    environ = {
        "PGHOST": "h1,h2",
        "PGPORT": "1,2",
        "PGUSER": "ann",
        "PGDATABASE": "other",
        "PGPASSWORD": "s3cret",
        "PGAPPNAME": "shop",
        "PGOPTIONS": "-c work_mem=3MB",
        "PGSSLMODE": "disable",
        "PGTARGETSESSIONATTRS": "any",
    }
    settings = complete(None, environ)
    assert [(host.address, host.port) for host in settings.hosts] == [("h1", 1), ("h2", 2)]
    assert (settings.user, settings.database, settings.password) == ("ann", "other", "s3cret")
    assert settings.server_settings == {"application_name": "shop", "options": "-c work_mem=3MB"}
    assert (settings.ssl_mode, settings.wanted) == ("disable", "any")

    settings = complete("postgresql://joe:mine@db:7/app?sslmode=require", environ)
    assert [(host.address, host.port) for host in settings.hosts] == [("db", 7)]
    assert (settings.user, settings.database, settings.password) == ("joe", "app", "mine")
    assert settings.ssl_mode == "require"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGPORT", "s3cret"),
        ("PGSSLMODE", "s3cret"),
        ("PGREQUIREAUTH", "password"),
        ("PGCHANNELBINDING", "require"),
        ("PGPASSWORD", "s3c\udcffret"),
    ],
)
def test_a_variable_that_cannot_be_honoured_is_refused(variable: str, value: str) -> None:
    """When it counts, and without its value."""
    with pytest.raises(ConfigurationError) as refused:
        complete(None, {variable: value})
    assert "s3c" not in str(refused.value)


def test_who_is_not_named_is_the_user_of_the_system() -> None:
    """And a database that is not named has the user's name, as with libpq."""
    settings = complete("postgresql://db")
    assert settings.user == settings.database == getpass.getuser()
    assert complete("postgresql://joe@db").database == "joe"


@pytest.mark.parametrize(
    ("dsn", "arguments", "name"),
    [
        (NOBODY, {}, "asyncnotify"),
        (f"{NOBODY}?application_name=mine", {}, "mine"),
        (f"{NOBODY}?fallback_application_name=mine", {}, "mine"),
        (f"{NOBODY}?fallback_application_name=other&application_name=mine", {}, "mine"),
        (NOBODY, {"server_settings": {"application_name": "mine"}}, "mine"),
    ],
)
def test_an_application_name_of_ones_own_is_kept(
    dsn: str, arguments: dict[str, Any], name: str
) -> None:
    """Whether it stands in the DSN or in the settings, which are not changed."""
    assert complete(dsn, **arguments).server_settings == {"application_name": name}


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({"PGREQUIRESSL": "1"}, "require"),
        ({"PGREQUIRESSL": "0"}, "prefer"),
        ({"PGREQUIRESSL": "1", "PGSSLMODE": "verify-full"}, "verify-full"),
    ],
)
def test_the_old_variable_for_tls_counts_where_no_mode_is_given(
    environ: dict[str, str], mode: str
) -> None:
    """As with libpq, which still honours it."""
    assert complete("postgresql://db", environ).ssl_mode == mode


# -- the service file -----------------------------------------------------------------------------


@pytest.fixture
def service_file(tmp_path: Path) -> Path:
    """A file with two services."""
    file = tmp_path / "services.conf"
    file.write_text(
        "# comment\n[other]\nhost=nowhere\n\n[shop]\nhost=h1,h2\nport=7\nport=8\n"
        "user = joe\ndbname=app\nsslmode=require\nsearch_path=a b\n[last]\nservice=shop\n"
        "[broken]\nno value\n"
    )
    return file


def test_a_service_is_read_from_its_file(service_file: Path) -> None:
    """By PGSERVICE or by the DSN, which counts more than the file, as that than the environment."""
    environ = {"PGSERVICEFILE": str(service_file), "PGSERVICE": "shop", "PGUSER": "ann"}
    assert places(None, environ) == [("h1", 7), ("h2", 7)]
    settings = complete("postgresql://?service=shop", {**environ, "PGSERVICE": "other"})
    assert settings.database == "app"
    assert settings.ssl_mode == "require"
    assert settings.server_settings["search_path"] == "a b"
    settings = complete("postgresql://db:1/x?service=shop", environ)
    assert ([host.address for host in settings.hosts], settings.database) == (["db"], "x")


@pytest.mark.parametrize("name", ["nowhere", "last", "broken"])
async def test_r54_a_service_that_cannot_be_used_ends_the_start(
    service_file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not there, names another one, or cannot be read; the error names the file."""
    monkeypatch.setenv("PGSERVICEFILE", str(service_file))
    listener = Listener(f"postgresql://?service={name}")
    with pytest.raises(ConfigurationError, match=service_file.name):
        await listener.start()


@pytest.mark.parametrize("has_system", [True, False])
def test_a_service_of_who_has_no_home_is_the_systems(
    service_file: Path, monkeypatch: pytest.MonkeyPatch, *, has_system: bool
) -> None:
    """A user that the system does not know, as in a container, has no file of its own."""

    def refuse() -> None:
        raise RuntimeError

    monkeypatch.setattr("pathlib.Path.home", refuse)
    folder = service_file.parent
    if has_system:
        service_file.rename(folder / "pg_service.conf")
        assert places(None, {"PGSYSCONFDIR": str(folder), "PGSERVICE": "shop"}) == [
            ("h1", 7),
            ("h2", 7),
        ]
    else:
        with pytest.raises(ConfigurationError, match=f"not defined in {folder}/pg_service.conf$"):
            places(None, {"PGSYSCONFDIR": str(folder), "PGSERVICE": "shop"})


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "mode"),
    [(True, "verify-full"), (False, "disable"), ("verify-ca", "verify-ca"), (None, "require")],
)
def test_ssl_counts_more_than_sslmode(value: object, mode: str) -> None:
    """As a bool or by the name of a mode."""
    assert complete("postgresql://db?sslmode=require", ssl=value).ssl_mode == mode


@pytest.mark.parametrize(("value", "negotiation"), [(True, "direct"), (False, "postgres")])
def test_direct_tls_is_the_drivers_name_for_how_tls_begins(value: object, negotiation: str) -> None:
    """It counts more than what the DSN says."""
    dsn = "postgresql://db?sslmode=require&sslnegotiation=direct"
    assert complete(dsn, direct_tls=value).options["sslnegotiation"] == negotiation


@pytest.mark.parametrize("name", ["UTF8", "utf-8", "'unicode'"])
def test_the_encoding_is_utf_8_by_whatever_name(name: str) -> None:
    """Any other one would give other names to channels: it is refused, also as a setting."""
    Given("postgresql://db", {"server_settings": {"client_encoding": name}})
    with pytest.raises(ConfigurationError, match="client_encoding must be UTF8, not LATIN1"):
        Given("postgresql://db", {"server_settings": {"client_encoding": "LATIN1"}})


@pytest.mark.parametrize(
    "arguments",
    [
        {"port": True},
        {"user": 1.5},
        {"user": 7},
        {"host": 127},
        {"host": ["db", 127]},
        {"port": [5432, None]},
        {"passfile": 5},
        {"database": 5},
        {"host": [["db"]], "port": {}},
        {"server_settings": {"work_mem": 3}},
        {"server_settings": "work_mem"},
        {"database": b"app"},
    ],
)
def test_r48_an_argument_of_the_wrong_type_is_refused_at_once(arguments: dict[str, Any]) -> None:
    """In the constructor, as for any function."""
    with pytest.raises((TypeError, ConfigurationError)):
        Listener(**arguments)


@pytest.mark.parametrize("arguments", [{"ssl": "s3cret"}, {"user": "a\0b"}, {"password": "\ud800"}])
def test_r54_what_no_server_can_be_told_is_refused_at_once(arguments: dict[str, Any]) -> None:
    """In the constructor, and without the value."""
    with pytest.raises(ConfigurationError) as refused:
        Listener("postgresql://db", **arguments)
    assert "s3cret" not in str(refused.value)


def test_a_context_is_taken_as_it_is() -> None:
    """Whatever the DSN says."""
    context = ssl.create_default_context()
    assert complete("postgresql://db?sslmode=disable", ssl=context).ssl is context


# -- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "arguments", "shown"),
    [
        ("postgresql://joe:s3cret@db:5433/app", {}, "joe@db:5433/app"),
        ("postgresql+asyncpg://joe:s3cret@db/app", {}, "joe@db/app"),
        ("postgresql://j%40e:s3cret@db/my%20app", {}, "j@e@db/my app"),
        ("postgresql://joe:s3cret@[::1]:5433/app", {}, "joe@[::1]:5433/app"),
        ("postgresql://joe:s3cret@h1:1,h2:2/app", {}, "joe@h1:1,h2:2/app"),
        ("postgresql://joe:s3c:ret@db/app", {}, "joe@db/app"),
        ("postgresql:///app?host=/tmp&password=s3cret", {}, "/tmp/app"),
        ("postgresql://db/app?password=s3cret&user=joe", {}, "joe@db/app"),
        ("postgresql://?service=shop", {}, "the service shop"),
        ("postgresql://db/app", {"user": "ann", "password": "s3cret"}, "ann@db/app"),
        (
            "postgresql://joe@db/app",
            {"host": "db2", "port": 5434, "database": "x"},
            "joe@db2:5434/x",
        ),
        (None, {"host": ["h1", "h2"], "password": "s3cret"}, "h1,h2"),
        (None, {"user": "joe"}, "joe@localhost"),
    ],
)
def test_a_target_is_shown_as_user_host_port_database(
    dsn: str | None, arguments: dict[str, Any], shown: str
) -> None:
    """A log says whom we connect to, as far as it is known, and never with which password."""
    assert Given(dsn, arguments).described() == shown


def test_a_target_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no DSN says so, PGUSER, PGHOST and PGDATABASE do."""
    monkeypatch.setenv("PGUSER", "joe")
    monkeypatch.setenv("PGHOST", "db")
    monkeypatch.setenv("PGDATABASE", "app")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    assert Given(None, {}).described() == "joe@db/app"


def test_a_target_says_that_nothing_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a program's variable is not set, its DSN is None: the log says that none was given."""
    for variable in ("PGUSER", "PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    assert Given(None, {}).described() == "localhost (no DSN or host given)"
    monkeypatch.setenv("PGSERVICE", "shop")
    assert Given(None, {}).described() == "localhost"


@given(
    st.lists(st.integers(1, 0xD7FF).map(chr)).map("".join),
    st.sampled_from(["postgresql", "postgresql+asyncpg"]),
)
@hypothesis_settings(max_examples=60)
def test_r43_a_target_never_holds_an_encoded_password(text: str, scheme: str) -> None:
    """Any password, percent-encoded, stays out of what is shown."""
    password = quote(f"s3cret{text}", safe="")
    dsn = f"{scheme}://joe:{password}@db:5433/app"
    assert Given(dsn, {}).described() == "joe@db:5433/app"
    assert complete(dsn).password == f"s3cret{text}"


@pytest.mark.parametrize("start", ["abc", "987"])
@pytest.mark.parametrize("character", sorted(set(string.punctuation + " \t\n")))
def test_r43_a_target_never_holds_a_password_that_was_not_encoded(
    character: str, start: str
) -> None:
    """A password is pasted as it is: what is shown holds no piece of it, not even as a port."""
    try:
        shown = Given(f"postgresql://joe:{start}{character}xyz@db:5433/app", {}).described()
    except ConfigurationError as error:
        shown = str(error)
    assert start not in shown
    assert "xyz" not in shown
