"""Tables of classes that SQLAlchemy maps: names, keys, and values as the attributes have them."""

from __future__ import annotations

import decimal
import enum
import pickle
import subprocess
import sys
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry

from asyncnotify import Gap, Listener
from asyncnotify.triggers import Change, DefinitionError, Table

if TYPE_CHECKING:
    from collections.abc import Sequence


class State(enum.Enum):
    """Members whose names, which the database has, are not their values."""

    NEW = 1
    PAID = 2


def numbers(kind: type[State]) -> list[str]:
    """Return the values, as texts."""
    return [str(member.value) for member in kind]


class Money(sa.types.TypeDecorator[str]):
    """A number that the attribute has as a text with its currency."""

    impl = sa.Numeric
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> Any:
        """Return the number."""
        return None if value is None else decimal.Decimal(value.split()[0])

    def process_result_value(self, value: Any, dialect: Any) -> str | None:
        """Return the text."""
        return None if value is None else f"{value} EUR"


CHECKED = sa.Enum(State, native_enum=False, values_callable=numbers)


class Base(DeclarativeBase):
    """Whose tables are in no schema."""


class Order(Base):
    """Attributes with other names than their columns."""

    __tablename__ = "Orders"
    region: Mapped[str] = mapped_column("order region", primary_key=True)
    id: Mapped[uuid.UUID] = mapped_column("Id", primary_key=True)
    state: Mapped[State] = mapped_column("order_state")
    lower: Mapped[State] = mapped_column(CHECKED)
    states: Mapped[list[State]] = mapped_column(postgresql.ARRAY(sa.Enum(State, name="state")))
    total: Mapped[str] = mapped_column(Money)
    weight: Mapped[float] = mapped_column(sa.Numeric(asdecimal=False))
    ratio: Mapped[decimal.Decimal] = mapped_column(sa.Double(asdecimal=True))
    kind: Mapped[State] = mapped_column(sa.String().with_variant(CHECKED, "postgresql"))
    other: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False))
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    document: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    pickled: Mapped[Any] = mapped_column(sa.PickleType)


MAPPED = (
    Order.state,
    Order.lower,
    Order.states,
    Order.total,
    Order.weight,
    Order.ratio,
    Order.kind,
    Order.other,
    Order.at,
    Order.document,
)


def an_order() -> Order:
    """Return a row with a value in each column."""
    return Order(
        region="north",
        id=uuid.UUID(int=7),
        state=State.PAID,
        lower=State.NEW,
        states=[State.NEW, State.PAID],
        total="12.50 EUR",
        weight=2.5,
        ratio=decimal.Decimal("0.1"),
        kind=State.PAID,
        other=str(uuid.UUID(int=9)),
        at=datetime.fromisoformat("2026-01-02T03:04:05.678+00:00"),
        document={"a": [1, 2.5, None]},
        pickled={1},
    )


async def changes_of(dsn: str, table: Table, rows: Sequence[object]) -> list[Change]:
    """Make the tables, install, write rows by a session, and return what is told of them."""
    url = dsn.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url)
    found: list[Change] = []
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await table.install(connection)
    async with Listener(dsn) as listener, listener.stream(table.changes, gaps=True) as stream:
        assert isinstance(await anext(stream), Gap)
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            session.add_all(rows)
        while len(found) < len(rows):
            item = await anext(stream)
            assert not isinstance(item, Gap)
            found.append(item.payload)
    await engine.dispose()
    return found


async def test_values_are_those_of_the_mapped_attributes(dsn: str) -> None:
    """Each has the value and the type that the attribute of the object has that was written."""
    order = an_order()
    table = Table.of(Order, payload=MAPPED, watch=Order.state)
    (change,) = await changes_of(dsn, table, [order])
    assert change.keys == ((order.region, order.id),)
    assert table.name == '"public"."Orders"'
    expected = {
        Order.__mapper__.columns[attribute.key].name: getattr(order, attribute.key)
        for attribute in (Order.region, Order.id, *MAPPED)
    }
    assert change.rows == (expected,)
    types = {name: type(value) for name, value in change.rows[0].items()}
    assert types == {name: type(value) for name, value in expected.items()}


async def test_pickles_are_not_read(dsn: str) -> None:
    """Any role may NOTIFY: bytes stay bytes."""
    table = Table.of(Order, payload=Order.pickled)
    (change,) = await changes_of(dsn, table, [an_order()])
    assert pickle.loads(change.rows[0]["pickled"]) == {1}  # noqa: S301 - its own


def test_all_arguments_are_those_of_a_table() -> None:
    """What is given goes before what is mapped, and each argument comes through."""
    options: dict[str, Any] = {
        "key": "Id",
        "watch": ("order_state",),
        "when": "new.total > 0",
        "channel": "told",
        "payload": ("order_state", "total"),
        "level": "row",
        "operations": ("insert",),
        "max_notifications": 3,
        "to": "log",
        "log": "shop",
        "trigger": "mine",
    }
    types = {"order_state": str}
    table = Table.of(Order, **options, types=types)
    assert table.definition == Table("Orders", **options, types=types).definition
    payload = (
        '{"op":"insert","n":1,"columns":["Id","order_state"],"types":[2950,25],'
        '"rows":[["00000000-0000-0000-0000-000000000007","PAID"]]}'
    )
    told = table.changes.decode(payload)
    assert told.rows[0]["order_state"] == "PAID"


def test_names_and_keys_of_all_kinds_of_mappings() -> None:
    """Of SQLAlchemy's Table, a schema of the metadata, inheritance, and a key of the mapper."""
    metadata = sa.MetaData(schema="Shop.1")
    plain = sa.Table("t", metadata, sa.Column("a b", sa.Integer, primary_key=True, key="a"))
    assert Table.of(plain).name == '"Shop.1"."t"'
    assert Table.of(plain, watch=plain.c.a).definition.watch == ("a b",)
    without = sa.Table(sa.sql.quoted_name("Logs", quote=False), metadata, sa.Column("n", sa.Text))

    class Log:
        """Mapped to a table without a key."""

    registry().map_imperatively(Log, without, primary_key=[without.c.n])
    assert Table.of(Log).name == '"Shop.1"."logs"'
    assert Table.of(Log).definition.key == ("n",)
    with pytest.raises(DefinitionError, match=r"key must be given: .*logs.* has no primary key"):
        Table.of(without)
    assert Table.of(without, key=without.c.n).definition.key == ("n",)

    class Parent(DeclarativeBase):
        """The root of its own mappings."""

    class Animal(Parent):
        """The table above."""

        __tablename__ = "animal"
        number: Mapped[int] = mapped_column(primary_key=True)

    class Dog(Animal):
        """The table below."""

        __tablename__ = "dog"
        own: Mapped[int] = mapped_column(sa.ForeignKey(Animal.number), primary_key=True)

    assert Table.of(Dog).definition.key == ("own",)
    assert Table.of(Dog).changes.name == "dog"


@pytest.mark.parametrize("model", [Base, str, "orders", an_order(), None])
def test_what_is_no_mapped_class_is_refused(model: object) -> None:
    """An abstract base, another class, a name and an object of a class, with a TypeError."""
    with pytest.raises(TypeError, match="model must be a class that SQLAlchemy maps to a table"):
        Table.of(model)


def test_what_is_mapped_to_a_query_is_refused() -> None:
    """Only tables have triggers."""

    class Part:
        """Mapped to a subquery."""

    query = sa.select(Order.region, Order.id).subquery()
    registry().map_imperatively(Part, query, primary_key=[query.c.id])
    with pytest.raises(TypeError, match="mapped to no table"):
        Table.of(Part)


@pytest.mark.parametrize("level", ["statement", "row"])
@pytest.mark.parametrize(
    "options", [{}, {"to": "log", "log": "things"}, {"watch": "v", "when": "new.v > 0"}]
)
def test_statements_can_be_pasted_as_texts(level: str, options: dict[str, Any]) -> None:
    """Into Alembic's ``op.execute()``: SQLAlchemy finds no parameter in them."""
    given: dict[str, Any] = {"payload": "v", "level": level, **options}
    table = Table("t", key=("a", "b"), **given)
    for statement in [*table.statements(), *table.removal_statements()]:
        assert sa.text(statement).compile().params == {}


def test_triggers_do_not_import_sqlalchemy() -> None:
    """Nor does asking for the Table of something that is not SQLAlchemy's."""
    program = """
import sys
from asyncnotify.triggers import Table
try:
    Table.of(int)
except TypeError:
    print("sqlalchemy" in sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert run.stdout == "False\n"
