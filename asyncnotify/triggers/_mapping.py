"""What SQLAlchemy or Django knows of a table: its name, its primary key, and types."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from asyncnotify._arguments import type_name
from asyncnotify.triggers._definition import Types
from asyncnotify.triggers._errors import DefinitionError
from asyncnotify.triggers._names import DEFAULT_SCHEMA, quoted


class Mapped(NamedTuple):
    """
    A table of SQLAlchemy's.

    Attributes:
        table: SQLAlchemy's Table.
        mapper: That of the class, None if the Table itself was given.
    """

    table: Any
    mapper: Any

    @property
    def name(self) -> str:
        """The name with its schema, quoted as in SQL."""
        schema, name = self.table.schema, self.table.name
        return ".".join(quoted(_in_catalog(part)) for part in (schema or DEFAULT_SCHEMA, name))

    def key(self) -> tuple[str, ...]:
        """
        Return the columns of the primary key: the table's, else that of the mapper.

        Raises:
            DefinitionError: There is none.
        """
        columns = list(self.table.primary_key.columns)
        if not columns and self.mapper is not None:
            columns = [one for one in self.mapper.primary_key if one.table is self.table]
        if not columns:
            reason = f"must be given: {self.name} has no primary key"
            raise DefinitionError("key", reason)
        return tuple(_in_catalog(column.name) for column in columns)

    def types(self) -> Types:
        """Return what makes the values of the mapped attributes, by column, where that differs."""
        found = {_in_catalog(one.name): _conversion(one.type) for one in self.table.columns}
        return {name: convert for name, convert in found.items() if convert is not None}


class DjangoMapped(NamedTuple):
    """
    A table of Django's.

    Attributes:
        options: The ``_meta`` of the model.
    """

    options: Any

    @property
    def name(self) -> str:
        """The name, quoted as Django quotes it: with a schema if one is written into it."""
        name = str(self.options.db_table)
        return name if name.startswith('"') and name.endswith('"') else f'"{name}"'

    def key(self) -> tuple[str, ...]:
        """Return the columns of the primary key."""
        return tuple(str(field.column) for field in self.options.pk_fields)

    def types(self) -> Types:
        """Return nothing: the values have the types that Django's fields have."""
        return {}


def mapped(model: Any) -> Mapped | DjangoMapped:  # noqa: ANN401 - a class of others'
    """
    Return the table of a mapped class, of SQLAlchemy's Table, or of a model of Django's.

    Raises:
        TypeError: It is none of them, or the class is mapped to something else.
    """
    if (found := _mapped_by_django(model)) is not None:
        return found
    kind = getattr(sys.modules.get("sqlalchemy"), "Table", ())
    if isinstance(model, kind):
        return Mapped(model, None)
    mapper = getattr(model, "__mapper__", None) if isinstance(model, type) else None
    table = getattr(mapper, "local_table", None)
    if not isinstance(table, kind):
        has = "it is mapped to no table" if mapper is not None else f"not {_described(model)}"
        what = "a class that SQLAlchemy maps to a table, or its Table, or a model of Django's"
        msg = f"model must be {what}: {has}"
        raise TypeError(msg)
    return Mapped(table, mapper)


def _mapped_by_django(model: Any) -> DjangoMapped | None:  # noqa: ANN401 - a class of Django's
    kind = getattr(sys.modules.get("django.db.models"), "Model", None)
    if kind is None or not (isinstance(model, type) and issubclass(model, kind)):
        return None
    options: Any = getattr(model, "_meta", None)
    if options is None or options.abstract or options.swapped:
        msg = f"model must have a table: {model.__name__} is abstract, or swapped for another"
        raise TypeError(msg)
    return DjangoMapped(options.concrete_model._meta)  # noqa: SLF001 - Django's public API, so named


def names_of(columns: Any) -> Any:  # noqa: ANN401 - checked where a Table is defined
    """Return columns by their names in the database, also those given as mapped attributes."""
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        return _name_of(columns)
    return tuple(map(_name_of, columns))


def _name_of(column: Any) -> Any:  # noqa: ANN401 - as names_of()
    element = getattr(column, "__clause_element__", lambda: column)()
    field = getattr(column, "field", None)  # of an attribute of a model of Django's
    name = getattr(element, "name", None) or getattr(field, "column", None)
    return column if isinstance(column, str) or not isinstance(name, str) else _in_catalog(name)


def _described(model: object) -> str:
    return f"class {model.__name__}" if isinstance(model, type) else f"of type {type_name(model)}"


def _in_catalog(name: str) -> str:
    """Return a name as the server has it: SQLAlchemy can be told not to quote one."""
    return str.lower(name) if getattr(name, "quote", None) is False else str.__str__(name)


# -- types ----------------------------------------------------------------------------------------


def _conversion(kind: Any) -> Callable[[Any], Any] | None:  # noqa: ANN401 - an extra
    """Return what makes the attribute's value of the driver's; None where they are the same."""
    types = importlib.import_module("sqlalchemy.types")
    kind = kind.dialect_impl(_dialect())  # with_variant() may have another one for PostgreSQL
    if isinstance(kind, types.TypeDecorator):
        return _decorated(kind, types)
    if isinstance(kind, types.Enum):
        processor: Callable[[Any], Any] | None = None
        if kind.enum_class is not None:
            processor = kind.result_processor(_dialect(), None)
        return processor
    if isinstance(kind, (types.Numeric, types.Float)):
        return _number(kind, types)
    if isinstance(kind, types.Uuid):
        return None if kind.as_uuid else str
    if isinstance(kind, types.ARRAY) and isinstance(kind.item_type, types.Enum):
        return _each(_conversion(kind.item_type))
    return None


def _number(kind: Any, types: Any) -> Callable[[Any], Any] | None:  # noqa: ANN401 - an extra
    """Return what makes a float, or a Decimal, where the driver's value is the other one."""
    if not kind.asdecimal:
        return float
    processor: Callable[[Any], Any] | None = None
    if isinstance(kind, types.Float):
        processor = types.Float.result_processor(kind, _dialect(), None)
    return processor


def _decorated(kind: Any, types: Any) -> Callable[[Any], Any] | None:  # noqa: ANN401 - an extra
    """
    Return what a TypeDecorator makes of the driver's values.

    Only where the trigger's values are the driver's. Not of bytes: any role may NOTIFY, and what
    decodes bytes may be pickle.
    """
    dialect = _dialect()
    inner = kind.type_engine(dialect)
    plain = (types.String, types.Integer, types.Boolean, types.Numeric, types.Uuid, types.JSON)
    dated = (types.Date, types.DateTime, types.Time)
    if type(kind).process_result_value is types.TypeDecorator.process_result_value:
        return None
    if not isinstance(inner, (*plain, *dated)):
        return None
    first = _conversion(inner)

    def decorated(value: Any) -> Any:  # noqa: ANN401 - of any type
        return kind.process_result_value(value if first is None else first(value), dialect)

    return decorated


def _each(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if convert is None:
        return None

    def each(value: Any) -> Any:  # noqa: ANN401 - of any type
        if isinstance(value, list):
            return [each(item) for item in value]
        return None if value is None else convert(value)

    return each


def _dialect() -> Any:  # noqa: ANN401 - an extra
    return importlib.import_module("sqlalchemy.dialects.postgresql.asyncpg").dialect()
