"""Alembic: triggers come and go with migrations, whose SQL is that of the day they were made."""

from __future__ import annotations

import importlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from asyncnotify import Listener
from asyncnotify.triggers import BlockingTable, Table, TriggerState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    Connection = asyncpg.Connection[Any]

ENV = """
import asyncio

import sqlalchemy
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

import asyncnotify.triggers.alembic

given = context.config.attributes

def run(**options):
    context.configure(
        target_metadata=given["metadata"],
        autogenerate_plugins=["alembic.autogenerate.*", "asyncnotify.triggers"],
        **options,
        **given["settings"],
    )
    with context.begin_transaction():
        context.run_migrations()

async def run_async():
    engine = create_async_engine(given["url"], poolclass=sqlalchemy.pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(lambda connection: run(connection=connection))

if context.is_offline_mode():
    run(url=given["url"])
elif "asyncpg" in given["url"]:
    asyncio.run(run_async())
else:
    engine = sqlalchemy.create_engine(given["url"], poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        run(connection=connection)
"""
SCRIPT = '''
"""${message}"""
from alembic import op
import sqlalchemy as sa
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
'''
CHANNEL = "50% :of '\\ \" it"
"""In which drivers, SQLAlchemy and Python may see something else than a text."""


class Project:
    """A directory of migrations, and what is declared."""

    def __init__(self, path: Path, dsn: str, env: str = ENV) -> None:
        pytest.importorskip("alembic", minversion="1.18")
        self._command: Any = importlib.import_module("alembic.command")
        self._config: Any = importlib.import_module("alembic.config").Config(stdout=io.StringIO())
        (path / "versions").mkdir()
        (path / "env.py").write_text(env, encoding="utf-8")
        (path / "script.py.mako").write_text(SCRIPT, encoding="utf-8")
        self._config.set_main_option("script_location", str(path))
        self._config.set_main_option("path_separator", "os")
        self._dsn = dsn
        self.use_driver("psycopg")
        self.settings: dict[str, Any] = {}
        self._config.attributes["settings"] = self.settings
        self.declare()

    def use_driver(self, driver: str) -> None:
        """Connect by a driver."""
        url = self._dsn.replace("postgresql://", f"postgresql+{driver}://")
        self._config.attributes["url"] = url
        self._config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))

    def declare(self, *tables: Table) -> None:
        """Declare the table ``t``, and these triggers."""
        metadata = sa.MetaData(info={"asyncnotify.triggers": list(tables)})
        column = sa.Column("50%:x", sa.Text)
        sa.Table("t", metadata, sa.Column("id", sa.Integer, primary_key=True), column)
        self._config.attributes["metadata"] = metadata

    def declare_only(self, *tables: Table) -> None:
        """Declare these triggers, and no table."""
        metadata = sa.MetaData(info={"asyncnotify.triggers": tables})
        self._config.attributes["metadata"] = metadata

    def declare_no_triggers(self) -> None:
        """Declare the table, and do not speak of triggers."""
        self.declare()
        self._config.attributes["metadata"].info.clear()

    def make_revision(self) -> str:
        """Compare, and write a migration; return its text."""
        made = self._command.revision(self._config, message="next", autogenerate=True)
        return Path(made.path).read_text(encoding="utf-8")

    def upgrade(self) -> None:
        """Go to the newest."""
        self._command.upgrade(self._config, "head")

    def downgrade(self, to: str = "-1") -> None:
        """Go back."""
        self._command.downgrade(self._config, to)

    def check(self) -> None:
        """Raise where something is to be migrated."""
        self._command.check(self._config)

    def sql(self, migration: str) -> str:
        """Return the SQL of a migration that is the newest, of which this is the text."""
        (before,) = re.findall(r"^down_revision = '(\w+)'$", migration, re.MULTILINE)
        self._config.output_buffer = io.StringIO()
        self._command.upgrade(self._config, f"{before}:head", sql=True)
        text: str = self._config.output_buffer.getvalue()
        return text


@pytest.fixture
def project(tmp_path: Path, dsn: str) -> Project:
    """Migrations, none of them yet; a test is skipped where Alembic is not installed."""
    return Project(tmp_path, dsn)


def table(**options: Any) -> Table:
    """Return a Table of t."""
    given: dict[str, Any] = {"key": "id", "payload": "50%:x", "channel": CHANNEL, **options}
    return Table("t", **given)


def is_no_child(name: str | None, kind: str, of: object) -> bool:
    """Return whether Alembic is to compare something."""
    return not str(name).startswith("child")


def is_no_table(name: str | None, kind: str, of: object) -> bool:
    """Return whether Alembic is to compare something."""
    return kind != "table"


async def test_a_migration_up_and_down(project: Project, dsn: str, admin: Connection) -> None:
    """It makes the table, then triggers, which tell; nothing differs then; down, all is gone."""
    triggers = table()
    project.declare(triggers)
    text = project.make_revision()
    assert text.index("op.create_table") < text.index("op.install_notify_trigger")
    assert text.index("op.remove_notify_trigger") < text.index("op.drop_table")
    project.upgrade()
    assert (await triggers.status(admin)).is_fine
    project.check()
    async with Listener(dsn) as listener, listener.stream(triggers.changes) as stream:
        await admin.execute("INSERT INTO t VALUES (7, 'x')")
        assert (await anext(stream)).payload.rows == ({"id": 7, "50%:x": "x"},)
    project.downgrade("base")
    assert await admin.fetchval("SELECT to_regclass('t') IS NULL")
    assert await functions(admin) == []
    project.upgrade()
    assert (await triggers.status(admin)).is_fine


def test_by_asyncpg(project: Project, dsn: str) -> None:
    """An ``env.py`` that is async, as Alembic's template is, does the same."""
    project.use_driver("asyncpg")
    triggers = table()
    project.declare(triggers)
    project.make_revision()
    project.upgrade()
    project.check()
    with psycopg.connect(dsn) as connection:
        assert BlockingTable(triggers).status(connection).is_fine
    project.declare(table(level="row"))
    project.make_revision()
    project.upgrade()
    project.check()
    project.downgrade()
    with psycopg.connect(dsn) as connection:
        assert BlockingTable(triggers).status(connection).is_fine


async def functions(connection: Connection) -> list[str]:
    """Return the functions that triggers have."""
    rows = await connection.fetch("SELECT proname FROM pg_proc WHERE proname LIKE 'asyncnotify%'")
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("options", "of_triggers"),
    [
        ({"max_notifications": 17}, False),
        ({"operations": ("insert",)}, True),
        ({"level": "row"}, True),
    ],
)
async def test_a_changed_table_up_and_down(
    project: Project, admin: Connection, options: dict[str, Any], *, of_triggers: bool
) -> None:
    """The newer one is installed; the way back makes the one that was there, as it was."""
    older, newer = table(), table(**options)
    project.declare(older)
    project.make_revision()
    project.upgrade()
    project.declare(newer)
    with pytest.raises(Exception, match="install_notify_trigger"):
        project.check()
    text = project.make_revision()
    assert ("CASCADE" in text) is of_triggers  # else no lock on the table
    assert ("CREATE TRIGGER" in text.split("def downgrade")[1]) is of_triggers
    assert not re.search(r"(FUNCTION|ON) (asyncnotify_)?t\b", text)  # a name without its schema
    project.upgrade()
    assert (await newer.status(admin)).is_fine
    project.check()
    project.downgrade()
    assert (await older.status(admin)).is_fine
    project.upgrade()
    assert (await newer.status(admin)).is_fine


async def test_triggers_that_are_declared_no_longer(project: Project, admin: Connection) -> None:
    """They go, and come back where they were, on those children that are still there."""
    triggers = table()
    project.declare(triggers)
    project.make_revision()
    project.upgrade()
    await admin.execute(
        "CREATE TABLE child_1 () INHERITS (t); CREATE TABLE child_2 () INHERITS (t)"
    )
    await triggers.install(admin)
    project.settings["include_name"] = is_no_child
    project.declare()
    assert "table(" not in project.make_revision()
    project.upgrade()
    assert await functions(admin) == []
    project.check()
    await admin.execute("DROP TABLE child_2")
    project.downgrade()
    status = await triggers.status(admin)
    assert status.is_fine
    assert status.tables.keys() == {"public.t", "public.child_1"}


async def test_a_function_made_by_hand_is_left_alone(project: Project, admin: Connection) -> None:
    """A downgrade neither drops one of the expected name, nor puts another body into it."""
    by_hand = """
        DROP FUNCTION IF EXISTS asyncnotify_t CASCADE;
        CREATE FUNCTION asyncnotify_t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'
    """
    body = "SELECT prosrc FROM pg_proc WHERE proname = 'asyncnotify_t'"
    project.declare(table())
    project.make_revision()
    project.upgrade()
    project.declare()
    project.make_revision()
    project.upgrade()
    await admin.execute(by_hand)
    with pytest.raises(ProgrammingError, match="has not made it"):
        project.downgrade()
    assert await admin.fetchval(body) == "BEGIN RETURN NULL; END"
    await admin.execute("DROP FUNCTION asyncnotify_t")
    project.downgrade()
    await admin.execute(by_hand)
    project.downgrade()
    assert await admin.fetchval(body) == "BEGIN RETURN NULL; END"


async def on_partitions(project: Project, admin: Connection, level: str) -> Table:
    """Return the triggers of a partitioned table, which a migration has installed."""
    await admin.execute("CREATE TABLE child (id int) PARTITION BY LIST (id)")
    await admin.execute("CREATE TABLE child_1 PARTITION OF child FOR VALUES IN (1)")
    options: dict[str, Any] = {"level": level}
    triggers = Table("child", key="id", **options)
    project.settings["include_name"] = is_no_child
    project.declare_only(triggers)
    project.make_revision()
    project.upgrade()
    return triggers


@pytest.mark.parametrize("level", ["row", "statement"])
async def test_triggers_of_partitions(project: Project, admin: Connection, level: str) -> None:
    """They go, and come back once on each partition."""
    triggers = await on_partitions(project, admin, level)
    project.declare_only()
    project.make_revision()
    project.upgrade()
    assert await functions(admin) == []
    project.downgrade()
    assert (await triggers.status(admin)).is_fine


@pytest.mark.parametrize("level", ["row", "statement"])
async def test_triggers_that_fire_always_come_back_so(
    project: Project, admin: Connection, level: str
) -> None:
    """On a subscriber of logical replication nothing would be told any more."""
    triggers = await on_partitions(project, admin, level)
    query = "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal"
    for part, name in await admin.fetch(query):
        await admin.execute(f"ALTER TABLE {part} ENABLE ALWAYS TRIGGER {name}")
    project.declare_only()
    project.make_revision()
    project.upgrade()
    project.downgrade()
    kinds = "SELECT DISTINCT tgenabled FROM pg_trigger WHERE NOT tgisinternal"
    assert await admin.fetch(kinds) == [(b"A",)]
    assert (await triggers.status(admin)).is_fine


async def test_rights_on_the_function_come_back(project: Project, admin: Connection) -> None:
    """Without its right the owner of the table could make no partition, as install() lets it."""
    role = f"{await admin.fetchval('SELECT current_database()')}_owner"
    await admin.execute(f"""
        CREATE TABLE child (id int) PARTITION BY LIST (id);
        CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role};
        ALTER TABLE child OWNER TO {role}
    """)
    try:
        triggers = Table("child", key="id", level="row")
        project.settings["include_name"] = is_no_child
        project.declare_only(triggers)
        project.make_revision()
        project.upgrade()
        project.declare_only()
        project.make_revision()
        project.upgrade()
        project.downgrade()
        await admin.execute(f"SET ROLE {role}")
        await admin.execute("CREATE TABLE child_1 PARTITION OF child FOR VALUES IN (1)")
        await admin.execute("RESET ROLE")
        assert (await triggers.status(admin)).function is TriggerState.FINE
    finally:
        await admin.execute(f"RESET ROLE; DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_a_table_that_is_dropped(project: Project, admin: Connection) -> None:
    """With its triggers: up, down and up again."""
    triggers = table()
    project.declare(triggers)
    project.make_revision()
    project.upgrade()
    project.declare_only()
    text = project.make_revision()
    assert text.index("op.remove_notify_trigger") < text.index("op.drop_table")
    project.upgrade()
    project.check()
    assert await functions(admin) == []
    project.downgrade()
    assert (await triggers.status(admin)).is_fine
    project.upgrade()
    assert await functions(admin) == []


async def test_a_table_that_was_renamed(project: Project, admin: Connection) -> None:
    """The triggers of its former name go, those of the new one come, and so the way back."""
    project.declare(table())
    project.make_revision()
    project.upgrade()
    await admin.execute("ALTER TABLE t RENAME TO u")
    project.settings["include_name"] = is_no_table
    triggers = Table("u", key="id")
    project.declare_only(triggers)
    project.make_revision()
    project.upgrade()
    project.check()
    assert (await triggers.status(admin)).is_fine
    assert await functions(admin) == ["asyncnotify_u"]
    project.downgrade()
    assert await functions(admin) == ["asyncnotify_t"]
    await admin.execute("ALTER TABLE u RENAME TO t")
    assert (await table().status(admin)).is_fine


MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)

class Parcel(Base):
    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
TRIGGERS = """
from asyncnotify.triggers import Table
from shop.models import Order, Parcel

orders, parcels = Table.of(Order), Table.of(Parcel)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package ``shop`` of the documents, with two mapped classes and a Table of each."""
    package = tmp_path / "shop"
    package.mkdir()
    for name, text in {"__init__": "", "models": MODELS, "triggers": TRIGGERS}.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [one for one in sys.modules if one.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.usefixtures("shop")
async def test_the_file_that_is_documented(tmp_path: Path, dsn: str, admin: Connection) -> None:
    """With ``env.py`` as the document has it, a revision makes the tables and their triggers."""
    document = Path(__file__).parents[2] / "docs" / "triggers.md"
    (env,) = re.findall(
        r"^```python\n(# migrations/env\.py\n.*?)^```$",
        document.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    (tmp_path / "migrations").mkdir()
    project = Project(tmp_path / "migrations", dsn, env)
    text = project.make_revision()
    assert text.count("op.install_notify_trigger") == text.count("op.create_table") == 2
    project.upgrade()
    project.check()
    for name in ("orders", "parcels"):
        assert (await Table(name, key="id").status(admin)).is_fine
    project.downgrade("base")
    assert await functions(admin) == []


async def test_a_migration_holds_its_sql(
    project: Project, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does the same when the library makes other SQL, and asks nothing of it."""
    triggers = table()
    project.declare(triggers)
    text = project.make_revision()
    assert re.findall(r"^ *(?:import|from) .*", text, re.MULTILINE) == [
        "from alembic import op",
        "import sqlalchemy as sa",
    ]
    before = triggers.statements()
    module = importlib.import_module("asyncnotify.triggers._sql.statements")
    monkeypatch.setattr(module, "COMMENT", "of another version")
    assert triggers.statements() != before
    project.upgrade()
    monkeypatch.undo()
    assert (await triggers.status(admin)).is_fine


async def test_printed_sql_does_the_same(project: Project, admin: Connection) -> None:
    """``alembic upgrade --sql`` prints what psql can execute."""
    triggers = table()
    project.declare()
    project.make_revision()
    project.upgrade()
    project.declare(triggers)
    await admin.execute(project.sql(project.make_revision()))
    assert (await triggers.status(admin)).is_fine


async def test_triggers_are_compared_only_where_some_are_declared(
    project: Project, admin: Connection
) -> None:
    """Those of others stay; what ``configure()`` is given goes before the metadata."""
    triggers = table()
    project.declare(triggers)
    project.make_revision()
    project.upgrade()
    project.declare_no_triggers()
    project.check()
    project.declare()
    with pytest.raises(Exception, match="remove_notify_trigger"):
        project.check()
    project.settings["notify_triggers"] = triggers
    project.check()
    project.settings["notify_triggers"] = ["orders"]
    with pytest.raises(TypeError, match="must be a list of Table"):
        project.check()


async def test_other_schemas_are_compared_where_tables_of_theirs_are(
    project: Project, admin: Connection
) -> None:
    """As Alembic does it: with ``include_schemas``."""
    project.declare()
    project.make_revision()
    project.upgrade()
    await admin.execute("CREATE SCHEMA other")
    await admin.execute("CREATE TABLE other.t (id int PRIMARY KEY)")
    await Table("other.t", key="id").install(admin)
    project.check()
    project.settings["include_schemas"] = True
    with pytest.raises(Exception, match="remove_notify_trigger"):
        project.check()


@pytest.mark.parametrize("given", ["DROP TABLE t", [b"SELECT 1"], None])
def test_statements_are_strings(given: Any) -> None:
    """Anything else is refused before a statement is sent."""
    pytest.importorskip("alembic", minversion="1.18")
    module = importlib.import_module("asyncnotify.triggers.alembic")
    for operation in (module.InstallNotifyTriggerOp, module.RemoveNotifyTriggerOp):
        with pytest.raises(TypeError, match="statements must be a list of str"):
            operation("t", given)
        with pytest.raises(ValueError, match="what was there before"):
            operation("t", ["SELECT 1"]).reverse()


def test_without_alembic_the_error_says_what_to_install() -> None:
    """All else of asyncnotify does not need it."""
    program = """
import sys
sys.modules["alembic"] = None
import asyncnotify.triggers
try:
    import asyncnotify.triggers.alembic
except ImportError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert "pip install 'alembic>=1.18'" in run.stdout
