"""Django: what its settings say, its transactions, and its interfaces, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

pytest.importorskip("django", minversion="5.2")

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.handlers.asgi import ASGIHandler
from django.db import ProgrammingError, connections, transaction
from django.db.models import (
    CASCADE,
    DecimalField,
    ForeignKey,
    IntegerField,
    Model,
    TextField,
)
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, TestCase, override_settings
from django.urls import path
from django.utils.connection import ConnectionDoesNotExist

from asyncnotify import (
    BlockingListener,
    BlockingNotifier,
    Channel,
    Keepalive,
    Listener,
    Notifier,
    PayloadTooLargeError,
    WrongLoopError,
)
from asyncnotify.log import BlockingLog
from asyncnotify.triggers import Change, Table
from tests.support.hostile_connections import Refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, MutableMapping

    import asyncpg

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        DATABASES={},
        INSTALLED_APPS=["asyncnotify.ext.django"],
        LOGGING_CONFIG=None,
        ROOT_URLCONF=__name__,
        SECRET_KEY="for a test",
        USE_TZ=True,
    )
    importlib.import_module("django").setup()

from asyncnotify.ext.django import (
    Lifespan,
    anotify,
    append,
    close_listeners,
    connect_arguments,
    get_listener,
    get_log,
    health,
    notify,
    notify_on_commit,
)
from asyncnotify.ext.django._running import run
from tests.support.machine import scaled

ENGINE: Final = "django.db.backends.postgresql"
PASSWORD: Final = "s3cret"
WAIT: Final = 20.0


def forget(alias: str) -> None:
    """Have Django make another connection of this alias."""
    with contextlib.suppress(AttributeError):
        del connections[alias]


@contextlib.contextmanager
def rolled_back() -> Generator[None]:
    """Run a block of statements in a transaction, or a savepoint, that is rolled back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture
def case() -> Iterator[Callable[..., str]]:
    """Returns the alias of a database with these settings."""

    def add(**given: Any) -> str:
        defaults = {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False, "OPTIONS": {}}
        places = dict.fromkeys(("HOST", "PORT", "USER", "PASSWORD"), "")
        zone = {"ATOMIC_REQUESTS": False, "AUTOCOMMIT": True, "TIME_ZONE": None}
        known: dict[str, Any] = {"ENGINE": ENGINE, "NAME": "shop", **defaults, **places, **zone}
        connections.settings["case"] = {**known, **given}
        return "case"

    yield add
    connections.settings.pop("case", None)
    forget("case")


@pytest.fixture
def database(dsn: str) -> Iterator[str]:
    """The test's database as the default one."""
    known = connections.settings["default"]
    place = urlsplit(dsn)
    before = dict(known)
    known.update(ENGINE=ENGINE, NAME=place.path[1:], OPTIONS={})
    known.update(HOST=place.hostname, PORT=place.port, USER=place.username)
    known["PASSWORD"] = place.password or ""
    forget("default")
    yield dsn
    connections["default"].close()
    known.clear()
    known.update(before)
    forget("default")


def told(alias: str) -> dict[str, Any]:
    """Return the arguments, and the options of the DSN among them."""
    arguments = connect_arguments(alias)
    arguments["dsn"] = arguments["dsn"].removeprefix("postgresql://?")
    return arguments


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"database": "shop"}),
        ({"NAME": None}, {"database": "postgres"}),
        ({"NAME": "", "OPTIONS": {"service": "shop"}}, {"dsn": "service=shop"}),
        ({"NAME": None, "OPTIONS": {"service": "shop"}}, {"database": "postgres"}),
        (
            {"HOST": "a,b", "PORT": "5432,5433", "USER": "u", "PASSWORD": PASSWORD},
            {
                "database": "shop",
                "host": "a,b",
                "port": "5432,5433",
                "user": "u",
                "password": PASSWORD,
            },
        ),
        ({"HOST": "/run/pg", "PORT": 5433}, {"database": "shop", "host": "/run/pg", "port": 5433}),
        (
            {"OPTIONS": {"host": "a", "dbname": "b"}, "HOST": "c"},
            {"database": "b", "host": "c"},
        ),
        ({"OPTIONS": {"host": "a"}}, {"database": "shop", "host": "a"}),
        (
            {"OPTIONS": {"application_name": None, "sslmode": None}},
            {"database": "shop"},
        ),
        (
            {"OPTIONS": {"connect_timeout": "30"}},
            {"database": "shop", "connect_timeout": 30.0},
        ),
        ({"OPTIONS": {"keepalives": 0}}, {"database": "shop", "keepalive": None}),
        (
            {"OPTIONS": {"keepalives_idle": 30, "tcp_user_timeout": 1_500}},
            {"database": "shop", "keepalive": Keepalive(idle=30, user_timeout=2)},
        ),
        (
            {"OPTIONS": {"assume_role": "app"}},
            {"database": "shop", "server_settings": {"role": "app"}},
        ),
        (
            {"OPTIONS": {"pool": True, "server_side_binding": True, "isolation_level": 2}},
            {"database": "shop"},
        ),
        (
            {"OPTIONS": {"sslmode": "verify-full", "sslrootcert": "/a b&c"}},
            {"database": "shop", "dsn": "sslmode=verify-full&sslrootcert=%2Fa%20b%26c"},
        ),
        (
            {"OPTIONS": {"options": "-c search_path=a"}},
            {"database": "shop", "dsn": "options=-c%20search_path%3Da"},
        ),
    ],
    ids=str,
)
def test_every_setting_is_taken_as_django_takes_it(
    case: Callable[..., str], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Places and names, and options: those of libpq, those with units, and Django's own."""
    assert told(case(**given)) == {"dsn": "", **expected}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ENGINE": "django.db.backends.sqlite3"}, "sqlite"),
        ({"NAME": ""}, "NAME"),
        ({"OPTIONS": {"channel_binding": "require"}}, "channel_binding in OPTIONS"),
        ({"OPTIONS": {"sslmode": "some"}}, "sslmode in OPTIONS"),
        ({"OPTIONS": {"require_auth": "scram-sha-256"}}, "require_auth in OPTIONS"),
        ({"OPTIONS": {"search_path": "a"}}, "search_path in OPTIONS"),
        ({"OPTIONS": {"connect_timeout": 0}}, "connect_timeout"),
        ({"OPTIONS": {"connect_timeout": "5s"}}, "connect_timeout must be a positive number"),
        ({"OPTIONS": {"connect_timeout": "nan"}}, "connect_timeout must be a positive number"),
        ({"OPTIONS": {"keepalives_idle": 40_000}}, "keepalives_idle cannot be honoured"),
        ({"OPTIONS": {"keepalives_count": "three"}}, "keepalives_count must be a whole number"),
        ({"OPTIONS": {"tcp_user_timeout": 1e300}}, "tcp_user_timeout cannot be honoured"),
        ({"OPTIONS": {"tcp_user_timeout": "inf"}}, "tcp_user_timeout must be a whole number"),
        ({"HOST": "a,b", "PORT": "1,2,3"}, "port"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(
    case: Callable[..., str], given: dict[str, Any], named: str
) -> None:
    """With the alias and the name of the option, and without the password."""
    with pytest.raises(ImproperlyConfigured) as refusal:
        connect_arguments(case(**{"PASSWORD": PASSWORD, **given}))
    assert "DATABASES['case']" in str(refusal.value)
    assert named in str(refusal.value)
    assert PASSWORD not in str(refusal.value)


def test_what_is_sent_to_another_database_is_refused_by_name(case: Callable[..., str]) -> None:
    """Of any call that sends."""
    alias = case(ENGINE="django.db.backends.sqlite3")
    for call in (
        lambda: notify("orders", using=alias),
        lambda: append("shop", "orders", using=alias),
    ):
        with pytest.raises(ImproperlyConfigured, match="sqlite: only PostgreSQL"):
            call()


def test_an_alias_that_is_not_there_is_refused_as_by_django() -> None:
    """With Django's own error."""
    with pytest.raises(ConnectionDoesNotExist):
        connect_arguments("elsewhere")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"LISTENERS": {}}, "did you mean 'LISTENER'"),
        ({"DATABASE": 5}, "ASYNCNOTIFY['DATABASE']"),
        ({"LISTENER": {"heartbeat": -1}}, "heartbeat"),
        ({"LISTENER": {"hartbeat": 1}}, "did you mean heartbeat="),
        ({"DATABASE": "elsewhere"}, "elsewhere"),
        ("default", "ASYNCNOTIFY"),
    ],
    ids=str,
)
def test_check_finds_what_is_wrong_with_the_settings(
    database: str, given: object, named: str
) -> None:
    """``manage.py check`` names the key, and is content with good settings."""
    with override_settings(ASYNCNOTIFY=given):
        (error,) = run_checks(databases=["default"])
    assert error.id == "asyncnotify.E001"
    assert named in error.msg
    assert run_checks(databases=["default"]) == []


async def test_every_class_takes_the_arguments(database: str) -> None:
    """The listener and the notifier of asyncio, and the blocking ones."""
    arguments = connect_arguments()
    async with Listener(**arguments) as listener, listener.stream("orders") as stream:
        async with Notifier(**arguments) as notifier:
            await notifier.notify("orders", "1")
        assert (await anext(stream)).payload == "1"

    def block() -> bool:
        with BlockingListener(**arguments) as listener, BlockingNotifier(**arguments):
            return listener.is_connected

    assert await asyncio.to_thread(block)


# -- sending --------------------------------------------------------------------------------------


def test_a_notification_is_part_of_the_transaction(database: str) -> None:
    """It is delivered on commit, not after a rollback, nor after one of a savepoint around it."""
    with BlockingListener(database) as listener, listener.stream("orders") as stream:
        with transaction.atomic():
            notify("orders", "kept")
            with rolled_back():
                notify("orders", "of a savepoint")
            with pytest.raises(PayloadTooLargeError):
                notify("orders", "é" * 4_000)
            notify("orders", "kept")  # PostgreSQL delivers equal ones once
        with rolled_back():
            notify("orders", "rolled back")
        notify(Channel("orders", dict), {"n": 1})
        assert [stream.get(WAIT).payload for _ in range(2)] == ["kept", '{"n":1}']


def test_dumpers_that_are_set_on_djangos_connection_change_no_notification(database: str) -> None:
    """Nor an event of a log; Django's own statements are coded as they were."""
    payload = "it's \\ %s é"
    with (
        BlockingListener(database) as listener,
        listener.stream("orders") as stream,
        BlockingLog("web", database) as log,
    ):
        log.install()
        connections["default"].ensure_connection()
        connections["default"].connection.adapters.register_dumper(str, Refusing)
        notify("orders", payload)
        append("web", "orders", payload, key="1", headers={"a": payload})
        assert stream.get(WAIT).payload == payload
        with log.read("orders", after="start") as events:
            assert next(events).payload == payload
        with pytest.raises(AssertionError), connections["default"].cursor() as cursor:
            cursor.execute("SELECT %s", ["a text"])


def test_a_notification_on_commit_is_a_statement_of_its_own(database: str) -> None:
    """It comes after those of the transaction, each one, and none after a rollback."""
    with BlockingListener(database) as listener, listener.stream("orders") as stream:
        with transaction.atomic():
            notify_on_commit("orders", "after")
            notify_on_commit("orders", "after")
            notify("orders", "within")
            with pytest.raises(PayloadTooLargeError):
                notify_on_commit("orders", "x" * 8_000)
        with rolled_back():
            notify_on_commit("orders", "rolled back")
        notify_on_commit("orders", "at once")
        assert [stream.get(WAIT).payload for _ in range(4)] == [
            "within",
            "after",
            "after",
            "at once",
        ]


def test_a_test_case_catches_notifications_on_commit(database: str) -> None:
    """``captureOnCommitCallbacks(execute=True)`` calls them; the transaction delivers nothing."""
    with BlockingListener(database) as listener, listener.stream("orders") as stream:
        with (
            rolled_back(),
            TestCase.captureOnCommitCallbacks(execute=True) as callbacks,
        ):
            notify_on_commit("orders", "never")
            notify("orders", "neither")
        assert len(callbacks) == 1
        notify("orders", "next")
        assert stream.get(WAIT).payload == "next"


async def test_a_coroutine_sends_by_anotify(database: str) -> None:
    """``notify()`` in a coroutine is Django's own error, and sends nothing."""
    async with Listener(database) as listener, listener.stream("orders") as stream:
        with pytest.raises(SynchronousOnlyOperation):
            notify("orders", "1")
        await anotify("orders", "2")
        await sync_to_async(notify)("orders", "3")
        assert [(await anext(stream)).payload for _ in range(2)] == ["2", "3"]
    await sync_to_async(connections.close_all)()


def test_an_event_of_a_log_is_part_of_the_transaction(database: str) -> None:
    """It is there after a commit; what Django raises, without the log, breaks its transaction."""
    with pytest.raises(ProgrammingError), transaction.atomic():
        append("web", "orders", "before the log")
    with BlockingLog("web", database) as log:
        log.install()
        with log.read("orders", after="start") as stream:
            with transaction.atomic():
                identity = append("web", "orders", "x" * 9_000, key="1")
                with rolled_back():
                    append("web", "orders", "of a savepoint")
            with rolled_back():
                append("web", "orders", "rolled back")
            append("web", Channel("orders", dict), {"n": 1})
            first, second = stream.get(WAIT), stream.get(WAIT)
    assert (first.id, first.payload, first.key) == (identity, "x" * 9_000, "1")
    assert second.payload == '{"n":1}'


# -- triggers -------------------------------------------------------------------------------------


class Customer(Model):  # noqa: DJ008 - shown nowhere
    """One half of a table of the shop's."""

    name: Any = TextField()

    class Meta:
        """Where it belongs."""

        app_label = "shop"


class Order(Model):  # noqa: DJ008 - shown nowhere
    """The other half, in a table whose name Django takes as it is written."""

    number: Any = IntegerField(primary_key=True, db_column="no.")
    customer: Any = ForeignKey(Customer, CASCADE)
    total: Any = DecimalField(max_digits=9, decimal_places=2)

    class Meta:
        """Where it belongs."""

        app_label = "shop"
        db_table = '"public"."the orders"'


class Urgent(Order):  # noqa: DJ008 - shown nowhere
    """A proxy, which has no table of its own."""

    class Meta:  # pyright: ignore[reportIncompatibleVariableOverride]  # Django takes it away
        """Of what."""

        app_label = "shop"
        proxy = True


class Abstract(Model):
    """What has no table."""

    class Meta:
        """Of what."""

        app_label = "shop"
        abstract = True


def test_a_model_tells_of_its_changes(database: str) -> None:
    """By triggers made of it: its table and key, and columns named by its attributes."""
    table = Table.of(Urgent, payload=[Order.customer, Order.total], watch=Order.total)
    with connections["default"].schema_editor() as editor:
        editor.create_model(Customer)
        editor.create_model(Order)
        for statement in table.statements():
            editor.execute(statement, params=None)
    with BlockingListener(database) as listener, listener.stream(table.changes) as stream:
        customer = Customer.objects.create(name="somebody")
        order: Any = Order.objects.create(number=7, customer=customer, total=Decimal("1.50"))
        order.customer_id = customer.pk
        order.save(update_fields=["customer"])
        order.delete()
        changes = [stream.get(WAIT).payload for _ in range(2)]
    row = {"no.": 7, "customer_id": customer.pk, "total": Decimal("1.50")}
    assert changes == [Change("insert", (7,), (row,)), Change("delete", (7,), (row,))]


def test_a_model_without_a_table_has_no_triggers() -> None:
    """An abstract one is refused, by its name."""
    with pytest.raises(TypeError, match="Abstract is abstract"):
        Table.of(Abstract)
    assert Table.of(Customer).name == '"public"."shop_customer"'


# -- listeners of a process -----------------------------------------------------------------------


async def ask_for_listener(request: HttpRequest) -> HttpResponse:
    """Answer which listener the process has."""
    try:
        return HttpResponse(str(id(await get_listener())))
    except WrongLoopError as error:
        return HttpResponse(str(error), status=500)


urlpatterns = [path("listener", ask_for_listener), path("health", health)]


async def test_all_requests_share_one_listener(database: str) -> None:
    """Also those that come while it starts, and when the first of their clients leaves."""
    leaving = asyncio.create_task(get_listener())
    others = [asyncio.create_task(get_listener()) for _ in range(3)]
    await asyncio.sleep(0)
    leaving.cancel()
    listener, *same = await asyncio.gather(*others)
    assert all(one is listener for one in same)
    assert (await AsyncClient().get("/listener")).content.decode() == str(id(listener))
    assert listener.is_connected
    await close_listeners()
    again = await get_listener()
    assert again is not listener
    await close_listeners()


async def test_all_requests_share_one_log(database: str) -> None:
    """Until it is closed; then there is another one."""
    log = get_log("web")
    await log.install()
    assert get_log("web") is log
    assert get_log("other") is not log
    async with log.read("orders") as stream:
        await log.append("orders", "1")
        assert (await anext(stream)).payload == "1"
    await close_listeners()
    assert get_log("web") is not log


def test_an_async_view_under_wsgi_gets_no_listener(database: str) -> None:
    """It would end with the request; the error says what to use, and binds only that request."""
    response = Client(raise_request_exception=False).get("/listener")
    assert response.status_code == 500
    assert "under ASGI" in response.content.decode()

    async def outside() -> bool:
        listener = await get_listener()
        await close_listeners()
        return listener.is_connected

    assert not asyncio.run(outside())


def test_a_health_check_says_what_keeps_the_listener_from_starting(database: str) -> None:
    """Here that the view is served under WSGI."""
    response = Client().get("/health")
    assert response.status_code == 503
    assert "under ASGI" in response.json()["last_error"]


class Process:
    """The life of a process under ASGI, as a server sees it."""

    def __init__(self, **options: Any) -> None:
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._lifespan = Lifespan(ASGIHandler(), **options)
        self._life: asyncio.Task[None] | None = None

    async def start(self) -> MutableMapping[str, Any]:
        """Tell it to start; return what it answers."""
        served = self._lifespan({"type": "lifespan"}, self._told.get, self._said.put)
        self._life = asyncio.create_task(served)
        self._told.put_nowait({"type": "lifespan.startup"})
        async with asyncio.timeout(scaled(WAIT)):
            return await self._said.get()

    async def stop(self) -> MutableMapping[str, Any]:
        """Tell it to stop; return what it answers."""
        self._told.put_nowait({"type": "lifespan.shutdown"})
        return await self._said.get()


@pytest.mark.parametrize(
    ("setting", "alias", "named"),
    [
        ({"LISTENER": {"hartbeat": 1}}, None, "did you mean heartbeat="),
        ({"DATABASE": 5}, None, "ASYNCNOTIFY['DATABASE']"),
        ({}, "replcia", "replcia"),
        ({}, "case", "no_such_role"),
    ],
)
async def test_a_process_that_cannot_listen_tells_its_server_why(
    database: str, case: Callable[..., str], setting: object, alias: str | None, named: str
) -> None:
    """Whatever the reason: an error that the server sees means to it that there is no lifespan."""
    place = {**connections.settings["default"], "USER": "no_such_role"}
    case(**place)
    with override_settings(ASYNCNOTIFY=setting):
        answer = await Process(alias=alias).start()
    assert answer["type"] == "lifespan.startup.failed"
    assert named in answer["message"]
    await close_listeners()


def ignore(number: int, frame: object) -> None:
    """Do nothing about a signal."""


@pytest.fixture
def stopped() -> Iterator[Callable[[], None]]:
    """Tells this process to stop, whose server has a handler of that signal."""
    before = signal.signal(signal.SIGTERM, ignore)
    yield lambda: signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)


async def ended(stream: Any) -> bool:
    """Return whether a stream ends, without an item."""
    async with asyncio.timeout(scaled(WAIT)), stream:
        return [item async for item in stream] == []


async def test_a_process_that_stops_ends_the_streams_of_what_it_makes_then(
    database: str, case: Callable[..., str], stopped: Callable[[], None]
) -> None:
    """Its first log, and the listener of another database, until it is started again."""
    other = case(**connections.settings["default"])
    process = Process()
    await process.start()
    await get_log("web").install()
    await get_log("known").install()
    stopped()
    assert await ended((await get_listener()).stream("orders"))
    assert await ended((await get_listener(other)).stream("orders"))
    assert await ended(get_log("known").read("orders"))
    assert await ended(get_log("web", other).read("orders"))
    assert (await process.stop())["type"] == "lifespan.shutdown.complete"
    async with get_log("web").read("orders", after="now") as stream:
        await get_log("web").append("orders", "1")
        assert (await anext(stream)).payload == "1"
    await close_listeners()


def test_an_event_loop_that_ends_takes_its_listener_along(database: str) -> None:
    """The next loop gets a listener of its own; nothing warns, and no session stays."""
    first = asyncio.run(get_listener())
    second = asyncio.run(get_listener())
    assert first is not second


async def test_starting_the_application_twice_listens_nowhere(
    database: str, admin: asyncpg.Connection[Any]
) -> None:
    """``ready()`` is called again by tests, and in both processes of the autoreloader."""
    apps.get_app_config("asyncnotify").ready()
    apps.get_app_config("asyncnotify").ready()
    assert run_checks(databases=["default"]) == []
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asyncnotify'"
    assert await admin.fetchval(sessions) == 0


@pytest.fixture
def connected() -> Iterator[Callable[[], int]]:
    """Returns how many listeners are instrumented, by OpenTelemetry, and connected."""
    module = pytest.importorskip("asyncnotify.ext.opentelemetry.instrumentor")
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    provider = sdk.MeterProvider([reader])

    def count() -> int:
        (resource,) = reader.get_metrics_data().resource_metrics
        metrics = {
            metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics
        }
        return sum(point.value for point in metrics["asyncnotify.connected"].data.data_points)

    module.AsyncNotifyInstrumentor().instrument(meter_provider=provider)
    yield count
    module.AsyncNotifyInstrumentor().uninstrument()
    provider.shutdown()


async def test_what_views_and_the_command_use_is_instrumented(
    database: str, connected: Callable[[], int]
) -> None:
    """The listener and the log of a process, and the listener of ``asyncnotify_listen``."""
    await get_listener()
    assert connected() == 1
    assert "append" in vars(get_log("web"))
    await close_listeners()
    assert connected() == 0
    counted: list[int] = []

    def started() -> None:
        counted.append(connected())
        signal.raise_signal(signal.SIGTERM)

    await run(None, started=started)
    assert counted == [1]


def test_without_django_one_line_says_what_to_install() -> None:
    """And nothing of the integration has been imported."""
    program = "import sys; sys.modules['django'] = None; import asyncnotify.ext.django"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    wanted = (
        "ImportError: asyncnotify.ext.django needs Django: pip install 'asyncnotify-pg[django]'"
    )
    assert ended.stderr.splitlines()[-1] == wanted


def test_the_public_names_are_documented() -> None:
    """Each has a docstring, and stands in the module that users import."""
    module = importlib.import_module("asyncnotify.ext.django")
    for name in module.__all__:
        assert getattr(module, name).__doc__
        assert getattr(module, name).__module__ == "asyncnotify.ext.django"
