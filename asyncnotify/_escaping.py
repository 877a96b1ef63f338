"""Text that is not ours, made fit for one line of a log or a terminal."""

from __future__ import annotations

from unicodedata import category


def escaped(text: str) -> str:
    """
    Return a text with everything escaped that could act on a terminal or forge a log line.

    That is all that is not printable: control characters, also those of C1, line and paragraph
    separators, marks that change the direction of writing, invisible characters, surrogates. They
    become what ``repr()`` writes for them. All other text stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped_character, text))


def _escaped_character(character: str) -> str:
    if character.isprintable() or category(character) == "Zs":  # a space, such as in « texte »
        return character
    return ascii(character)[1:-1]
