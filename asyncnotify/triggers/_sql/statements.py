"""All statements that install a Table, and those that remove it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from asyncnotify.triggers._names import dollar_quotes, literal
from asyncnotify.triggers._sql import logging, notifying
from asyncnotify.triggers._sql.refusals import check_function, check_level
from asyncnotify.triggers._sql.removing import remove_function
from asyncnotify.triggers._sql.renaming import COMMENT
from asyncnotify.triggers._sql.settings import SEARCH_PATH, fix_settings
from asyncnotify.triggers._sql.triggers import make_triggers

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition


def body_of(definition: Definition) -> str:
    """Return the body of the function."""
    room = notifying if definition.log is None else logging
    make = room.for_rows if definition.level == "row" else room.for_statements
    body: str = make(definition)
    return body


def function_statements(definition: Definition) -> list[str]:
    """Return the statements that make or replace the function: none locks the table."""
    body, function = body_of(definition), definition.qualified_function
    tag = dollar_quotes(body)
    create = (
        f"CREATE OR REPLACE FUNCTION {function} RETURNS pg_catalog.trigger\n"
        f"LANGUAGE plpgsql SECURITY INVOKER {SEARCH_PATH}\nAS {tag}{body}{tag}"
    )
    return [
        check_function(definition),
        create,
        fix_settings(definition),
        f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
        f"COMMENT ON FUNCTION {function} IS {literal(COMMENT + fingerprint(definition))}",
    ]


def install_statements(definition: Definition) -> list[str]:
    """Return the statements that install a Table, to be run in one transaction."""
    return [*function_statements(definition), make_triggers(definition)]


def upgrade_statements(definition: Definition) -> list[str]:
    """Return the statements that replace the function of a Table that is installed."""
    return [check_level(definition), *function_statements(definition)]


def removal_statements(definition: Definition) -> list[str]:
    """Return the statements that remove a Table: the triggers go with their function."""
    return [remove_function(definition.qualified_function)]


def fingerprint(definition: Definition) -> str:
    """Return a hash of all that is installed: it differs where the SQL would."""
    text = body_of(definition) + fix_settings(definition) + make_triggers(definition)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
