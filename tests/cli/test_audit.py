"""``gdprdb audit``: from the seal to the proof."""

from __future__ import annotations

from pathlib import Path

from gdprdb.signing import new_keys
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
    assert on_db("audit", "check-proof", str(keys["proof"]), *kept).out.startswith("(2,")
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


def test_nothing_sealed_has_no_checkpoint(on_db: Run) -> None:
    result = on_db("audit", "checkpoint")
    assert result.code == 1
    assert "nothing is sealed yet" in result.err
