"""What is refused because changes would be lost without a word: statements that raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncnotify.triggers._definition import Definition


def refuse_place(definition: Definition) -> str:
    """Return the statements that refuse a table where its place among others hides changes."""
    return _refuse_halves_of_moves(definition) + _refuse_child(definition)


def _refuse_child(definition: Definition) -> str:
    """
    Return the statement that refuses triggers of statements for a partition or a child.

    The server calls them for the table that a statement names, and nothing tells of what is
    written through a parent.
    """
    if not definition.is_told_by_name:
        return ""
    return """    IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = root) THEN
        RAISE EXCEPTION 'asyncnotify: % is a partition or a child of another table: triggers of'
            ' statements are not called for what is written through its parent', root
        USING ERRCODE = 'feature_not_supported',
            HINT = 'Use level="row", or a Table of the parent.';
    END IF;
"""


def _refuse_halves_of_moves(definition: Definition) -> str:
    """
    Return the statement that refuses operations of which half a move would be told.

    The server calls row-level triggers of DELETE and INSERT for a row that an UPDATE moves to
    another partition, and none of UPDATE.
    """
    told = set(definition.operations)
    if definition.level == "statement" or "insert" in told or told.isdisjoint({"update", "delete"}):
        return ""
    return """    IF EXISTS (SELECT FROM pg_class WHERE oid = root AND relkind = 'p') THEN
        RAISE EXCEPTION 'asyncnotify: with level="row", rows that move to another partition are'
            ' deleted and inserted: operations must have "insert" too, or level be "statement"'
        USING ERRCODE = 'feature_not_supported';
    END IF;
"""
