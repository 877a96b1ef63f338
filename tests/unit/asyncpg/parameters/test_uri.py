"""Connection URIs mean what they mean to libpq, which is asked itself."""

from __future__ import annotations

import random
import re
import string
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from asyncnotify._asyncpg._parameters.uri import SQLALCHEMY, parse_uri
from asyncnotify._errors import ConfigurationError

WORDS = "u host db ::1 5432 é %20 %2F %C3%A9 %00 %4 %zz %ff user= port= password= dbname= ssl=true"
PIECES = [*WORDS.split(), *"+:@/?=&,[]# ", "application_name=", "options="]
MOST_PIECES = 12
URIS = st.lists(st.sampled_from(PIECES), max_size=MOST_PIECES).map("".join)

KNOWN = {"user", "password", "host", "port", "dbname", "application_name", "options"}

# From libpq's own test of its parser: src/interfaces/libpq/t/001_uri.pl
REGRESSION = [
    "uri-user:secret@host:12345/db",
    "uri-user@host:12345/db",
    "uri-user@host/db",
    "host:12345/db",
    "host/db",
    "uri-user@host:12345/",
    "uri-user@host/",
    "uri-user@",
    "host:12345/",
    "host:12345",
    "host/",
    "host",
    "",
    "?hostaddr=127.0.0.1",
    "example.com?hostaddr=63.1.2.4",
    "%68ost/",
    "host/db?user=uri-user",
    "host/db?user=uri-user&port=12345",
    "host/db?u%73er=someotheruser&port=12345",
    "host/db?u%7aer=someotheruser&port=12345",
    "host:12345?user=uri-user",
    "host?user=uri-user",
    "host?",
    "[::1]:12345/db",
    "[::1]/db",
    "[2001:db8::1234]/",
    "[200z:db8::1234]/",
    "[::1]",
    "/db",
    "uri-user@/db",
    "uri-user:12345@",
    "?user=u",
    "host?uzer=",
    "host:12345/db?user=",
    "host?zzz",
    "host?value1&value2",
    "host?key=key=value",
    "host?sslmode=dis=able",
    "host?sslmode=disable&user=",
    "[::1",
    "[]",
    "[::1]z",
    "%00",
    "%zz",
    "%0",
    "%",
    "uri-user@host/db?u=%zz",
    "@host",
    "host:port/db",
    ":@host/",
    ":12345/",
    "otheruser@?host=/no/such/directory",
    "otheruser@/?host=/no/such/directory",
    "otheruser@:12345?host=/no/such/socket/path",
    "otheruser@:12345/db?host=/path/to/socket",
    ":12345/db?host=/path/to/socket",
    ":12345?host=/path/to/socket",
    "%2Fvar%2Flib%2Fpostgresql/dbname",
    "host?sslmode=disable",
    "host?sslmode=prefer",
    "host?sslmode=verify-full",
    "h1:1,h2:2/db",
    "h1,h2:2/db",
    "h1:1,h2/db",
    "[::1]:1,h2,[::2]:3/db",
    "h1,,h3/db",
    "a,b?port=1,2",
    "u@h1,h2/db?port=1&port=2",
    "u:a,b@h1/db",
    "u:a:b@h1/db",
    "u:a?b@h1/db",
    "u:a#b@h1/db#c",
    "u:a+b@h1/db?application_name=c+d",
]


def by_libpq(rest: str) -> dict[str, str] | None:
    """Return what libpq makes of a URI; None: it refuses."""
    try:
        found = conninfo_to_dict(f"postgresql://{rest}")
    except (ProgrammingError, UnicodeDecodeError):
        return None
    return {name: str(value) for name, value in found.items() if value != ""}


def by_us(rest: str) -> dict[str, str] | None:
    """Return what we make of it."""
    try:
        parts, query = parse_uri(rest)
    except ConfigurationError:
        return None
    found = dict(parts + query)
    if found.get("ssl") == "true":
        del found["ssl"]
        found["sslmode"] = "require"
    return found


def given_of(found: dict[str, str] | None) -> dict[str, str] | None:
    """Return it without what is empty."""
    return found and {name: value for name, value in found.items() if value != ""}


def is_refused_by_us_alone(rest: str) -> bool:
    """
    Return whether libpq would look up what can only be the end of a password, or no address.

    Or whether it overlooks what is no UTF-8, because another part takes its place.
    """
    try:
        unquote_to_bytes(rest).decode()
    except UnicodeDecodeError:
        return True
    return "@" in rest.partition("@")[2] or "@" in rest or bool(re.search(r"\[[^\]]*[,/?]", rest))


@pytest.mark.parametrize("rest", REGRESSION)
def test_what_libpq_tests_itself_with_means_the_same_here(rest: str) -> None:
    """Hosts, ports, brackets, empty parts, encoded parts, parameters: each as libpq takes it."""
    expected, ours = by_libpq(rest), by_us(rest)
    if expected is None:  # of the names of parameters we know more
        assert ours is None or ours.keys() - KNOWN or not ours
    else:
        assert given_of(ours) == expected


def is_understood_alike(rest: str) -> bool:
    """Return whether a URI means what libpq makes of it, or is refused with reason."""
    expected, ours = by_libpq(rest), by_us(rest)
    if expected is None:
        return ours is None or bool(ours.keys() - KNOWN) or not ours
    if ours is None:
        return is_refused_by_us_alone(rest)
    return given_of(ours) == expected


@given(URIS)
@example("/%ff?dbname=")
def test_any_uri_means_what_libpq_makes_of_it(rest: str) -> None:
    """Or it is refused: nothing is understood in another way."""
    assert is_understood_alike(rest)


def test_many_uris_mean_what_libpq_makes_of_them() -> None:
    """More than a property tries, at a tenth of its time for each; other ones in each run."""
    rng = random.Random(2026 if settings().derandomize else None)
    count = settings().max_examples * 100
    rests = ("".join(rng.choices(PIECES, k=rng.randint(0, MOST_PIECES))) for _ in range(count))
    assert [rest for rest in rests if not is_understood_alike(rest)] == []


@pytest.mark.parametrize(
    "rest",
    [
        "joe:s3c@ret@localhost/db",
        "joe:s3c/ret@localhost/db",
        "joe:s3c/r?et@localhost/db",
        "joe:s3c/?a=b&c=ret@localhost/db",
        "joe:s3c%ret@localhost/db",
        "joe:s3c ret@localhost/db",
        "joe:s3c\0ret@localhost/db",
    ],
)
def test_r43_the_end_of_a_password_is_not_taken_for_a_host(rest: str) -> None:
    """An ``@`` where none can be is no host of that name, but a refusal that tells no part."""
    with pytest.raises(ConfigurationError, match="percent-encoded") as refused:
        parse_uri(rest)
    assert not any(part in str(refused.value) for part in ("s3c", "ret"))
    assert refused.value.__cause__ is refused.value.__context__ is None


@given(st.dictionaries(st.text(string.ascii_letters, min_size=1), st.text(string.ascii_letters)))
def test_a_query_of_sqlalchemy_may_hold_plus_for_a_space(words: dict[str, str]) -> None:
    """As ``urllib`` encodes it; for libpq it is a plus."""
    query = "&".join(f"{name}=a+{value}" for name, value in words.items())
    expected = [(name, f"a {value}") for name, value in words.items()]
    assert parse_uri(f"db?{query}", SQLALCHEMY)[1] == expected
    assert parse_uri(f"db?{query}")[1] == [(name, f"a+{value}") for name, value in words.items()]
