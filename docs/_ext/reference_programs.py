"""
What the reference says of programs, from the programs themselves.

The directives ``command-line``, ``management-command``, ``exit-statuses`` and ``fixtures``. A
command, an option or a fixture without a line of help is a warning.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import typer
from reference_directives import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

MARKUP = re.compile(r"\[/?bold\]")
OPTION = re.compile(r"(?<![\w`-])(--[a-z][a-z-]*)(?![\w`-])")


def imported(path: str) -> Any:
    """Return what a path such as ``package.module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def as_rst(text: str) -> str:
    """Return a text of help as reStructuredText."""
    plain = MARKUP.sub("", text).replace("\\[", "[")
    plain = re.sub(r"`([^`]+)`", r"``\1``", plain)
    return OPTION.sub(r"``\1``", plain.replace("*", "\\*"))


class CommandLine(Lines):
    """Every command of a typer application, with its arguments and options."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield a section for each command, and the options of all before them."""
        command: Any = typer.main.get_command(imported(self.arguments[0]))
        yield from self._options(command, str(command.name))
        yield from self._commands(command, str(command.name))

    def _commands(self, group: Any, path: str) -> Iterator[str]:
        for name, command in group.commands.items():
            if command.hidden:
                continue
            if hasattr(command, "commands"):
                yield from self._commands(command, f"{path} {name}")
            else:
                yield from self._command(command, f"{path} {name}")

    def _command(self, command: Any, path: str) -> Iterator[str]:
        yield from ["", path, "-" * len(path), ""]
        if not command.help:
            self.missing(f"{path} has no line of help")
        yield from ["", ".. code-block:: text", "", f"   {_usage(command, path)}", ""]
        yield from as_rst(inspect.cleandoc(command.help or "").replace("\f", "")).splitlines()
        yield from self._options(command, path)
        yield from _examples(command.epilog or "")

    def _options(self, command: Any, path: str) -> Iterator[str]:
        yield from ["", f".. program:: {path}", ""]
        for parameter in command.params:
            if not parameter.hidden:
                yield from self._parameter(parameter, path)

    def _parameter(self, parameter: Any, path: str) -> Iterator[str]:
        if parameter.param_type_name == "argument":
            signature = _metavar(parameter)
            if not parameter.help:
                return  # the line of usage says all
        else:
            signature = _signature(parameter)
        if not parameter.help:
            self.missing(f"{path} {signature} has no line of help")
        yield from [f".. option:: {signature}", "", f"   {as_rst(parameter.help or '')}"]
        for line in _facts(parameter):
            yield from ["", f"   {line}"]
        yield ""


def _usage(command: Any, path: str) -> str:
    with typer.Context(command, info_name=path) as context:
        return f"{path} {' '.join(command.collect_usage_pieces(context))}"


def _signature(option: Any) -> str:
    if option.is_flag:
        return ", ".join([*option.opts, *option.secondary_opts])
    return ", ".join(f"{name} {_metavar(option)}" for name in option.opts)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _facts(parameter: Any) -> Iterator[str]:
    default = parameter.default
    if parameter.envvar:
        names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
        yield f"Environment variables: {', '.join(f'``{name}``' for name in names)}, in this order."
    if (
        not getattr(parameter, "is_flag", False)
        and default not in {None, ""}
        and not callable(default)
    ):
        yield f"Default: ``{getattr(default, 'value', default)}``."


def _examples(epilog: str) -> Iterator[str]:
    lines = [line.replace("\\[", "[") for line in epilog.splitlines() if not MARKUP.search(line)]
    if lines:
        yield from ["", ".. code-block:: bash", "", *(f"   {line}" for line in lines), ""]


class ManagementCommand(Lines):
    """The options of a management command of Django's that it has itself."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield the text of the command's help, and its options."""
        module = self.arguments[0]
        name = module.rpartition(".")[2]
        command = imported(f"{module}:Command")()
        options = _Options()
        command.add_arguments(options)
        yield from [f".. program:: manage.py {name}", "", ".. code-block:: text", ""]
        yield from [f"   python manage.py {name} [OPTIONS]", "", as_rst(command.help), ""]
        for option, metavar, text in options.found:
            if not text:
                self.missing(f"{name} {option} has no line of help")
            yield from [f".. option:: {option} {metavar}", "", f"   {as_rst(text)}", ""]


class _Options:
    """What a management command takes for a parser of arguments."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, str]] = []

    def add_argument(self, name: str, **given: Any) -> None:
        """Note an option."""
        self.found.append((name, given.get("metavar", ""), given.get("help", "")))


class ExitStatuses(Lines):
    """The table of exit statuses."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield a row for each status."""
        yield from [".. list-table::", "   :header-rows: 1", "   :widths: 15 85", ""]
        yield from ["   * - Status", "     - Meaning"]
        for status, meaning in imported(self.arguments[0]).items():
            yield from [f"   * - {status}", f"     - {as_rst(meaning)}"]


class Fixtures(Lines):
    """The fixtures of a plugin of pytest's."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield an entry for each fixture, with its scope and what it returns."""
        module = importlib.import_module(self.arguments[0])
        for name, value in vars(module).items():
            marker = getattr(value, "_fixture_function_marker", None)
            if marker is None:
                continue
            function = value._get_wrapped_function()  # noqa: SLF001 - pytest tells it nowhere else
            if not function.__doc__:
                self.missing(f"the fixture {name} has no line of help")
            yield from [f".. py:data:: {name}", f"   :module: {module.__name__}", ""]
            yield from (
                f"   {line}" for line in inspect.cleandoc(function.__doc__ or "").splitlines()
            )
            yield from ["", f"   Scope: {marker.scope}.", ""]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("command-line", CommandLine)
    app.add_directive("exit-statuses", ExitStatuses)
    app.add_directive("fixtures", Fixtures)
    app.add_directive("management-command", ManagementCommand)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
