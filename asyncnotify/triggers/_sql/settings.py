"""
The settings of a function: what a value, and so a key, is written like depends on no session.

Each setting takes time in every call, so a function has only those that its columns' types need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import dollar_quotes, literal

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition

_PATH: Final = "pg_catalog, pg_temp"
SEARCH_PATH: Final = f"SET search_path = {_PATH}"
"""What every function has."""

_FIXED: Final = {
    "bytea_output": "hex",
    "DateStyle": "ISO, MDY",
    "extra_float_digits": "1",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
}
"""Settings that change how values of some types are written, and what they are fixed to."""

_FIXED_FOR_FEW: Final = {"lc_monetary": "C", "quote_all_identifiers": "off"}
"""The same, of settings that only those types need that are known to."""

_NEEDED_BY: Final = {
    "bytea": "bytea_output",
    "float4": "extra_float_digits",
    "float8": "extra_float_digits",
    "interval": "IntervalStyle",
    "money": "lc_monetary",
    "timestamptz": "TimeZone",
    "regclass": "quote_all_identifiers",
    "regcollation": "quote_all_identifiers",
    "regconfig": "quote_all_identifiers",
    "regdictionary": "quote_all_identifiers",
    "regnamespace": "quote_all_identifiers",
    "regoper": "quote_all_identifiers",
    "regoperator": "quote_all_identifiers",
    "regproc": "quote_all_identifiers",
    "regprocedure": "quote_all_identifiers",
    "regrole": "quote_all_identifiers",
    "regtype": "quote_all_identifiers",
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
    """
    Return the query for settings that the function has not as it needs them, by its table now.

    Of a function with the rights of its owner it lists all. Names in a search_path are stored with
    quotes where the session that made the function had ``quote_all_identifiers``.
    """
    equals = "OPERATOR(pg_catalog.=)"
    function = f"pg_catalog.to_regprocedure({literal(definition.qualified_function)})"
    as_stored = "pg_catalog.replace(pg_catalog.replace(setting, ' = ', '='), '''', '')"
    return f"""
        SELECT due FROM (
            SELECT {as_stored} FROM ({needed_settings(definition)}) AS it (setting)
            UNION ALL SELECT {literal(f"search_path={_PATH}")}
        ) AS it (due)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_proc
            WHERE oid {equals} {function}::pg_catalog.oid AND NOT prosecdef
                AND due {equals} ANY (ARRAY(
                    SELECT pg_catalog.replace(stored, '"', '')
                    FROM pg_catalog.unnest(proconfig) AS it (stored)
                ))
        )
    """


def needed_settings(definition: Definition) -> str:
    """
    Return the query for the settings that a function needs, each as ``name = 'value'``.

    Those of the types of all columns that are told: of an array those of its elements, of a domain
    those of the type below it, of a composite type those of its attributes. For types that are not
    known here, and for conditions, all but those that only few types need.
    """
    equals, any_of = "OPERATOR(pg_catalog.=)", "OPERATOR(pg_catalog.=) ANY"
    fixed = ", ".join(
        f"({literal(f'{name} = {literal(value)}')}, {str(name in _FIXED).lower()})"
        for name, value in (_FIXED | _FIXED_FOR_FEW).items()
    )
    columns = ", ".join(map(literal, definition.columns))
    # Else a session could read the backslashes of a condition in another way
    of_condition = ""
    if definition.when is not None and "\\" in definition.when:
        setting = literal(f"standard_conforming_strings = {literal('on')}")
        of_condition = f" UNION ALL SELECT {setting}"
    plain = ", ".join(literal(f'pg_catalog."{kind}"') for kind in _NEED_NONE)
    one_setting = "\n                    ".join(
        f"WHEN its.oid {equals} 'pg_catalog.{kind}'::pg_catalog.regtype"
        f" THEN pg_catalog.starts_with(setting, {literal(name)})"
        for kind, name in _NEEDED_BY.items()
    )
    is_domain = f"typtype {equals} 'd'"
    is_array = f"typcategory {equals} 'A' AND typelem OPERATOR(pg_catalog.<>) 0"
    has_columns = "attnum OPERATOR(pg_catalog.>) 0 AND NOT attisdropped"
    return f"""
        WITH RECURSIVE types (type) AS (
            SELECT atttypid FROM pg_catalog.pg_attribute
            WHERE attrelid {equals} pg_catalog.to_regclass({literal(definition.qualified)})
                AND attname {any_of} (ARRAY[{columns}]::pg_catalog.name[]) AND {has_columns}
            UNION
            SELECT below.type
            FROM types JOIN pg_catalog.pg_type AS its ON its.oid {equals} types.type, LATERAL (
                SELECT typbasetype WHERE {is_domain}
                UNION ALL SELECT typelem WHERE {is_array}
                UNION ALL SELECT atttypid FROM pg_catalog.pg_attribute
                WHERE typtype {equals} 'c' AND attrelid {equals} typrelid AND {has_columns}
            ) AS below (type)
        )
        SELECT setting FROM (VALUES {fixed}) AS fixed (setting, is_common)
        WHERE {str(definition.when is not None).lower()} AND is_common OR EXISTS (
            SELECT FROM types JOIN pg_catalog.pg_type AS its ON its.oid {equals} type
            WHERE CASE
                    WHEN {is_domain} OR {is_array} OR typtype {equals} 'e' THEN false
                    WHEN its.oid {any_of} (ARRAY[{plain}]::pg_catalog.regtype[]) THEN false
                    {one_setting}
                    ELSE is_common
                END
        ){of_condition}"""
