"""``gdprdb audit``: from the seal to the proof."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from gdprdb.audit import proofs
from gdprdb.cli import audit
from gdprdb.errors import FAILED
from gdprdb.signing import new_keys
from tests.capabilities.crm import refused
from tests.support import Database, Run


def test_the_command_line_from_seal_to_proof(db: Database, on_db: Run, tmp_path: Path) -> None:
    private, public = new_keys()
    keys = {name: tmp_path / name for name in ("key", "pub", "points", "proof")}
    keys["key"].write_text(private)
    keys["pub"].write_text(public)
    assert on_db("audit", "seal", "--format", "json").code == 0
    first = on_db("audit", "checkpoint", "--signing-key", str(keys["key"])).out
    db.rows("select gdpr.block('email', 'a@example.com', 'asked')")
    on_db("audit", "seal")
    second = on_db("audit", "checkpoint", "--signing-key", str(keys["key"])).out
    keys["points"].write_text(first + second)
    kept = ("--checkpoint", str(keys["points"]), "--public-key", str(keys["pub"]))
    assert on_db("audit", "verify", *kept).code == 0
    keys["proof"].write_text(on_db("audit", "prove", "2").out)
    db.rows("select gdpr.block('email', 'b@example.com', 'asked')")
    on_db("audit", "seal")
    third = on_db("audit", "checkpoint", "--signing-key", str(keys["key"])).out
    keys["points"].write_text(first + second + third)
    shown = on_db("audit", "check-proof", str(keys["proof"]), *kept)
    assert "record.operation" in shown.out, shown.err
    proven = on_db("audit", "check-proof", str(keys["proof"]), *kept, "--format", "json").data
    assert proven["record"]["id"] == "2"
    assert list(proven["record"]) == list(proofs.COLUMNS)
    assert proven["checkpoint"] == json.loads(second)["checkpoint"], "the first that knows it"
    assert proven["seal"] == 2
    assert proven["sealed_at"][:19] == proven["checkpoint"]["sealed_at"][:19].replace("T", " ")
    keys["points"].write_text(third)
    assert on_db("audit", "check-proof", str(keys["proof"]), *kept).code == 4
    keys["points"].write_text(first + second + third)
    with db.connect("postgres") as superuser:
        superuser.execute("alter table gdpr_internal.audit_record disable trigger all")
        superuser.execute("update gdpr_internal.audit_record set actor = 'nobody' where id = 2")
    found = on_db("audit", "verify", *kept, "--format", "json")
    assert found.code == 3
    assert found.data[0]["record"] == 2


def test_months_are_dropped_only_when_the_policy_says_so(on_db: Run) -> None:
    assert on_db("audit", "drop", "--dry-run", "--format", "json").data == []
    refused = on_db("audit", "drop", "--before", "2020-01-01", "--yes")
    assert refused.code == 4
    assert "audit_retain" in refused.err


def test_why_a_record_has_no_proof(db: Database, on_db: Run) -> None:
    on_db("audit", "seal")
    db.rows("select gdpr.block('email', 'a@example.com', 'asked')")
    ((record,),) = db.rows("select max(id) from gdpr_internal.audit_record", user="postgres")
    waits, missing = on_db("audit", "prove", str(record)), on_db("audit", "prove", "4711")
    assert (waits.code, missing.code) == (1, 1)
    assert "is not sealed yet" in waits.err
    assert "there is no audit record 4711" in missing.err


def test_programs_read_times_as_they_are(
    db: Database, on_db: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.rows("select gdpr.block('email', 'a@example.com', 'asked')")
    ((at, record),) = db.rows(
        "select at, id from gdpr_internal.audit_record order by id desc limit 1", user="postgres"
    )
    for line in (
        on_db("audit", "export", "--format", "jsonl").out.splitlines()[-1],
        on_db("audit", "tail", "-n", "1", "--format", "jsonl").out,
        on_db("audit", "show", str(record), "--format", "json").out,
    ):
        assert datetime.fromisoformat(json.loads(line)["at"]) == at
    *_, row = csv.DictReader(io.StringIO(on_db("audit", "export", "--format", "csv").out))
    assert datetime.fromisoformat(row["at"]) == at
    assert f"{at:%H:%M:%S}." not in on_db("audit", "tail", "--format", "table").out
    for style in ("json", "table"):
        monkeypatch.setenv("GDPRDB_FORMAT", style)
        exported = on_db("audit", "export")
        assert json.loads(exported.out.splitlines()[-1])["id"] == record, exported.err
    monkeypatch.setenv("GDPRDB_FORMAT", "yaml")
    assert on_db("audit", "export").code == 2
    assert on_db("audit", "export", "--format", "json").code == 2


def test_sealing_goes_on_when_the_server_comes_back(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session is ended; the next one seals. What fails at the beginning is an error."""
    monkeypatch.setattr(audit, "_PATIENCE", (0.05, 0.1))
    sealing = audit._sealing(db.dsn(), 0.01)
    assert next(sealing)[0] > 0
    db.rows(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and query like '%audit_lag%'"
        " and pid <> pg_backend_pid()",
        user="postgres",
    )
    db.rows("select gdpr.block('email', 'a@example.com', 'asked')")
    assert next(sealing)[0] > 0
    sealing.close()
    with pytest.raises(psycopg.OperationalError):
        next(audit._sealing(db.dsn().replace(db.name, "nowhere"), 0.01))


def test_following_shows_each_record_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of slow transactions too, whose numbers are lower than what was shown."""
    monkeypatch.setattr(audit, "_INTERVAL", 0.05)
    slow = db.connect(autocommit=False)
    slow.execute("select gdpr.block('email', 'slow@example.com', 'asked')")
    following = audit._following(db.dsn(), [], 1)
    shown = [next(following)[0]]
    for number in range(3):
        db.rows("select gdpr.block('email', %s || '@example.com', 'asked')", [str(number)])
        shown.append(next(following)[0])
    slow.commit()
    shown.append(next(following)[0])
    assert shown[-1] < shown[-2]
    for number in range(3, 6):
        db.rows("select gdpr.block('email', %s || '@example.com', 'asked')", [str(number)])
        shown.append(next(following)[0])
    following.close()
    everything = {
        n for (n,) in db.rows("select id from gdpr_internal.audit_record", user="postgres")
    }
    assert len(shown) == len(set(shown))
    assert set(shown) == {n for n in everything if n >= min(shown)}


def test_doctor_tells_of_records_that_are_not_sealed(db: Database, on_db: Run) -> None:
    def told() -> list[str]:
        found = on_db("doctor", "--format", "json").data
        return [row["finding"] for row in found if row["topic"] == "audit_seal"]

    assert told() == []
    with db.connect("postgres") as superuser:
        superuser.execute(
            "insert into gdpr_internal.audit_record (operation, role, at)"
            " values ('TEST', 'x', now() - interval '25 hours')"
        )
    (words,) = told()
    assert "never sealed" in words
    on_db("audit", "seal")
    assert told() == []
    with db.connect("postgres") as superuser:
        superuser.execute(
            "insert into gdpr_internal.audit_record (operation, role, at)"
            " values ('TEST', 'x', now() - interval '25 hours')"
        )
    (words,) = told()
    assert words.startswith("1 audit record is not sealed")


def test_nothing_sealed_has_no_checkpoint(on_db: Run) -> None:
    result = on_db("audit", "checkpoint")
    assert result.code == 1
    assert "nothing is sealed yet" in result.err


def test_one_record_the_versions_of_its_row_and_all_of_it_for_elsewhere(
    crm: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for city in ("Ulm", "Köln"):
        crm.rows(
            "update gdpr_clear.customer set city = %s, phone = %s where id = 1",
            [city, f"+49 {city}"],
            user="crm_app",
        )
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn("dpo_login"))
    (record,) = run("audit", "tail", "-n", "1", "--format", "json").data
    shown = run("audit", "show", str(record["id"]), "--format", "json").data
    assert (shown["operation"], shown["login"], shown["changed"]) == (
        "UPDATE",
        "crm_app",
        ["phone", "city"],
    )
    assert shown["old"] == {"city": "Ulm", "phone": "+49 Ulm"}
    assert "+49 Ulm" in run("audit", "show", str(record["id"])).out

    versions = run("audit", "history", "crm.customer", "-", "--format", "json", stdin="1\n").data
    assert [version["content"]["city"] for version in versions] == ["Köln", "Ulm", "Aalen"]
    outcome = run("audit", "history", "crm.customer", "x")
    assert (outcome.code, "PR004" in outcome.err) == (4, True)

    chosen = ("--table", "crm.customer", "--operation", "UPDATE", "--since", "2020-01-01")
    lines = run("audit", "export", *chosen).out.splitlines()
    assert [json.loads(line)["id"] for line in lines][-1] == record["id"]
    assert len(lines) == 2
    assert "old" not in json.loads(lines[0])
    with_values = run("audit", "export", "--values", *chosen, "--format", "csv").out
    rows = list(csv.DictReader(io.StringIO(with_values)))
    assert json.loads(rows[0]["old"])["city"] == "Aalen"
    assert run("audit", "export", *chosen, "--until", "2020-01-02").out == ""
    assert run("audit", "export", *chosen, "--row", "1").out.splitlines() == lines
    assert run("audit", "export", *chosen, "--row", "-", stdin="2\n").out == ""
    assert run("audit", "tail", "--row", "1").code == 2
    for option in (("--table", "crm.none"), ("--purpose", "none")):
        outcome = run("audit", "tail", *option)
        assert (outcome.code, option[1] in outcome.err) == (1, True)
    assert len(run("audit", "export").out.splitlines()) > len(lines)


def test_values_that_leave_are_on_record_before_the_first(
    crm: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.rows("update gdpr_clear.customer set phone = '+49 5' where id = 1", user="crm_app")
    crm.rows("update gdpr_clear.customer set phone = '+49 6' where id = 2", user="crm_app")
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn("dpo_login"))
    question = (
        "select subject_id, old, login::text from gdpr.audit_log where operation = 'ACCESS'"
        " order by id"
    )
    run("audit", "export", "--table", "crm.customer")
    run("audit", "tail")
    assert crm.rows(question, user="auditor_login") == []
    ((first, anna), _) = crm.rows(
        "select id, subject_id from gdpr.audit_log where operation = 'UPDATE' order by id",
        user="auditor_login",
    )
    ((event,),) = crm.rows("select min(id) from gdpr.audit_log", user="auditor_login")
    run("audit", "show", str(first))
    run("audit", "show", str(event))
    run(
        *("audit", "export", "--values", "--table", "crm.customer", "--row", "1"),
        *("--purpose", "orders", "--actor", "Anna Ahrens", "--since", "2020-01-01"),
        *("--operation", "UPDATE"),
    )
    run("audit", "export", "--values", "--subject-id", str(anna))
    run("audit", "export", "--values")
    ((key,),) = crm.rows("select gdpr.audit_row_key('crm.customer', '1')", user="auditor_login")
    reads = crm.rows(question, user="auditor_login")
    details = [old for _, old, _ in reads]
    since = datetime.fromisoformat(details[1].pop("at"))
    assert since.astimezone().date().isoformat() == "2020-01-01"
    assert [(whose, who) for whose, _, who in reads] == [
        (whose, "dpo_login") for whose in (anna, None, anna, None)
    ]
    assert details == [
        {"document": "audit", "id": first},
        {
            "document": "audit",
            "table": "crm.customer",
            "row_key": str(key),
            "operation": "UPDATE",
            "actor": True,
            "purpose": "orders",
        },
        {"document": "audit"},
        {"document": "audit"},
    ]


def test_a_read_of_values_that_cannot_be_recorded_is_in_the_log(
    crm: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby is read, too."""
    crm.rows("update gdpr_clear.customer set phone = '+49 5' where id = 1", user="crm_app")
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn("dpo_login"))
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    exported = run("audit", "export", "--values", "--operation", "UPDATE")
    assert json.loads(exported.out)["old"] == {"phone": "+49 711 1001"}
    assert (
        "read by dpo_login in a read-only transaction"
        in (crm.cluster.directory / "log").read_text()
    )


def test_words_have_no_way_into_the_record_of_a_read(crm: Database) -> None:
    for selection in (
        None,
        "[]",
        '"x"',
        '{"why": "Anna Ahrens phoned"}',
        '{"id": "Anna Ahrens"}',
        '{"at": "Anna Ahrens"}',
        '{"row_key": "Anna"}',
        '{"table_id": 99999}',
    ):
        with refused("PR004", "invalid_argument") as error:
            crm.rows("select gdpr.note_audit_access(%s)", [selection], user="dpo_login")
        assert "Anna" not in str(error.value)
    for user in ("auditor_login", "crm_app"):
        with refused("42501"):
            crm.rows("select gdpr.note_audit_access()", user=user)
    crm.rows(
        'select gdpr.note_audit_access(\'{"operation": "Anna Ahrens", "actor": "Anna"}\')',
        user="dpo_login",
    )
    assert crm.rows(
        "select old from gdpr.audit_log where operation = 'ACCESS'", user="auditor_login"
    ) == [({"document": "audit", "actor": True},)]


def test_an_auditor_reads_no_values(
    crm: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    crm.rows("update gdpr_clear.customer set phone = null where id = 1", user="crm_app")
    monkeypatch.setenv("GDPRDB_DSN", crm.dsn("auditor_login"))
    exported = run("audit", "export", "--values", "--operation", "UPDATE")
    assert json.loads(exported.out)["old"] is None
    assert "711" not in exported.out
    assert '"ACCESS"' not in run("audit", "export").out
    of_table = run(
        "audit", "tail", "--table", "crm.customer", "--row", "1", "--format", "jsonl"
    ).out
    assert json.loads(of_table)["operation"] == "UPDATE", "without rights on the schema"
    assert "permission denied" in run("audit", "history", "crm.customer", "1").err
    missing = run("audit", "show", "4711")
    assert missing.code == 1
    assert "no audit record 4711" in missing.err


@pytest.mark.parametrize("table", ["nosuch.table", "crm.nosuch", "crm.Some Table"])
def test_a_misspelt_table_is_no_other_release(office: Run, table: str) -> None:
    """Whoever mistypes a name is told how names are written, and not to install gdprdb."""
    outcome = office("audit", "history", table, "1")
    assert outcome.code == FAILED
    assert "quoted as in SQL" in outcome.err
    assert "db init" not in outcome.err
