"""Station 60: being forgotten for good."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.capabilities.crm import (
    POLICY,
    apply,
    findings,
    one_table,
    plan,
    policy,
    refused,
    subject,
)
from tests.capabilities.test_40_protection import Value, unwrap
from tests.support import Database


def erase(crm: Database, person: int) -> dict[str, Any]:
    """The receipt of an erasure by the officer."""
    receipt = crm.rows("select gdpr.erase(%s, 'asked by letter')", [person], user="dpo_login")[0][0]
    assert isinstance(receipt, dict)
    return receipt


@pytest.mark.parametrize(
    ("call", "code", "name"),
    [
        ("erase(999)", "PR101", "unknown_subject"),
        ("erase(null)", "PR101", "unknown_subject"),
        ("erase(1, null)", "PR004", "invalid_argument"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(
    crm: Database, call: str, code: str, name: str
) -> None:
    with refused(code, name):
        crm.rows(f"select gdpr.{call}", user="dpo_login")


def test_rights_are_the_officers(crm: Database) -> None:
    for user in ("crm_app", "metabase", "auditor_login", "portal_app"):
        with refused("42501"):
            crm.rows("select gdpr.erase(1)", user=user)


# ---------------------------------------------------------------- erasure


def test_the_receipt_counts_and_names_nobody(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    receipt = erase(crm, anna)
    assert {table["table"]: (table["method"], table["rows"]) for table in receipt["tables"]} == {
        "crm.order_line": ("delete", 2),
        'crm."order"': ("delete", 2),
        "crm.customer": ("delete", 1),
        "crm.lead": ("delete", 1),
    }
    assert receipt["key_destroyed"] is True
    assert receipt["identifiers_blocked"] == 2
    assert receipt["subject"] == anna
    # whole values: the time in the receipt may hold three of a number's digits
    for value in ("anna", "Ahrens", "+49 711", "Ada"):
        assert value not in json.dumps(receipt)
    assert erase(crm, anna) == receipt
    ledger = crm.rows(
        "select subject_id, reason, recorded_by, receipt from gdpr.erasure_ledger",
        user="auditor_login",
    )
    assert ledger == [(anna, "asked by letter", "dpo_login", receipt)]
    assert crm.rows(
        "select erased_at is not null from gdpr.subject where subject_id = %s",
        [anna],
        user="auditor_login",
    ) == [(True,)]


def test_others_are_untouched(crm: Database) -> None:
    erase(crm, subject(crm, "crm.customer", 1))
    assert crm.rows(
        "select id, email, phone from gdpr_clear.customer order by id", user="crm_app"
    ) == [(2, "bela@example.com", "+49 711 1002"), (3, "chie@example.com", "+81 3 1003")]
    assert crm.rows('select id, note from gdpr_clear."order" order by id', user="crm_app") == [
        (3, "ring twice"),
        (4, None),
    ]
    assert crm.rows("select engraving from gdpr_clear.order_line", user="crm_app") == [("To Béla",)]


def everything(db: Database) -> dict[str, str]:
    """All tables and materialized views of a database and what the planner knows of them (but for
    the blocklist), as text."""
    superuser = db.connect("postgres")
    superuser.execute("analyze")
    names = superuser.execute(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'm') and (n.nspname !~ '^pg_|^information_schema'"
        " or c.relname in ('pg_largeobject', 'pg_description', 'pg_seclabel',"
        " 'pg_proc', 'pg_db_role_setting'))"
    ).fetchall()
    content = {}
    for (name,) in names:
        rows = superuser.execute(f"select t::text from {name} as t".encode()).fetchall()
        content[name] = "\n".join(row for (row,) in rows if row is not None)
    rows = superuser.execute(
        "select s::text from pg_stats as s where s.tablename <> 'identifier'"
    ).fetchall()
    content["pg_stats"] = "\n".join(row for (row,) in rows)
    return content


def test_nothing_of_the_person_is_left_anywhere(crm: Database) -> None:
    """Dump everything, search for every value, every digest and everything her key would open."""
    app = crm.connect("crm_app", autocommit=False)
    app.execute(
        """select gdpr.set_context('agent 7', 'orders', '{"kind": "web_form", "ip":
        "203.0.113.77"}', 'req-1')"""
    )
    app.execute(
        "insert into gdpr_clear.\"order\" (customer_id, note) values (1, 'gift wrap for Xenia')"
    )
    app.execute(
        "update gdpr_clear.customer set phone = '+49 711 777001', last_name ="
        " 'Ahrens-Zorn' where id = 1"
    )
    app.execute("update gdpr_clear.customer set email = 'anna+tag@elsewhere.example' where id = 1")
    app.commit()
    anna = subject(crm, "crm.customer", 1)
    crm.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'in_person', %s)",
        [anna, '{"said": "yes to Quentin"}'],
        user="dpo_login",
    )
    crm.rows("select gdpr.restrict(%s, 'other')", [anna], user="dpo_login")
    crm.rows("select gdpr.lift_restriction(%s, 'x')", [anna], user="dpo_login")
    values = [
        "anna@example.com",
        "ANNA@example.com",
        "anna+tag@elsewhere.example",
        "elsewhere.example",
        "711 1001",
        "777001",
        "Ahrens",
        "Zorn",
        "1980-01-02",
        "Aalen",
        "gift for Ada",
        "call first",
        "Xenia",
        "Forever",
        "Anna Ahrens",
        "203.0.113.77",
        "Quentin",
    ]
    digests = [
        str(digest)
        for (digest,) in crm.rows(
            "select gdpr_email_digest from crm.customer where id = 1 union select"
            " gdpr_email_digest from crm.lead where id = 1"
            " union select digest from gdpr_internal.identifier where subject_id = %s"
            " union select ref from gdpr_internal.subject where id = %s union"
            " select gdpr.digest('email', 'anna@elsewhere.example')",
            [anna, anna],
            user="postgres",
        )
    ]
    (kek, wrapped) = crm.rows(
        "select material, wrapped from gdpr_internal.key_encryption_key,"
        " gdpr_internal.subject_key where subject_id = %s",
        [anna],
        user="postgres",
    )[0]
    key = unwrap(kek, anna, wrapped)
    before = everything(crm)
    assert any("Ahrens-Zorn" in content for content in before.values())
    assert any(wrapped.hex() in content for content in before.values())

    erase(crm, anna)
    after = everything(crm)
    for name, content in after.items():
        for value in values:
            assert value.lower() not in content.lower(), (name, value)
        for digest in digests:
            # the blocklist is the one place where a digest stays
            assert digest not in content or name == "gdpr_internal.identifier", (name, digest)
        assert wrapped.hex() not in content, name
        assert key.hex() not in content, name
    # ciphertext of hers stays in the evidence; without her key it is noise
    values_left = [
        Value.parse(text)
        for content in after.values()
        for text in re.findall(r"gdpr1:[A-Za-z0-9+/]{88,}={0,2}", content)
    ]
    hers = [value for value in values_left if value.subject == anna]
    assert hers
    keys = crm.rows("select subject_id, wrapped from gdpr_internal.subject_key", user="postgres")
    for ciphertext in hers:
        for person, other in keys:
            with pytest.raises(AssertionError):
                ciphertext.decrypt(unwrap(kek, person, other))


def test_an_erased_person_is_refused_at_the_door(crm: Database) -> None:
    crm.rows(
        "update gdpr_clear.customer set email = 'chie+shop@example.com' where id = 3",
        user="crm_app",
    )
    chie = subject(crm, "crm.customer", 3)
    erase(crm, chie)
    app = crm.connect("crm_app")
    for spelling in (
        "chie+shop@example.com",
        "CHIE@example.com",
        "chie@example.com",
        "chie+other@EXAMPLE.com",
    ):
        with refused("23505") as error:
            app.execute(
                "insert into gdpr_clear.customer (email, last_name) values (%s, 'C')", [spelling]
            )
        assert "chie" not in str(error.value).lower()
        assert crm.rows("select gdpr.is_blocked('email', %s)", [spelling], user="dpo_login") == [
            (True,)
        ]
    with refused("23505"):
        app.execute(
            "insert into gdpr_clear.customer (email, last_name, phone) values"
            " ('x@example.com', 'C', '+81 3 1003')"
        )
    assert crm.rows("select gdpr.find_subject('email', 'chie@example.com')", user="dpo_login") == [
        (None,)
    ]
    for call in (
        "record_basis({}, 'orders', 'contract', 'order')",
        "record_consent({}, 'marketing', true, 'in_person')",
        "restrict({}, 'other')",
    ):
        with refused("PR603", "erased"):
            crm.rows("select gdpr." + call.format(chie), user="dpo_login")
    assert crm.rows(
        "select gdpr.unblock('email', 'chie@example.com', 'she came back')", user="dpo_login"
    ) == [(True,)]


def test_after_erasure_the_doctor_asks_for_statistics_only(crm: Database) -> None:
    crm.rows("analyze crm.customer, crm.lead", user="db_owner")
    erase(crm, subject(crm, "crm.customer", 1))
    crm.rows("select pg_stat_force_next_flush()", user="postgres")
    assert {check for check, _ in findings(crm)} <= {"statistics"}
    crm.rows('analyze crm.customer, crm.lead, crm."order", crm.order_line')
    assert findings(crm) == set()


ANONYMISE = {
    "tables__crm.customer__erase": "anonymise",
    "tables__crm.order__erase": "anonymise",
    "tables__crm.order_line__erase": "anonymise",
    "tables__crm.lead__erase": "anonymise",
    "tables__crm.lead__columns__score__erase": "keep",
    "tables__crm.order__columns__note": {
        "category": "other",
        "encrypt": True,
        "erase": {"value": "(erased)"},
    },
}


def test_anonymised_rows_stay_and_say_nothing(crm: Database) -> None:
    apply(crm, policy(**ANONYMISE))
    anna = subject(crm, "crm.customer", 1)
    receipt = erase(crm, anna)
    assert {table["method"] for table in receipt["tables"]} == {"anonymise"}
    assert receipt["key_destroyed"] is True
    row = crm.rows(
        "select id, email, phone, last_name, birth_date, city, created_at is not"
        " null, email_digest from gdpr_clear.customer where id = 1",
        user="crm_app",
    )[0]
    assert row[0] == 1
    assert row[1].startswith("erased-")
    assert row[2:6] == (None, "erased", None, None)
    assert row[6:] == (True, None)
    assert crm.rows(
        'select customer_id, total::text, note from gdpr_clear."order" where id = 1', user="crm_app"
    )[0][1:] == ("10.00", "(erased)")
    assert crm.rows(
        "select engraving from gdpr_clear.order_line where order_id = 1", user="crm_app"
    ) == [(None,)]
    app = crm.connect("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    assert app.execute(
        "select email, full_name, score from gdpr_clear.lead where id = 1"
    ).fetchone() == (None, None, 7)
    assert crm.rows(
        "select gdpr_subject_id, gdpr_subject_ref, gdpr_email_mask from crm.customer where id = 1",
        user="postgres",
    ) == [(None, None, None)]
    assert crm.rows("select subject_ref from gdpr_bi.customer where id = 1", user="metabase") == [
        (None,)
    ]
    for statement in (
        "update gdpr_clear.customer set phone = '+49 1' where id = 1",
        "update crm.customer set email = 'x@example.com' where id = 1",
    ):
        with refused("PR603", "erased"):
            crm.rows(statement, user="crm_app")
    with refused("PR603", "erased"):
        crm.rows('insert into gdpr_clear."order" (customer_id) values (1)', user="crm_app")
    assert (
        findings(crm)
        - {
            ("statistics", table)
            for table in ("crm.customer", "crm.lead", 'crm."order"', "crm.order_line")
        }
        == set()
    )


def test_two_anonymised_persons_do_not_collide(crm: Database) -> None:
    apply(crm, policy(**ANONYMISE))
    for key in (1, 2, 3):
        erase(crm, subject(crm, "crm.customer", key))
    assert crm.rows(
        "select count(*), count(distinct email) from gdpr_clear.customer", user="crm_app"
    ) == [(3, 3)]


def test_one_column_at_a_time(crm: Database) -> None:
    new = policy(
        **ANONYMISE,
        **{
            "tables__crm.customer__columns__city__erase": "keep",
            "tables__crm.customer__columns__created_at__erase": {"value": "2000-01-01"},
            "tables__crm.customer__columns__last_name__erase": {"value": "N. N."},
        },
    )
    apply(crm, new)
    erase(crm, subject(crm, "crm.customer", 1))
    assert crm.rows(
        "select city, created_at::date::text, last_name from gdpr_clear.customer where id = 1",
        user="crm_app",
    ) == [("Aalen", "2000-01-01", "N. N.")]


def test_unprotect_after_anonymising(crm: Database) -> None:
    apply(crm, policy(**ANONYMISE))
    erase(crm, subject(crm, "crm.customer", 1))
    for table in ("crm.lead", "crm.order_line", 'crm."order"', "crm.customer"):
        crm.rows("select gdpr.unprotect(%s::text::regclass)", [table])
    rows = crm.rows("select id, email from crm.customer order by id")
    assert rows[0][1].startswith("erased-")
    assert rows[1:] == [(2, "bela@example.com"), (3, "chie@example.com")]


def test_not_null_columns_of_every_type_get_a_neutral_value(db: Database) -> None:
    types = {
        "a": "text",
        "b": "varchar(3)",
        "c": "integer",
        "d": "numeric(4,1)",
        "e": "date",
        "f": "timestamptz",
        "g": "boolean",
        "h": "uuid",
        "i": "jsonb",
        "j": "text[]",
        "k": "inet",
        "l": "bytea",
        "m": "interval",
        "n": "float8",
        "o": "time",
    }
    values = (
        "'x', 'abc', 1, 1.5, '2020-01-01', '2020-01-01', true, gen_random_uuid(),"
        " '{\"a\":1}', '{a}', '10.1.1.1', '\\x01', '1 day', 1.5, '12:00'"
    )
    columns = ", ".join(f"{name} {kind} not null" for name, kind in types.items())
    db.connect().execute(
        f"create table public.person (id integer primary key, {columns}); insert"
        f" into public.person values (1, {values}); grant all on public.person to"
        " crm_app".encode()
    )
    for encrypt in (False, True):
        new = one_table(
            "public.person",
            erase="anonymise",
            columns={name: {"category": "identity", "encrypt": encrypt} for name in types},
        )
        apply(db, new)
        assert plan(db, new) == []
    erase(db, subject(db, "public.person", 1))
    (row,) = db.rows("select * from gdpr_clear.person", user="crm_app")
    assert all(value is not None for value in row)
    (stored,) = db.rows("select t::text from public.person t", user="postgres")[0]
    assert "gdpr1:" not in stored
    assert "10.1.1.1" not in stored


KEEP = {
    "tables__crm.customer__erase": "anonymise",
    "tables__crm.lead__erase": "delete",
    "tables__crm.order__columns__placed": {"category": "transaction"},
    "tables__crm.order__erase": {"keep_until": "7 years after placed", "then": "anonymise"},
    "tables__crm.order_line__erase": "anonymise",
}


def test_what_the_law_keeps_is_kept_and_locked(shop: Database) -> None:
    shop.rows('alter table crm."order" add placed date')
    shop.rows(
        'update crm."order" set placed = case id when 1 then current_date when 2'
        " then date '2001-01-01' when 3 then current_date end"
    )
    apply(shop, policy(**KEEP))
    anna = subject(shop, "crm.customer", 1)
    receipt = erase(shop, anna)
    orders = next(table for table in receipt["tables"] if table["table"] == 'crm."order"')
    assert (orders["rows"], orders["kept"], orders["kept_for"]) == (1, 1, "7 years after placed")
    assert receipt["key_destroyed"] is False
    assert shop.rows(
        'select id from gdpr_clear."order" where id in (1, 2) order by 1', user="crm_app"
    ) == [(2,)]
    assert shop.rows('select id, note from gdpr_clear."order" where id = 1', user="dpo_login") == [
        (1, "gift for Ada")
    ]
    with refused("23505"):
        shop.rows(
            "insert into gdpr_clear.customer (email, last_name) values ('anna@example.com', 'A')",
            user="crm_app",
        )
    assert {check for check, _ in findings(shop)} - {"statistics"} == set()


def test_erasure_is_all_or_nothing(crm: Database) -> None:
    """A table outside the policy refers to the customer: the erasure fails as a whole, and says
    so."""
    owner = crm.connect()
    owner.execute(
        "create table crm.badge (customer_id bigint not null references"
        " crm.customer); insert into crm.badge values (1)"
    )
    anna = subject(crm, "crm.customer", 1)
    with refused("23503", "erasure_blocked") as error:
        erase(crm, anna)
    assert error.value.diag.message_detail == ("table crm.badge, constraint badge_customer_id_fkey")
    plan = crm.rows("select gdpr.erasure_plan(%s)", [anna], user="dpo_login")[0][0]
    assert plan["blocked_by"] == error.value.diag.message_detail
    assert crm.rows("select email from gdpr_clear.customer where id = 1", user="crm_app") == [
        ("anna@example.com",)
    ]
    assert crm.rows("select gdpr.is_blocked('email', 'anna@example.com')", user="dpo_login") == [
        (False,)
    ]
    assert crm.rows("select count(*) from gdpr.erasure_ledger", user="dpo_login") == [(0,)]


def test_a_trigger_of_the_application_cannot_stop_an_erasure_in_silence(crm: Database) -> None:
    """BEFORE DELETE ... return null makes the DELETE a no-op: the receipt must not claim
    otherwise."""
    crm.connect().execute("""
        create function crm.keep() returns trigger language plpgsql as $$begin return null; end$$;
        create trigger keep before delete on crm.customer for each row execute function crm.keep();
    """)
    anna = subject(crm, "crm.customer", 1)
    with refused("PR605", "erasure_incomplete"):
        erase(crm, anna)
    assert crm.rows("select email from gdpr_clear.customer where id = 1", user="crm_app") == [
        ("anna@example.com",)
    ]


def test_a_deferred_trigger_stops_the_officer_before_anything(crm: Database) -> None:
    """It would run at commit, with the officer's rights."""
    crm.rows("select gdpr.record_consent(1, 'marketing', true, 'in_person')", user="dpo_login")
    crm.connect().execute("""
        create function crm.later() returns trigger language plpgsql as $$begin return null; end$$;
        create constraint trigger later after delete on crm.customer deferrable initially deferred
          for each row execute function crm.later();
    """)
    for call in ("erase(1)", "restrict(1, 'other')", "withdraw_consent(1, 'marketing')"):
        with refused("PR604", "deferred_trigger"):
            crm.rows(f"select gdpr.{call}", user="dpo_login")


def test_everybody_can_be_erased(crm: Database) -> None:
    for (person,) in crm.rows("select subject_id from gdpr.subject order by 1", user="dpo_login"):
        erase(crm, person)
    for table in ("customer", '"order"', "order_line", "lead"):
        assert crm.rows(f"select count(*) from crm.{table}", user="postgres") == [(0,)]
    assert crm.rows("select count(*) from gdpr_internal.subject_key", user="postgres") == [(0,)]
    assert apply(crm, POLICY) == []
