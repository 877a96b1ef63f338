"""What the build adds to pyproject.toml: the README, whose links lead somewhere on an index too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_IMAGE = re.compile(r"(!\[[^\]]*\]\()(?![a-z]+:)([^)\s]+)(?=\))")
RELATIVE_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")


def with_absolute_links(text: str, source: str) -> str:
    """Return a document whose relative links lead to the files of the repository."""
    text = RELATIVE_IMAGE.sub(rf"\1{source}/raw/main/\2", text)
    return RELATIVE_LINK.sub(rf"{source}/blob/main/\1", text)


class ReadmeHook(MetadataHookInterface):
    """Shows the README to package indexes, which have none of the files that it links to."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field ``readme``."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = with_absolute_links(text, metadata["urls"]["Source"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
