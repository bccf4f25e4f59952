"""A dump from before an erasure, restored in each way that pg_dump and pg_restore know."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capabilities.crm import POLICY, apply, findings, one_table, refused, subject
from tests.capabilities.test_60_ledger import Lines, counts, ledger, officer, replay, seen
from tests.support import Clone, Database

#: What nobody but Chie had.
OF_CHIE = ("Chiba", "Celle", "chie@example.com")


def program(db: Database, name: str, *arguments: object, stdin: bytes = b"") -> str:
    """Run one of PostgreSQL's programs; what it complained about."""
    done = subprocess.run(
        [str(db.cluster.binaries.program(name)), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )
    return done.stderr.decode()


def dump(db: Database, path: Path, *options: str, user: str = "postgres") -> Path:
    """A dump of the database."""
    assert program(db, "pg_dump", *options, f"--file={path}", db.dsn(user)) == ""
    return path


def restore(db: Database, path: Path, *options: str) -> str:
    """Restore an archive; what pg_restore complained about."""
    return program(db, "pg_restore", *options, f"--dbname={db.dsn('postgres')}", path)


def found(db: Database, words: tuple[str, ...] = OF_CHIE) -> list[str]:
    """The words that a full dump holds, or the officer finds in plaintext."""
    text = subprocess.run(
        [db.cluster.binaries.program("pg_dump"), db.dsn("postgres")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    clear = db.rows("select * from gdpr_clear.customer", user="dpo_login")
    return [word for word in words if word in text or word in repr(clear)]


class Past:
    """A database whose dumps are from before Chie was erased and Anna withdrew.

    Attributes:
        db: the database as it went on.
        directory: the dumps, by their formats' names.
        ledger: what it wrote afterwards.
        points: checkpoints of the audit from before the dumps and from afterwards.
        anna: a person.
    """

    def __init__(self, db: Database, directory: Path) -> None:
        self.db, self.directory = db, directory
        self.anna = subject(db, "crm.customer", 1)
        officer(db, "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", self.anna)
        self.points = [point(db)]
        for name in ("plain", "custom", "directory"):
            dump(db, directory / name, f"--format={name}")
        dump(db, directory / "keyless", "--format=custom", "--exclude-table-data=*.*_key")
        dump(db, directory / "keys", "--format=custom", "--data-only", "--table=*.*_key")
        officer(db, "select gdpr.withdraw_consent(%s, 'marketing')", self.anna)
        officer(db, "select gdpr.erase(%s)", subject(db, "crm.customer", 3))
        self.ledger: Lines = ledger(db)
        self.points.append(point(db))

    def check(self, restored: Database) -> None:
        """The database is restored and knows it; after the replay it has forgotten again."""
        assert officer(restored, "select gdpr.whereabouts()") == "restored"
        with refused("PR640", "restored"):
            seen(restored)
        assert ("restore", restored.name) in findings(restored)
        assert "Chiba" in found(restored)
        before, after = (verified(restored, kept) for kept in self.points)
        assert (len(before), len(after)) == (0, 1)
        assert counts(replay(restored, self.ledger)) == {"erasures": 1, "consents": 1}
        assert seen(restored) == ["Ahrens", "Bartok"]
        assert seen(restored, "marketing") == []
        with refused("23505"):
            restored.rows(
                "insert into gdpr_clear.customer (email, last_name)"
                " values ('Chie@Example.com', 'C')",
                user="crm_app",
            )
        assert found(restored) == []
        restored.rows("analyze", user="postgres")
        assert findings(restored) == set()
        # the records of both lives are sealed, and what was kept from the first still holds
        assert verified(restored, point(restored)) == []
        assert verified(restored, self.points[0]) == []


def point(db: Database) -> str:
    """A checkpoint of the audit, sealed up to now."""
    db.rows("select gdpr.seal_audit()")
    return str(db.rows("select gdpr.audit_checkpoint()::text")[0][0])


def verified(db: Database, kept: str) -> list[tuple[object, ...]]:
    """What is not as it was sealed."""
    return db.rows("select * from gdpr.verify_audit(%s)", [kept], user="auditor_login")


@pytest.fixture(scope="module")
def past(
    clone: Clone, crm_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Past]:
    """See `Past`."""
    with clone(crm_template) as database:
        yield Past(database, tmp_path_factory.mktemp("dumps"))


def test_plain(past: Past, empty_db: Database) -> None:
    script = past.directory / "plain"
    assert (
        program(empty_db, "psql", "-qX", "-o", "/dev/null", "-f", script, empty_db.dsn("postgres"))
        == ""
    )
    past.check(empty_db)


@pytest.mark.parametrize(("form", "options"), [("custom", []), ("directory", ["--jobs=2"])])
def test_archives(past: Past, empty_db: Database, form: str, options: list[str]) -> None:
    assert restore(empty_db, past.directory / form, *options) == ""
    past.check(empty_db)


def test_over_the_database_that_it_came_from(past: Past, clone: Clone) -> None:
    """--clean: the same name, the same OID, everything in it is old."""
    with clone(past.db.name) as database:
        officer(database, "select gdpr.accept_restore('a copy that stands on its own')")
        assert seen(database) == ["Ahrens", "Bartok"]
        # pg_restore drops the indexes of partitions one by one, and then their tables all the same
        told = restore(database, past.directory / "custom", "--clean", "--if-exists")
        errors = re.findall(r"ERROR: +(.*)", told)
        assert all(error.startswith("cannot drop inherited constraint") for error in errors)
        past.check(database)


def test_data_only_with_triggers_is_refused(past: Past, empty_db: Database) -> None:
    """Rows without their evidence and keys, and rows of the erased, are let in by no trigger."""
    archive = past.directory / "custom"
    assert restore(empty_db, archive, "--schema-only") == ""
    told = restore(empty_db, archive, "--data-only")
    assert "there is no key-encryption key" in told
    told = restore(empty_db, archive, "--data-only", "--schema=crm")
    assert "the database was restored from a backup" in told
    assert empty_db.rows("select count(*) from crm.customer", user="postgres") == [(0,)]
    assert officer(empty_db, "select gdpr.whereabouts()") == "restored"


def test_data_only_without_triggers(past: Past, empty_db: Database) -> None:
    """--disable-triggers enables them again as ordinary ones: the doctor tells, replay() and the
    policy put them back."""
    archive = past.directory / "custom"
    assert restore(empty_db, archive, "--schema-only") == ""
    assert restore(empty_db, archive, "--data-only", "--disable-triggers") == ""
    assert {"triggers", "append_only"} < {topic for topic, _ in findings(empty_db)}
    replay(empty_db, past.ledger)
    topics = {topic for topic, _ in findings(empty_db)}
    assert "triggers" in topics
    assert "append_only" not in topics
    apply(empty_db, POLICY)
    empty_db.rows("analyze", user="postgres")
    assert findings(empty_db) == set()
    assert found(empty_db) == []


def test_without_keys(past: Past, empty_db: Database) -> None:
    assert restore(empty_db, past.directory / "keyless") == ""
    with refused("PR640", "restored"):
        seen(empty_db)
    with refused("PR401", "key_missing"):
        replay(empty_db, past.ledger)
    assert restore(empty_db, past.directory / "keys", "--data-only") == ""
    past.check(empty_db)


def test_controls_are_what_they_were(db: Database, empty_db: Database, tmp_path: Path) -> None:
    """Rights and roles come back in another order, and rights by default as none: no drift."""
    db.rows(
        "create table public.person (id integer primary key, born date check (born > '1900-1-1'))"
    )
    person = {"audit_reads": True, "columns": {"born": {"encrypt": True}}}
    apply(db, one_table("public.person", **person))
    assert "drift" not in {topic for topic, _ in findings(db)}
    restore(empty_db, dump(db, tmp_path / "dump", "--format=custom"))
    assert "drift" not in {topic for topic, _ in findings(empty_db)}


def test_seals_find_no_change_in_what_was_restored(past: Past, empty_db: Database) -> None:
    """Functions have other numbers, roles and rights another order: what they say is the same."""
    changes = "select * from gdpr.audit_catalog_changes()"
    assert restore(empty_db, past.directory / "custom") == ""
    assert empty_db.rows(changes, user="auditor_login") == []
    for change in (
        "grant select on gdpr_internal.setting to crm_app",
        "grant select (digest) on gdpr_internal.identifier to crm_app",
        "grant usage on schema gdpr_internal to crm_app",
        "alter policy gdpr_40_base on crm.customer to crm_app",
        (
            "create or replace function gdpr_internal.column_defaults(p_relation regclass)"
            " returns jsonb language sql stable parallel safe security definer"
            " set search_path = pg_catalog, pg_temp begin atomic select '{}'::jsonb; end"
        ),
    ):
        empty_db.rows(change, user="postgres")
    assert empty_db.rows(changes, user="auditor_login") == [
        ("function gdpr_internal.column_defaults(regclass)", "changed"),
        ("protected table crm.customer", "changed"),
        ("schema gdpr_internal", "changed"),
        ("table gdpr_internal.identifier", "changed"),
        ("table gdpr_internal.setting", "changed"),
    ]
