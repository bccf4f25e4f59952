"""gdprdb inside the tools that applications are built with: SQLAlchemy, Alembic, pytest."""
