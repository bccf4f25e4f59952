"""What columns may not hold."""

from __future__ import annotations

from tests.support import Database


def test_no_table_keeps_pg_upgrade_from_running(crm_database: Database) -> None:
    """It refuses columns of types that name objects to which it gives other OIDs."""
    found = crm_database.rows(
        "select c.oid::regclass::text, a.attname from pg_attribute as a"
        " join pg_class as c on c.oid = a.attrelid and c.relkind in ('r', 'p')"
        " join pg_type as t on t.oid = a.atttypid"
        " where c.relnamespace = 'gdpr_internal'::regnamespace and a.attnum > 0"
        " and t.typname ~ '^_?reg' and t.typname !~ '^_?reg(class|role|type)$'",
        user="postgres",
    )
    assert found == []
