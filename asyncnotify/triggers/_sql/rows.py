"""The queries by which a function reads the rows that its statement has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncnotify.triggers._names import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncnotify.triggers._definition import Definition

OLD_ROWS: Final = "asyncnotify_old"
NEW_ROWS: Final = "asyncnotify_new"
"""The transition tables: all rows of the statement, as they were and as they are."""


MOST_ARGUMENTS: Final = 100
"""Of a function: FUNC_MAX_ARGS of the server."""


def json_of(alias: str, columns: Iterable[str]) -> str:
    """Return the expression for a JSON array of columns, as a text."""
    return f"{json_array(columns_of(alias, columns))}::pg_catalog.text"


def types_of(values: Iterable[str]) -> str:
    """Return the expression for a JSON array of the oids of the values' types, as a text."""
    types = [f"{type_of(value)}::pg_catalog.int8" for value in values]
    return f"{json_array(types)}::pg_catalog.text"


def type_of(value: str) -> str:
    """Return the expression for the oid of a value's type: of a domain, that of its base type."""
    # coalesce() with NULL has the base type of a domain
    return f"pg_catalog.pg_typeof(COALESCE({value}, NULL))::pg_catalog.oid"


def json_array(elements: Sequence[str]) -> str:
    """Return the expression for a JSON array; if of many elements, it is a text joined of some."""
    first, *others = (
        f"pg_catalog.json_build_array({', '.join(elements[start : start + MOST_ARGUMENTS])})"
        for start in range(0, len(elements), MOST_ARGUMENTS)
    )
    comma = " || ', ' || "
    if not others:
        return first
    joined = [f"pg_catalog.left({first}::pg_catalog.text, -1)"]
    joined += [
        f"pg_catalog.substr(pg_catalog.left({other}::pg_catalog.text, -1), 2)" for other in others
    ]
    return f"({comma.join(joined)} || ']')"


def columns_of(alias: str, columns: Iterable[str]) -> list[str]:
    """Return the expressions for columns."""
    return [f"{alias}.{quoted(name)}" for name in columns]


def record_of(values: Iterable[str]) -> str:
    """Return the expression for a record: without the cast, the server would compare fields."""
    return f"ROW({', '.join(values)})::pg_catalog.record"


def differs(columns: Iterable[str], one: str = "old", other: str = "new") -> str:
    """Return the condition that columns differ in any byte: every type has this operator."""
    columns = tuple(columns)
    left, right = (record_of(columns_of(alias, columns)) for alias in (one, other))
    return f"{left} OPERATOR(pg_catalog.*<>) {right}"


def changed_rows(definition: Definition, operation: str) -> str:
    """
    Return the query for what a statement-level trigger of an operation tells.

    Its columns are the operation, the row, its key and the types, all of them texts. An update of
    a key is a delete of the old one and an insert of the new one, and deletes come first.
    """
    if operation != "update":
        return _one_sided(definition, operation)
    gone = _one_sided(definition, "delete", unless_in=NEW_ROWS)
    appeared = _one_sided(definition, "insert", unless_in=OLD_ROWS)
    return f"{gone}\nUNION ALL\n{appeared}\nUNION ALL\n{_updated(definition)}"


def updated_rows(definition: Definition) -> str:
    """
    Return the query for what an update tells that leaves all keys as they are.

    As ``changed_rows()``, with one join in place of three. A row with another key has an empty
    text for the operation, and so has a first row where some have gone: then the query has not told
    all.
    """
    # NULL in it says that there is no such row. Beside the row, not in it: a condition may take the
    # row as a whole
    present = quoted("asyncnotify: is there")
    old = f"({OLD_ROWS} AS old CROSS JOIN (VALUES (true)) AS asyncnotify_it ({present}))"
    source = f"{NEW_ROWS} AS new LEFT JOIN {old} ON {_same_key(definition, 'old', 'new')}"
    missing = f"asyncnotify_it.{present} IS NULL"
    told = " AND ".join(filter_of(definition, is_update=True)) or "true"
    operation = f"CASE WHEN {missing} THEN '' ELSE 'update' END"
    updated = _select(definition, operation, "new", source, [f"({missing} OR {told})"])
    return f"""    SELECT '' AS operation, NULL AS data, NULL AS key, NULL AS types
    WHERE EXISTS (
        SELECT FROM {OLD_ROWS} OFFSET (SELECT pg_catalog.count(*) FROM {NEW_ROWS})
    )
UNION ALL
{updated}"""


CONTEXT: Final = """
    context pg_catalog.text;"""
"""The variable for what has called the function."""


def several_updated(definition: Definition) -> str:
    """Return the condition that an UPDATE has changed more than one row, or a key."""
    return f"""EXISTS (SELECT FROM {NEW_ROWS} OFFSET 1)
            OR EXISTS (
                SELECT FROM {NEW_ROWS} AS new, {OLD_ROWS} AS old WHERE {differs(definition.key)}
            )"""


def find_unclear(definition: Definition, variable: str) -> str:
    """
    Return the statements that find out whether what has become of the table is not in the rows.

    They are for an UPDATE, and set the variable.

    Actions of foreign keys may change a row more than once, each for one row of another table. The
    transition tables hold the versions between as well, and in no order: a row that is in both is
    such a version, or was updated to what it was. It is one where a key is there twice, or may be
    one where keys have changed.

    And a MERGE into a partitioned table, up to PostgreSQL 18 at least, puts a row that it inserts
    in the place of each that it updates after that. Their old keys seem to be gone. It is none
    where the client has sent an UPDATE, and no trigger or function another statement: the context
    has a line for each of these, and one for this function.
    """
    sent = "COALESCE(pg_catalog.current_query(), '')"
    begins = literal(r"^(\s|--[^\n]*\n|/[*].*?[*]/)*(update|with)\M")
    others = literal(r"\m(merge|execute)\M")
    may_be_merge = f"""pg_catalog.pg_trigger_depth() > 1
                OR pg_catalog.strpos(context, E'\\n') > 0
                OR {sent} !~* {begins}
                OR {sent} ~* {others}"""
    # As texts, which can be joined by a hash, and are equal where NULL is in both
    same = f"{json_of('old', definition.key)} = {json_of('new', definition.key)}"
    is_same_row = (
        "ROW(old.*)::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(new.*)::pg_catalog.record"
    )
    has_other_keys = f"""EXISTS (
                SELECT FROM {NEW_ROWS} AS new
                WHERE NOT EXISTS (SELECT FROM {OLD_ROWS} AS old WHERE {same})
            )"""
    # Most tables need the first statement alone. Where it had the rest of the queries in it, the
    # server would prepare all of them each time
    is_partitioned = """EXISTS (
                SELECT FROM pg_catalog.pg_class WHERE oid = TG_RELID AND relkind = 'p'
                    AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 150000
            )"""
    has_actions = """EXISTS (
                SELECT FROM pg_catalog.pg_constraint WHERE conrelid = TG_RELID AND contype = 'f'
                    AND (confupdtype IN ('c', 'n', 'd') OR confdeltype IN ('n', 'd'))
            )"""
    return f"""{variable} := {is_partitioned} OR {has_actions};
        IF {variable} THEN
            GET DIAGNOSTICS context = PG_CONTEXT;
            {variable} := {is_partitioned} AND ({may_be_merge}) AND {has_other_keys}
            OR {has_actions} AND (
                EXISTS (
                    SELECT FROM {NEW_ROWS} AS new
                    GROUP BY {json_of("new", definition.key)} HAVING pg_catalog.count(*) > 1
                )
                OR {has_other_keys} AND EXISTS (
                    SELECT FROM {NEW_ROWS} AS new JOIN {OLD_ROWS} AS old ON {same} AND {is_same_row}
                )
            );
        END IF;"""


def aliased(definition: Definition, operation: str) -> tuple[str, str]:
    """Return how a condition calls the rows of an operation that has one of each, and those."""
    alias, rows, other = (
        ("old", OLD_ROWS, "new") if operation == "delete" else ("new", NEW_ROWS, "old")
    )
    source = f"{rows} AS {alias}"
    if definition.when is not None:
        # Where there is one row only, a condition may call it by both names
        source = f"{source}, LATERAL (SELECT {alias}.*) AS {other}"
    return alias, source


def rows_of_call(definition: Definition, statements: str) -> str:
    """
    Return statements around those for each row ``item`` of a call of a row-level trigger.

    As of ``changed_rows()``, by a query that is parsed in each call: it takes the columns by the
    types that they have. An expression has them as they were when the session first came to it, and
    fails once they are others.
    """
    rows = f"WITH {OLD_ROWS} AS (SELECT ($1).*), {NEW_ROWS} AS (SELECT ($2).*)\n"
    queries = (
        f"WHEN '{operation.upper()}' THEN {literal(rows + changed_rows(definition, operation))}"
        for operation in ("insert", "update", "delete")
    )
    query = f"CASE TG_OP {' '.join(queries)} END"
    return f"""
    IF TG_OP = 'INSERT' THEN
        OLD := NEW;
    ELSIF TG_OP = 'DELETE' THEN
        NEW := OLD;
    END IF;
    FOR item IN EXECUTE {query} USING OLD, NEW
    LOOP{statements}
    END LOOP;"""


def filter_of(definition: Definition, *, is_update: bool) -> list[str]:
    """Return the conditions that a row must meet to be told."""
    conditions = [] if definition.when is None else [f"({definition.when}\n)"]
    if is_update and definition.watch:
        conditions.append(differs(definition.watch))
    return conditions


def _one_sided(definition: Definition, operation: str, unless_in: str | None = None) -> str:
    """Return the query for rows inserted or deleted, or for those of other rows' keys."""
    alias, source = aliased(definition, operation)
    conditions = filter_of(definition, is_update=False)
    if unless_in is not None:
        same = _same_key(definition, "asyncnotify_other", alias)
        among = f"{unless_in} AS asyncnotify_other"
        conditions.append(f"NOT EXISTS (SELECT FROM {among} WHERE {same})")
    return _select(definition, f"'{operation}'", alias, source, conditions)


def _updated(definition: Definition) -> str:
    conditions = filter_of(definition, is_update=True)
    same = _same_key(definition, "old", "new")
    if definition.is_filtered:
        source = f"{NEW_ROWS} AS new JOIN {OLD_ROWS} AS old ON {same}"
    else:
        source = f"{NEW_ROWS} AS new"
        conditions.append(f"EXISTS (SELECT FROM {OLD_ROWS} AS old WHERE {same})")
    return _select(definition, "'update'", "new", source, conditions)


def _same_key(definition: Definition, one: str, other: str) -> str:
    # The first condition is what can be joined by a hash, the second one is what is meant: who
    # listens compares what was sent, and cannot know that 'a' and 'A' are equal in some collation
    equal = " AND ".join(
        f"{one}.{quoted(name)} OPERATOR(pg_catalog.=) {other}.{quoted(name)}"
        for name in definition.key
    )
    return f"{equal} AND NOT {differs(definition.key, one, other)}"


def _select(
    definition: Definition, operation: str, alias: str, source: str, conditions: list[str]
) -> str:
    where = f"\n    WHERE {' AND '.join(conditions)}" if conditions else ""
    row = json_of(alias, definition.columns)
    key = json_of(alias, definition.key)
    types = types_of(columns_of(alias, definition.columns))
    return f"""    SELECT {operation} AS operation, {row} AS data,
        {key if definition.columns != definition.key else "NULL"} AS key, {types} AS types
    FROM {source}{where}"""
