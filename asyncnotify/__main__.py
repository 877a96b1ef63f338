"""``python -m asyncnotify``."""

from __future__ import annotations

import sys

from asyncnotify.cli import main

if __name__ == "__main__":
    sys.exit(main())
