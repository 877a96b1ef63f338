"""The public names of the package that the site documents, as ``conf.py`` says which it is."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from public_api import PublicName, modules_of, names_in
from written import Writer

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config
    from sphinx.util.typing import ExtensionMetadata


def names_of(config: Config) -> list[PublicName]:
    """Return the public names, without those that are hidden."""
    return [name for name in _all_names(config) if name.full not in config.reference_hidden]


def is_hidden(config: Config, value: object) -> bool:
    """Return whether this is a member that only the other parts of the package call."""
    return any(
        name.value is value and name.full in config.reference_hidden for name in _all_names(config)
    )


def writer_of(config: Config) -> Writer:
    """Return what writes annotations with these names."""
    return _writer(config.reference_package, tuple(config.reference_excluded))


def _all_names(config: Config) -> list[PublicName]:
    return _names(config.reference_package, tuple(config.reference_excluded))


@cache
def _names(package: str, excluded: tuple[str, ...]) -> list[PublicName]:
    return [name for module in modules_of(package, excluded) for name in names_in(module)]


@cache
def _writer(package: str, excluded: tuple[str, ...]) -> Writer:
    return Writer(_names(package, excluded))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the settings."""
    app.add_config_value("reference_package", "", "env", types=[str])
    app.add_config_value("reference_excluded", [], "env", types=[list])
    app.add_config_value("reference_hidden", [], "env", types=[list])
    return {"parallel_read_safe": True, "parallel_write_safe": True}
