"""Station 90: a claim is only made where it is checked. Each thing that can be wrong is found, by
name."""

from __future__ import annotations

import subprocess

import pytest

from tests.capabilities.crm import POLICY, apply, findings, plan, refused, subject
from tests.support import Clone, Database


def test_a_protected_database_is_clean(crm: Database) -> None:
    assert findings(crm) == set()


def test_the_development_key_is_a_warning(crm: Database) -> None:
    assert crm.rows(
        "select severity, topic, object from gdpr.doctor() where severity <> 'info'"
    ) == [("warning", "key", "key-encryption key")]


def test_each_finding_says_what_to_do(crm: Database) -> None:
    crm.connect().execute(
        "alter table crm.customer add nickname text; alter table crm.lead no force"
        " row level security"
    )
    for severity, topic, thing, finding, hint in crm.rows(
        "select severity, topic, object, finding, hint from gdpr.doctor()"
    ):
        assert severity in ("error", "warning", "info")
        assert all((topic, thing, finding, hint))


def test_who_may_ask_the_doctor(crm: Database) -> None:
    for user in ("db_owner", "dpo_login", "auditor_login"):
        assert crm.rows("select count(*) > 0 from gdpr.doctor()", user=user) == [(True,)]
    for user in ("crm_app", "metabase", "portal_app"):
        with refused("42501"):
            crm.rows("select * from gdpr.doctor()", user=user)


@pytest.mark.parametrize(
    ("harm", "topic", "thing"),
    [
        ("alter table crm.customer disable row level security", "row_security", "crm.customer"),
        ("alter table crm.customer no force row level security", "row_security", "crm.customer"),
        ("drop policy gdpr_40_gate on crm.lead", "policies", "crm.lead"),
        ("drop policy gdpr_40_owners on crm.lead", "policies", "crm.lead"),
        ("alter table crm.lead disable trigger zzz_gdpr_40_protect", "triggers", "crm.lead"),
        ("drop trigger zzz_gdpr_50_audit on crm.lead", "triggers", "crm.lead"),
        ("alter table crm.lead disable trigger zzz_gdpr_50_audit_arrivals", "triggers", "crm.lead"),
        ("drop trigger zzz_gdpr_40_truncate on crm.lead", "triggers", "crm.lead"),
        ("alter table crm.lead disable trigger all", "triggers", "crm.lead"),
        ('alter table crm."order" disable trigger zzz_gdpr_10_subject', "triggers", 'crm."order"'),
        ('drop trigger zzz_gdpr_10_subject_move on crm."order"', "triggers", 'crm."order"'),
        ("drop trigger zzz_gdpr_40_change on crm.customer", "triggers", "crm.customer"),
        ("create policy mine on crm.lead using (true)", "drift", "crm.lead"),
        (
            "alter policy gdpr_40_gate on crm.lead using (true) with check (true)",
            "drift",
            "crm.lead",
        ),
        ("alter table crm.customer add nickname text", "unclassified", "crm.customer"),
        ("drop table crm.order_line cascade", "table_missing", None),
        (
            "create view crm.all_customers as select id, last_name from crm.customer",
            "bypassing_view",
            "crm.all_customers",
        ),
        ("create materialized view crm.copy as select * from crm.lead", "copy_of_rows", "crm.copy"),
        ("alter role gdpr_keyholder login", "owner_role", "gdpr_keyholder"),
        ("alter role gdpr_owner bypassrls", "owner_role", "gdpr_owner"),
        ("alter role gdpr_worker superuser", "owner_role", "gdpr_worker"),
        ("grant gdpr_keyholder to crm_app", "owner_member", "crm_app"),
        ("grant gdpr_worker to gdpr_dpo", "owner_member", "dpo_login"),
        (
            "set local role gdpr_owner; revoke gdpr_bi from metabase; reset role",
            "membership",
            "metabase",
        ),
        ("alter role portal_app bypassrls", "bypass", "portal_app"),
        ("grant select on crm.customer to metabase", "base_privilege", "metabase on crm.customer"),
        (
            "grant select (email) on crm.customer to metabase",
            "base_privilege",
            "metabase on crm.customer",
        ),
        (
            "create function gdpr.mine() returns integer language sql as 'select 1'",
            "function_owner",
            "gdpr.mine()",
        ),
        (
            "alter function gdpr.erase(bigint, text) owner to postgres",
            "function_owner",
            "gdpr.erase(bigint,text)",
        ),
        (
            "alter function gdpr.erase(bigint, text) reset all",
            "function_header",
            "gdpr.erase(bigint,text)",
        ),
        ("alter function gdpr.erase(bigint, text) security invoker", "machinery", None),
        (
            "grant execute on function gdpr.erase(bigint, text) to public",
            "public_function",
            "gdpr.erase(bigint,text)",
        ),
        (
            "grant execute on function gdpr_internal.keyring() to public",
            "public_function",
            "gdpr_internal.keyring()",
        ),
        ("grant select on gdpr.audit_log to public", "public_relation", "gdpr.audit_log"),
        (
            "grant select on gdpr_internal.subject_key to public",
            "public_relation",
            "gdpr_internal.subject_key",
        ),
        ("grant create on schema gdpr to crm_app", "schema_open", "gdpr"),
        ("grant create on schema gdpr_internal to public", "schema_open", "gdpr_internal"),
        ("alter schema gdpr_clear owner to db_owner", "schema_open", "gdpr_clear"),
        (
            "alter table gdpr_internal.consent_record disable row level security",
            "internal_row_security",
            "gdpr_internal.consent_record",
        ),
        (
            "alter table gdpr_internal.audit_record disable trigger gdpr_50_append_only",
            "append_only",
            "gdpr_internal.audit_record",
        ),
        (
            "drop trigger gdpr_50_no_truncate on gdpr_internal.erasure_record",
            "append_only",
            "gdpr_internal.erasure_record",
        ),
        ("delete from gdpr_internal.subject_key where subject_id = 1", "data_keys", "1"),
        ("delete from gdpr_internal.key_encryption_key", "key", "key-encryption key"),
        ("update gdpr_internal.subject set purposes = -1 where id = 1", "gates", None),
        (
            (
                "alter table crm.lead disable trigger user; update crm.lead set"
                " gdpr_purposes = -1; alter table crm.lead enable trigger user"
            ),
            "gates",
            None,
        ),
    ],
)
def test_each_harm_is_found(crm: Database, harm: str, topic: str, thing: str | None) -> None:
    """What the superuser can do to a database, and the doctor's word for it; roles are the
    server's, so all is rolled back."""
    superuser = crm.connect("postgres", autocommit=False)
    superuser.execute(harm.encode())
    found = superuser.execute(
        "select topic, object from gdpr.doctor() where severity <> 'info'"
    ).fetchall()
    superuser.rollback()
    assert topic in {word for word, _ in found}, found
    if thing is not None:
        assert (topic, thing) in found


def test_a_role_that_went_missing(crm: Database) -> None:
    crm.rows("create role shortlived login", user="postgres")
    new = {
        **POLICY,
        "roles": {**POLICY["roles"], "shortlived": {"audience": "bi", "purposes": ["analytics"]}},
    }
    apply(crm, new)
    crm.rows("drop role shortlived", user="postgres")
    assert findings(crm) == {("role_missing", "shortlived")}
    apply(crm, POLICY)
    assert findings(crm) == set()


def test_a_column_index_that_row_security_switches_off_is_named(crm: Database) -> None:
    crm.rows("create index city_lower on crm.customer (lower(city))")
    assert ("index_unused", "crm.city_lower") in findings(crm, severities=("info",))


# ---------------------------------------------------------------- dump and restore


def restore(db: Database, into: Database, *dump_options: str) -> str:
    """pg_dump | pg_restore, as superuser; what pg_restore complained about."""
    dump = subprocess.run(
        [
            db.cluster.binaries.program("pg_dump"),
            "--format=custom",
            *dump_options,
            db.dsn("postgres"),
        ],
        capture_output=True,
        check=True,
    )
    done = subprocess.run(
        [db.cluster.binaries.program("pg_restore"), f"--dbname={into.dsn('postgres')}"],
        input=dump.stdout,
        capture_output=True,
        check=False,
    )
    return done.stderr.decode()


def test_everything_works_after_dump_and_restore(crm: Database, clone: Clone) -> None:
    anna = subject(crm, "crm.customer", 1)
    officer = crm.connect("dpo_login")
    officer.execute("select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [anna])
    officer.execute("select gdpr.erase(%s)", [subject(crm, "crm.customer", 3)])
    crm.rows("update gdpr_clear.customer set city = 'Ulm' where id = 1", user="crm_app")
    question = "select * from gdpr_clear.customer order by id"
    with clone() as other:
        assert restore(crm, other) == ""
        # until somebody says that nothing was lost, it refuses
        with refused("PR640", "restored"):
            other.rows(question, user="crm_app")
        other.rows("select gdpr.accept_restore('moved to another server')", user="dpo_login")
        assert other.rows(question, user="crm_app") == crm.rows(question, user="crm_app")
        assert other.rows(
            "select * from gdpr_bi.customer order by id", user="metabase"
        ) == crm.rows("select * from gdpr_bi.customer order by id", user="metabase")
        log = "select id, operation, old from gdpr.audit_log where operation <> 'HOME' order by id"
        assert other.rows(log, user="dpo_login") == crm.rows(log, user="dpo_login")
        other.rows("analyze", user="postgres")
        assert findings(other) == set()
        assert plan(other, POLICY) == []
        app = other.connect("crm_app")
        app.execute(
            "insert into gdpr_clear.customer (email, last_name) values ('new@example.com', 'N')"
        )
        app.execute("set gdpr.purpose = 'marketing'")
        assert app.execute("select id from gdpr_clear.customer").fetchall() == [(1,)]
        with refused("23505"):
            app.execute(
                "reset gdpr.purpose; insert into gdpr_clear.customer (email,"
                " last_name) values ('chie@example.com', 'C')"
            )
        receipt = other.rows(
            "select gdpr.erase(%s)", [subject(other, "crm.customer", 2)], user="dpo_login"
        )[0][0]
        assert receipt["key_destroyed"]
        new = {**POLICY, "purposes": {**POLICY["purposes"], "fun": {"basis": "consent"}}}
        assert apply(other, new)
        for table in ("crm.lead", "crm.order_line", 'crm."order"', "crm.customer"):
            other.rows("select gdpr.unprotect(%s::text::regclass)", [table])


def test_a_restore_without_the_keys_says_what_it_lost(crm: Database, clone: Clone) -> None:
    with clone() as other:
        assert restore(crm, other, "--exclude-table-data=gdpr_internal.*_key") == ""
        lost = findings(other)
        assert {topic for topic, _ in lost} == {"key", "data_keys", "restore"}
        hints = other.rows("select hint from gdpr.doctor() where topic in ('key', 'data_keys')")
        assert all("estore" in hint for (hint,) in hints)
        with refused("PR640", "restored"):
            other.rows("select email from gdpr_clear.customer", user="crm_app")
        other.rows("select gdpr.accept_restore('a copy without keys')", user="dpo_login")
        with refused("PR410", "data_key_missing"):
            other.rows("select email from gdpr_clear.customer", user="crm_app")
        assert other.rows(
            "select count(*) from crm.customer where email like 'gdpr1:%%'", user="crm_app"
        ) == [(3,)]
        assert len(other.rows("select email from gdpr_bi.customer", user="metabase")) == 3
        with refused("PR004", "invalid_argument"):
            other.rows("select gdpr.create_key('table')", user="db_owner")
        # the keys from their own backup
        assert restore(crm, other, "--data-only", "--table=gdpr_internal.*_key") == ""
        assert findings(other) == set()
        assert other.rows("select email from gdpr_clear.customer where id = 1", user="crm_app") == [
            ("anna@example.com",)
        ]


def test_data_of_one_table_is_restored_with_its_ciphertext(crm: Database) -> None:
    """pg_dump --data-only of an application's table, back into the database it came from."""
    superuser = crm.connect("postgres")
    before = superuser.execute(
        "select order_id, n, gdpr_subject_id from crm.order_line order by order_id"
    ).fetchall()
    dump = subprocess.run(
        [
            crm.cluster.binaries.program("pg_dump"),
            "--format=custom",
            "--data-only",
            "--table=crm.order_line",
            crm.dsn("postgres"),
        ],
        capture_output=True,
        check=True,
    )
    superuser.execute("delete from crm.order_line")
    done = subprocess.run(
        [crm.cluster.binaries.program("pg_restore"), f"--dbname={crm.dsn('postgres')}"],
        input=dump.stdout,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    shown = "select * from gdpr_clear.order_line order by order_id"
    assert crm.rows(shown, user="crm_app") == [
        (1, 1, "Forever, Ada"),
        (2, 1, None),
        (3, 1, "To Béla"),
    ]
    assert (
        superuser.execute(
            "select order_id, n, gdpr_subject_id from crm.order_line order by order_id"
        ).fetchall()
        == before
    )
