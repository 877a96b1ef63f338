"""
The settings of a function: what a value, and so a key, is written like depends on no session.

Each setting takes time in every call, so a function has only those that its columns' types need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import dollar_quotes, literal

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition

SEARCH_PATH: Final = "SET search_path = pg_catalog, pg_temp"
"""What every function has."""

_FIXED: Final = {
    "bytea_output": "hex",
    "DateStyle": "ISO, MDY",
    "extra_float_digits": "1",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
}
"""Settings that change how values of some type are written, and what they are fixed to."""

_NEEDED_BY: Final = {
    "bytea": "bytea_output",
    "float4": "extra_float_digits",
    "float8": "extra_float_digits",
    "interval": "IntervalStyle",
    "timestamptz": "TimeZone",
}
"""Types that need one setting."""

_NEED_NONE: Final = (
    *("bit", "bool", "bpchar", "char", "cidr", "date", "inet", "int2", "int4", "int8", "json"),
    *("jsonb", "macaddr", "macaddr8", "name", "numeric", "oid", "text", "time", "timestamp"),
    *("timetz", "uuid", "varbit", "varchar"),
)
"""Types that are written alike everywhere: JSON has dates and times in ISO 8601, always."""


def fix_settings(definition: Definition) -> str:
    """
    Return the statement that fixes the settings that the function needs: it locks no table.

    It needs the function, as it was just made, and the table.
    """
    function = literal(definition.qualified_function)
    body = f"""
DECLARE
    needed pg_catalog.text;
BEGIN
    FOR needed IN {needed_settings(definition)}
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s SET %s', {function}, needed);
    END LOOP;
END
"""
    tag = dollar_quotes(body)
    return f"DO {tag}{body}{tag}"


def lacking_settings(definition: Definition) -> str:
    """Return the query for settings that the function needs and has not, by its table now."""
    equals = "OPERATOR(pg_catalog.=)"
    function = f"pg_catalog.to_regprocedure({literal(definition.qualified_function)})"
    return f"""
        SELECT setting FROM ({needed_settings(definition)}) AS it (setting)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_proc, pg_catalog.unnest(proconfig) AS has
            WHERE pg_proc.oid {equals} {function}::pg_catalog.oid
                AND pg_catalog.split_part(has, '=', 1)
                    {equals} pg_catalog.split_part(setting, ' ', 1)
        )
    """


def needed_settings(definition: Definition) -> str:
    """
    Return the query for the settings that a function needs, each as ``name = 'value'``.

    Those of the types of all columns that are told: of an array those of its elements, of a domain
    those of the type below it, and of types that are not known here, and of conditions, all.
    """
    equals, any_of = "OPERATOR(pg_catalog.=)", "OPERATOR(pg_catalog.=) ANY"
    settings = (literal(f"{name} = {literal(value)}") for name, value in _FIXED.items())
    fixed = f"(VALUES {', '.join(f'({setting})' for setting in settings)}) AS fixed (setting)"
    if definition.when is not None:
        return f"SELECT setting FROM {fixed}"
    columns = ", ".join(map(literal, definition.columns))
    plain = ", ".join(literal(f'pg_catalog."{kind}"') for kind in _NEED_NONE)
    one_setting = "\n                ".join(
        f"WHEN its.oid {equals} 'pg_catalog.{kind}'::pg_catalog.regtype"
        f" THEN pg_catalog.starts_with(setting, {literal(name)})"
        for kind, name in _NEEDED_BY.items()
    )
    is_domain = f"typtype {equals} 'd'"
    is_array = f"typcategory {equals} 'A' AND typelem OPERATOR(pg_catalog.<>) 0"
    return f"""
        WITH RECURSIVE types (type) AS (
            SELECT atttypid FROM pg_catalog.pg_attribute
            WHERE attrelid {equals} pg_catalog.to_regclass({literal(definition.qualified)})
                AND attname {any_of} (ARRAY[{columns}]::pg_catalog.name[])
                AND attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped
            UNION
            SELECT CASE WHEN {is_domain} THEN typbasetype ELSE typelem END
            FROM types JOIN pg_catalog.pg_type AS its ON its.oid {equals} type
            WHERE {is_domain} OR {is_array}
        )
        SELECT DISTINCT setting
        FROM types JOIN pg_catalog.pg_type AS its ON its.oid {equals} type, {fixed}
        WHERE CASE
                WHEN {is_domain} OR {is_array} OR typtype {equals} 'e' THEN false
                WHEN its.oid {any_of} (ARRAY[{plain}]::pg_catalog.regtype[]) THEN false
                {one_setting}
                ELSE true
            END"""
