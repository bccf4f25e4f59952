"""gdprdb: a PostgreSQL database that keeps the GDPR by itself.

The product is SQL (``sql/``); this package is the thin Python around it: it
installs and upgrades the SQL, runs a private server, turns policy files into
``jsonb`` and gives people a command line.
"""

from __future__ import annotations

__version__ = "0.1.0"
