"""``python -m gdprdb``: the command line."""

from __future__ import annotations

from gdprdb.cli import main

main()
