"""Station 40: persons get new data keys, and everything under the old ones is encrypted anew."""

from __future__ import annotations

import base64
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, one_table, refused, subject
from tests.capabilities.sharing import RECIPIENTS, disclose
from tests.support import OWNER, Clone, Database

#: Seconds of the runs beside writers; more by GDPRDB_TEST_SECONDS.
SECONDS = float(os.environ.get("GDPRDB_TEST_SECONDS", "2"))

WHY = json.dumps({"text": "the letter of the third of May"})

#: Everything that an officer may write down about a person in words.
OFFICER = (
    "record_basis(%(p)s, 'orders', 'public_task', p_evidence => %(why)s)",
    "record_consent(%(p)s, 'marketing', true, 'phone', %(phone)s)",
    "open_request('access', %(p)s, 'email', null, %(why)s)",
    "ask_identity((select max(request_id) from gdpr.request), %(why)s)",
    "verify_identity((select max(request_id) from gdpr.request), %(p)s, %(why)s)",
    "propose_rectification(%(p)s, %(change)s, 'a typing error')",
    "rectify(%(p)s, %(change)s, 'a typing error')",
    "object_to(%(p)s, 'analytics', %(why)s)",
    "decide_objection(%(p)s, 'analytics', 'taken_back', null, %(why)s)",
    "restrict(%(p)s, 'accuracy_contested')",
    "except_from_restriction(%(p)s, 'orders', 'legal_claims', now() + interval '1 day', %(why)s)",
    "end_exception((select max(exception_id) from gdpr.restriction_exception), 'it is over')",
    "announce_lifting(%(p)s, 'phone', %(phone)s)",
    "lift_restriction(%(p)s, 'she was right')",
    "restrict(%(p)s, 'other')",
    "except_from_restriction(%(p)s, 'orders', 'legal_claims', now() + interval '1 day', %(why)s)",
    "place_hold(%(p)s, 'legal_claims', 'file 7')",
    "release_hold((select max(hold_id) from gdpr.hold), 'she has paid')",
    "propose_rectification(%(p)s, %(change)s, 'a typing error')",
    "reject_rectification((select max(rectification_id) from gdpr.rectification), 'not hers')",
)

#: Columns of gdprdb's own tables in which a person's ciphertext can stand.
OWN = """
select c.oid::regclass::text, a.attname
from pg_class as c
join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and a.atttypid = 'text'::regtype
where c.relnamespace = 'gdpr_internal'::regnamespace and c.relkind = 'r'
"""


def versions(db: Database, person: int) -> dict[str, set[int]]:
    """Where the person's ciphertext stands, and by which versions of the key it was made."""
    found: dict[str, set[int]] = {}
    crm = [("crm.customer", "email"), ("crm.customer", "phone"), ("crm.customer", "birth_date")]
    crm += [('crm."order"', "note"), ("crm.order_line", "engraving"), ("crm.lead", "email")]
    with psycopg.connect(db.dsn("postgres"), autocommit=True) as connection:
        for table, column in crm + connection.execute(OWN).fetchall():
            for (value,) in connection.execute(
                f'select "{column}" from {table} where starts_with("{column}", \'gdpr1:\')'.encode()
            ):
                raw = base64.b64decode(value[6:])
                if int.from_bytes(raw[5:13], "big") == person:
                    place = "audit" if "audit_record" in table else f"{table}.{column}"
                    found.setdefault(place, set()).add(int.from_bytes(raw[1:5], "big"))
    return found


def words(db: Database, person: int) -> Any:
    """Everything that officers read of the person."""
    return [
        db.rows(statement, [person], user="dpo_login")
        for statement in (
            "select evidence from gdpr.basis where subject_id = %s order by basis_id",
            "select details from gdpr.request where subject_id = %s order by 1",
            "select details from gdpr.objection where subject_id = %s order by 1",
            "select details from gdpr.restriction_exception where subject_id = %s order by 1",
            "select * from gdpr.rectification where subject_id = %s order by 1",
            "select details from gdpr.source where subject_id = %s order by id",
            (
                "select id, old from gdpr.audit_log where subject_id = %s"
                " and table_name is not null order by id"
            ),
        )
    ]


@pytest.fixture
def anna(crm: Database) -> int:
    """A person about whom there is something everywhere."""
    person = subject(crm, "crm.customer", 1)
    with psycopg.connect(crm.dsn("crm_app"), autocommit=True) as app:
        app.execute("""set gdpr.source = '{"kind": "web_form", "form": "contact"}'""")
        app.execute("update crm.customer set phone = '+49 711 999' where id = 1")
        app.execute("update crm.\"order\" set note = 'by noon' where id = 1")
        app.execute("delete from crm.order_line where order_id = 2")
    phone = {"who": "Bo", "when": "2026-05-01", "how": "by phone", "reference": "tape 7"}
    change = [{"table": "crm.customer", "key": "1", "column": "last_name", "value": "Ahrends"}]
    with psycopg.connect(crm.dsn("dpo_login"), autocommit=True) as dpo:
        dpo.execute(RECIPIENTS)
        disclose(dpo, [person], references=["customer 0815"])
        given = {
            "p": person,
            "why": WHY,
            "phone": json.dumps(phone),
            "change": json.dumps(change),
        }
        for call in OFFICER:
            dpo.execute(f"select gdpr.{call}".encode(), given)
    crm.rows(
        "insert into gdpr_internal.outbox (subject_id, template, message, due_at)"
        " select %(p)s, 'test', gdpr_internal.seal_evidence(%(p)s, '{\"to\": \"a@b.example\"}'),"
        " now() + interval '1 day'",
        {"p": person},
        user="postgres",
    )
    return person


def test_everything_of_a_person_is_encrypted_anew(crm: Database, anna: int) -> None:
    before = versions(crm, anna)
    assert len(before) >= 17, sorted(before)
    assert set.union(*before.values()) == {1}
    read = words(crm, anna)
    rows = crm.rows("select * from gdpr_clear.customer order by id", user="crm_app")
    records = crm.rows("select count(*) from gdpr_internal.audit_record", user="postgres")[0][0]
    others = versions(crm, subject(crm, "crm.customer", 2))

    crm.rows("select gdpr.renew_key(%s)", [anna])

    after = versions(crm, anna)
    assert after.pop("audit") == before.pop("audit") == {1}
    assert after == {key: {2} for key in before}
    assert words(crm, anna) == read
    assert crm.rows("select * from gdpr_clear.customer order by id", user="crm_app") == rows
    assert versions(crm, subject(crm, "crm.customer", 2)) == others
    # one record of the renewal, none of rows that say what they said before
    assert crm.rows(
        "select operation, old from gdpr.audit_log order by id desc limit %s",
        [crm.rows("select count(*) from gdpr.audit_log", user="dpo_login")[0][0] - records],
        user="dpo_login",
    ) == [("KEY", {"renewed": 1})]
    assert crm.rows("select data_keys, renewed from gdpr.key_status") == [(4, 1)]
    assert not findings(crm)

    crm.rows("select gdpr.lift_restriction(%s, 'settled')", [anna], user="dpo_login")
    # she is processed as before: written, found, matched, exported, and once more renewed
    crm.rows("update gdpr_clear.customer set phone = '+49 711 5' where id = 1", user="crm_app")
    with crm.connect("crm_app") as app:
        app.execute("set gdpr.purpose = 'marketing'")
        app.execute("insert into crm.lead (email) values ('anna@example.com')")
    assert subject(crm, "crm.lead", 3) == anna
    assert versions(crm, anna)["audit"] == {1, 2}
    crm.rows("select gdpr.renew_key(%s)", [anna])
    assert versions(crm, anna)["crm.lead.email"] == {3}
    again = words(crm, anna)
    assert again[-1][: len(read[-1])] == read[-1]
    assert {"phone": "+49 711 999"} in [old for _, old in again[-1]]

    # the ring is one thing: a new key-encryption key takes all of it along, erasure ends all of it
    crm.rows("select gdpr.rotate_key('table')")
    while crm.rows("select gdpr.rewrap_keys()") != [(0,)]:
        pass
    crm.rows("select gdpr.finish_rotation()")
    assert words(crm, anna) == again
    crm.rows("select gdpr.erase(%s)", [anna], user="dpo_login")
    assert crm.rows(
        "select count(*) from gdpr_internal.subject_key where subject_id = %s",
        [anna],
        user="postgres",
    ) == [(0,)]
    with refused("PR603", "erased"):
        crm.rows("select gdpr.renew_key(%s)", [anna])


def test_a_value_of_before_opens_and_no_other(crm: Database, anna: int) -> None:
    (old,) = crm.rows("select email from crm.customer where id = 1", user="postgres")[0]
    crm.rows("select gdpr.renew_key(%s)", [anna])

    def plant(value: str) -> None:
        with psycopg.connect(crm.dsn("postgres"), autocommit=True) as superuser:
            triggers = ("zzz_gdpr_40_change", "zzz_gdpr_50_audit")
            for trigger in triggers:
                superuser.execute(f"alter table crm.customer disable trigger {trigger}".encode())
            superuser.execute("update crm.customer set email = %s where id = 1", [value])
            for trigger in triggers:
                superuser.execute(
                    f"alter table crm.customer enable always trigger {trigger}".encode()
                )

    # an older dump of the table beside keys of today
    plant(old)
    read = "select email from gdpr_clear.customer where id = 1"
    assert crm.rows(read, user="crm_app") == [("anna@example.com",)]
    assert crm.rows("select gdpr.reveal(%s)", [old], user="crm_app") == [("anna@example.com",)]
    raw = bytearray(base64.b64decode(old[6:]))
    for version in (0, 2, 3, 255):
        raw[4] = version
        plant("gdpr1:" + base64.b64encode(raw).decode())
        with refused("PR404", "tampered"):
            crm.rows(read, user="crm_app")
    # and a value that is damaged keeps its person's key from being renewed, and nobody else's
    with refused("PR404", "tampered"):
        crm.rows("select gdpr.renew_key(%s)", [anna])
    while crm.rows("select gdpr.renew_keys(10)") != [(0,)]:
        pass
    assert crm.rows("select persons, renewed, remaining, finished_at from gdpr.key_renewal") == [
        (4, 3, 1, None)
    ]
    plant(old)
    assert crm.rows("select gdpr.renew_keys(10)") == [(1,)]
    assert crm.rows("select gdpr.renew_keys(10)") == [(0,)]
    assert crm.rows("select renewed, finished_at is null from gdpr.key_renewal") == [(4, False)]


def test_evidence_changes_in_nothing_else(crm: Database, anna: int) -> None:
    """Who may write everything, and renews a key, can still not rewrite what happened."""
    with psycopg.connect(crm.dsn("postgres")) as superuser:
        forged = 'gdpr_internal.seal_evidence(subject_id, \'{"text": "forged"}\')'
        for setting in ("", "on"):
            for change in (
                f"gdpr_internal.source set details = {forged}",
                "gdpr_internal.source set details = null",
                "gdpr_internal.source set kind = 'import'",
                "gdpr_internal.audit_record set payload = payload",
                f"gdpr_internal.objection_record set details = {forged}",
            ):
                with refused("55000", "append_only"), superuser.transaction():
                    superuser.execute("select gdpr_internal.renew_persons(%s)", [[anna]])
                    superuser.execute("select set_config('gdpr.renewing', %s, true)", [setting])
                    superuser.execute(f"update {change} where subject_id = %s".encode(), [anna])
            # of a person whose key is not renewed, not even the same words
            with refused("55000", "append_only"), superuser.transaction():
                superuser.execute("select set_config('gdpr.renewing', %s, true)", [setting])
                superuser.execute(
                    "update gdpr_internal.source set details = gdpr_internal.renewed_value("
                    "gdpr_internal.data_key(gdpr_internal.keyring(), subject_id), subject_id,"
                    " details) where subject_id = %s and details is not null",
                    [anna],
                )


def test_a_planted_trigger_changes_nothing_unseen(crm: Database, anna: int) -> None:
    crm.rows(
        """
        create function crm.meddle() returns trigger language plpgsql as $$
        begin
          new.city := 'Moved';
          new.phone := '+49 900 666';
          return new;
        end $$;
        create trigger meddle before update on crm.customer for each row execute function
          crm.meddle()
        """
    )
    crm.rows("select set_config('gdpr.renewing', 'on', false)")
    crm.rows("select gdpr.renew_key(%s)", [anna])
    (record,) = crm.rows(
        "select changed, old from gdpr.audit_log where operation = 'UPDATE' and subject_id = %s"
        " order by id desc limit 1",
        [anna],
        user="dpo_login",
    )
    assert record == (["phone", "city"], {"phone": "+49 711 999", "city": "Aalen"})
    assert versions(crm, anna)["crm.customer.phone"] == {2}
    # a setting alone, which everybody can make, hides no change either
    with psycopg.connect(crm.dsn("crm_app"), autocommit=True) as app:
        app.execute("set gdpr.renewing = 'on'")
        app.execute("update crm.customer set email = 'bob@example.com' where id = 2")
    assert crm.rows(
        "select changed from gdpr.audit_log where subject_id = 2 order by id desc limit 1",
        user="dpo_login",
    ) == [(["email", "phone", "city"],)]


def test_who_may_not_renew(same: Database) -> None:
    for user in ("crm_app", "metabase", "dpo_login", "auditor_login"):
        for call in ("renew_keys()", "renew_key(1)"):
            with refused("42501"):
                same.rows(f"select gdpr.{call}", user=user)
    for call, code, name in (
        ("renew_keys(0)", "PR004", "invalid_argument"),
        ("renew_keys(null)", "PR004", "invalid_argument"),
        ("renew_keys(10, now() + interval '1 hour')", "PR004", "invalid_argument"),
        ("renew_key(999)", "PR101", "unknown_subject"),
    ):
        with refused(code, name):
            same.rows(f"select gdpr.{call}")
    with same.connect(autocommit=False) as session:
        session.execute("set transaction isolation level repeatable read")
        with refused("PR005", "needs_read_committed"):
            session.execute("select gdpr.renew_keys()")


# ---------------------------------------------------------------- many persons, beside others

MANY = one_table(
    "public.person",
    match_on=["email"],
    columns={
        "id": {"category": "key"},
        "email": {"identifier": "email", "encrypt": "searchable", "mask": "email"},
        "name": {"category": "identity", "encrypt": True},
    },
)


@pytest.fixture
def people(clone: Clone, installed_template: str) -> Iterator[Database]:
    """Forty persons under their first keys."""
    with clone(installed_template) as database:
        database.rows(
            "create table public.person (id integer primary key, email text, name text);"
            "grant all on public.person to crm_app"
        )
        apply(database, MANY)
        database.rows(
            "insert into public.person select n, n || '@example.com', 'Name ' || n"
            " from generate_series(1, 40) as n",
            user="crm_app",
        )
        yield database


WRONG = "select count(*) from gdpr_clear.person where name is distinct from 'Name ' || id"


def old_values(db: Database) -> int:
    """How many values are not under the key in force of their person."""
    with psycopg.connect(db.dsn("postgres")) as connection:
        made = connection.execute(
            "select p.email, p.name, (length(k.wrapped) - 48 + 16) / 80 from public.person as p"
            " join gdpr_internal.subject_key as k on k.subject_id = p.gdpr_subject_id"
        ).fetchall()
    return sum(
        int.from_bytes(base64.b64decode(value[6:])[1:5], "big") != (version or 1)
        for *values, version in made
        for value in values
        if value is not None
    )


def test_batches_resume_where_they_stopped(people: Database) -> None:
    assert people.rows("select gdpr.renew_keys(15)") == [(15,)]
    (started,) = people.rows(
        "select made_before, persons, renewed, remaining from gdpr.key_renewal"
    )
    assert started[1:] == (40, 15, 25)
    with refused("PR418", "renewal_open"):
        people.rows("select gdpr.renew_keys(15, now() - interval '1 day')")
    # who comes now has a new key already
    people.rows(
        "insert into public.person values (41, '41@example.com', 'Name 41')", user="crm_app"
    )
    dead = people.connect(autocommit=False)
    dead.execute("select gdpr.renew_keys(15)")
    dead.close()
    assert people.rows("select renewed from gdpr.key_renewal") == [(15,)]
    writer = people.connect("crm_app", autocommit=False)
    writer.execute("update public.person set name = 'Name 20' where id = 20")
    assert people.rows("select gdpr.renew_keys(100)") == [(24,)]
    # she is being written: everybody else is done, and so is she in the end
    assert people.rows("select gdpr.renew_keys(100)") == [(0,)]
    assert people.rows("select remaining, finished_at from gdpr.key_renewal") == [(1, None)]
    writer.commit()
    assert people.rows("select gdpr.renew_keys(100)") == [(1,)]
    assert people.rows("select gdpr.renew_keys(100)") == [(0,)]
    assert people.rows(
        "select made_before, renewed, remaining, finished_at is null from gdpr.key_renewal"
    ) == [(started[0], 40, 0, False)]
    assert people.rows(WRONG, user="crm_app") == [(0,)]
    assert old_values(people) == 0
    # a second one: of those whose key is older than the first
    assert people.rows("select gdpr.renew_keys(100, %s)", [started[0]]) == [(0,)]


def test_an_older_snapshot_does_not_write_with_the_old_key(people: Database) -> None:
    late = people.connect("crm_app", autocommit=False)
    late.execute("set transaction isolation level repeatable read")
    late.execute(WRONG.encode())
    people.rows("select gdpr.renew_keys(100)")
    with refused("40001"):
        late.execute("update public.person set name = 'x' where id = 3")
    late.rollback()
    # a second row of the same person
    late.execute("set transaction isolation level repeatable read")
    late.execute(WRONG.encode())
    people.rows("select gdpr.renew_key(3)")
    with refused("40001"):
        late.execute("insert into public.person values (300, '3@example.com', 'Name 300')")
    late.rollback()


def test_a_row_that_was_waited_for_opens_with_the_new_key(people: Database) -> None:
    """A locking read that meets a renewal has read the old key, and gets the new row."""
    renewer = people.connect(autocommit=False)
    renewer.execute("select gdpr.renew_key(3)")
    got: list[Any] = []

    def read() -> None:
        with psycopg.connect(people.dsn("crm_app")) as app:
            got.extend(
                app.execute(
                    "select name, email from gdpr_clear.person where id = 3 for update"
                ).fetchall()
            )

    reader = threading.Thread(target=read)
    reader.start()
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    deadline = time.monotonic() + 20
    while people.rows(waiting, user="postgres") == [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    renewer.commit()
    reader.join(20)
    assert got == [("Name 3", "3@example.com")]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_nothing_is_lost_beside_writers(people: Database, isolation: str) -> None:
    """Sessions insert, change and erase persons while all their keys are renewed, over and over."""
    stop = time.monotonic() + SECONDS
    failures: list[str] = []
    erased: set[int] = set()

    def write(seed: int) -> None:
        rolls = random.Random(seed)
        with psycopg.connect(people.dsn("crm_app"), autocommit=True) as app:
            app.execute(f"set default_transaction_isolation = '{isolation}'".encode())
            while time.monotonic() < stop:
                n = rolls.randint(1, 40)
                statement = rolls.choice(
                    (
                        "update gdpr_clear.person set name = name where id = %(n)s",
                        "update public.person set name = 'Name ' || id where id = %(n)s",
                        "select name, email from gdpr_clear.person where id = %(n)s for update",
                        "update public.person set email = %(n)s || '@Example.com' where id = %(n)s",
                        "delete from public.person where id = %(new)s",
                        (
                            "insert into public.person values (%(new)s, %(n)s || '@example.com',"
                            " 'Name ' || %(new)s) on conflict do nothing"
                        ),
                        "update public.person set name = null where id = %(n)s;",
                    )
                )
                given = {"n": n, "new": 100 * seed + n}
                try:
                    app.execute(statement.encode(), given)
                    if "null" in statement:
                        app.execute(
                            "update public.person set name = 'Name ' || id where id = %(n)s", given
                        )
                except psycopg.Error as error:
                    if error.sqlstate not in ("40001", "40P01", "PR603", "23505"):
                        failures.append(f"{statement} {error.sqlstate} {error}")

    def erase() -> None:
        with psycopg.connect(people.dsn("dpo_login"), autocommit=True) as dpo:
            for person in (5, 6, 7):
                time.sleep(SECONDS / 5)
                while True:
                    try:
                        dpo.execute("select gdpr.erase(%s)", [person])
                        break
                    except psycopg.errors.DeadlockDetected:
                        continue
                erased.add(person)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2, 3)]
    threads.append(threading.Thread(target=erase))
    for thread in threads:
        thread.start()
    rounds = 0
    with psycopg.connect(people.dsn(OWNER), autocommit=True) as admin:
        while time.monotonic() < stop or rounds < 1:
            rounds += admin.execute("select gdpr.renew_keys(8)").fetchall() == [(0,)]
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]
    assert people.rows(
        "select count(*) from gdpr_clear.person where name <> 'Name ' || id"
        " or not starts_with(lower(email), (id % 100) || '@')",
        user="crm_app",
    ) == [(0,)]
    assert people.rows(
        "select count(*) from gdpr_internal.subject_key where subject_id = any(%s)",
        [sorted(erased)],
        user="postgres",
    ) == [(0,)]
    while people.rows("select gdpr.renew_keys(100)") != [(0,)]:
        pass
    assert old_values(people) == 0
    people.rows("analyze public.person")
    assert not findings(people)


def test_keys_that_nothing_needs_any_more_are_dropped(people: Database) -> None:
    for _ in range(4):
        people.rows("select gdpr.renew_key(1)")
    size = "select length(wrapped) from gdpr_internal.subject_key where subject_id = 1"
    assert people.rows(size, user="postgres") == [(48 + 5 * 80,)]
    # the audit log of before was dropped
    people.rows(
        "create or replace function gdpr_internal.dropped_before() returns date language sql stable"
        " as 'select current_date + 3'",
        user="postgres",
    )
    people.rows("select gdpr.renew_key(1)")
    assert people.rows(size, user="postgres") == [(48 + 2 * 80,)]
    assert people.rows(WRONG, user="crm_app") == [(0,)]
    # more than a page holds: refused, not cut
    people.rows(
        "create or replace function gdpr_internal.dropped_before() returns date language sql stable"
        " as $$ select '-infinity'::date $$",
        user="postgres",
    )
    with people.connect(autocommit=False) as session, refused("PR004", "invalid_argument"):
        session.execute(
            "do $$ begin for n in 1..100 loop perform gdpr.renew_key(1); end loop; end $$"
        )
    assert people.rows(size, user="postgres") == [(48 + 2 * 80,)]
