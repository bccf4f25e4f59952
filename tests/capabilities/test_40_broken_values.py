"""Station 40: what stands in an encrypted column and is no ciphertext of its row is never shown as
a value, wherever it is opened; it is found without being shown, and replaced by an UPDATE."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, one_table, policy, refused, subject
from tests.support import Database

APP, DPO, ROOT = "crm_app", "dpo_login", "postgres"

#: SQL of what somebody plants in place of phone, or what is left of it after a bit was flipped.
PLANTED = (
    "'forged 0711'",
    "''",
    "'gdpr1'",
    "'gdpr0:' || substr(phone, 7)",
    "'Gdpr1:' || substr(phone, 7)",
    "substr(phone, 2)",
    "left(phone, 3)",
)


def plant(db: Database, statement: str, table: str = "crm.customer", user: str = ROOT) -> None:
    """Change rows with the triggers off, as the owner can who switches row security off, too."""
    with psycopg.connect(db.dsn(user)) as connection:
        ((back,),) = connection.execute(
            "select string_agg(format('alter table %%s enable %%s trigger %%I', tgrelid::regclass,"
            " case tgenabled when 'A' then 'always' when 'R' then 'replica' else '' end, tgname),"
            " ';') from pg_trigger where tgrelid = %s::text::regclass and not tgisinternal"
            " and tgname ~ '^zzz_gdpr_'",
            [table],
        ).fetchall()
        for command in (
            f"alter table {table} disable trigger user",
            f"alter table {table} no force row level security",
            statement,
            f"alter table {table} force row level security",
            back,
        ):
            connection.execute(command.encode())


def broken(db: Database, table: str = "crm.customer", user: str = DPO) -> list[tuple[Any, ...]]:
    """Key, column and error of the broken values of a table."""
    return db.rows(
        "select row_key, column_name, error from gdpr.broken_values(%s::text::regclass)"
        " order by row_key, column_name",
        [table],
        user=user,
    )


# ---------------------------------------------------------------- it is never shown


def shown(db: Database, statement: str, user: str, stored: str) -> None:
    """A statement is refused, and its error tells where and not what."""
    with refused("PR404", "tampered") as error:
        db.rows(statement, user=user)
    told = str(error.value) + str(error.value.diag.message_detail)
    assert "711" not in told
    assert "forged" not in told
    assert len(stored) < 7 or stored not in told
    assert "gdpr.reveal" in statement or "column" in told


def test_what_is_planted_is_shown_nowhere(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    app = crm.connect(APP)
    ((whole,),) = crm.rows("select phone from crm.customer where id = 1", user=ROOT)
    for n, value in enumerate(PLANTED):
        plant(
            crm,
            f"update crm.customer set phone = {value.replace('phone', repr(whole))} where id = 1",
            user=ROOT if n % 2 else "db_owner",
        )
        ((stored,),) = crm.rows("select phone from crm.customer where id = 1", user=ROOT)
        for who, statement in (
            (APP, "select phone from gdpr_clear.customer where id = 1"),
            (APP, "select gdpr.reveal(phone) from crm.customer where id = 1"),
            (APP, "update gdpr_clear.customer set city = 'Ulm' where id = 1"),
            (DPO, f"select gdpr.access_report({person})"),
        ):
            shown(crm, statement, who, stored)
        ((version,),) = crm.rows(
            "select content from gdpr.history('crm.customer', '1') limit 1", user=DPO
        )
        assert version["phone"] == {"error": "PR404"}
        assert version["city"] == "Aalen"
        assert broken(crm) == [("1", "phone", "PR404")]
    for who, statement in (
        (APP, "update gdpr_clear.customer set phone = '+49 711 5' where id = 1"),
        (APP, "delete from gdpr_clear.customer where id = 1"),
        (DPO, f"select gdpr.portable_copy({person})"),
        (
            DPO,
            f"""select gdpr.rectify({person}, '[{{"table": "crm.customer", "key": "1",
              "column": "phone", "value": "+49 711 5"}}]', 'letter')""",
        ),
        ("db_owner", f"select gdpr.renew_key({person})"),
        (
            "db_owner",
            """select gdpr.unprotect('crm.lead'), gdpr.unprotect('crm.order_line'),
              gdpr.unprotect('crm.order'), gdpr.unprotect('crm.customer')""",
        ),
    ):
        shown(crm, statement, who, stored)
    # the rest of the row, other rows, and the table itself are read as ever
    assert app.execute("select city from gdpr_clear.customer where id = 1").fetchone() == ("Aalen",)
    assert app.execute("select phone from gdpr_clear.customer where id = 3").fetchone() == (
        "+81 3 1003",
    )
    assert app.execute("select phone from crm.customer where id = 1").fetchone() == (stored,)


def test_addresses_and_birth_dates_are_not_taken_from_it(crm: Database) -> None:
    person = subject(crm, "crm.customer", 1)
    new = policy()
    new["tables"]["crm.customer"]["columns"]["birth_date"]["age"] = True
    apply(crm, new)
    plant(crm, "update crm.customer set email = '', birth_date = '2020-01-01' where id = 1")
    for statement in (
        "select gdpr.request_consent(%s, '{marketing}', 'email', p_respond_within => '1 day')",
        """select gdpr.record_consent(%s, 'marketing', true, 'web_form', '{"ip": "::1"}')""",
    ):
        with refused("PR404", "tampered"):
            crm.rows(statement, [person], user=DPO)
    assert broken(crm) == [("1", "birth_date", "PR404"), ("1", "email", "PR404")]


def test_rows_of_nobody_keep_what_erasure_left(crm: Database) -> None:
    app = crm.connect(APP)
    crm.rows("insert into crm.\"order\" (customer_id, total, note) values (3, 1, 'gone')", user=APP)
    apply(crm, policy(**{"tables__crm.customer__erase": "anonymise"}))
    crm.rows("select gdpr.erase(%s)", [subject(crm, "crm.customer", 3)], user=DPO)
    ((stored, owner),) = crm.rows(
        "select email, gdpr_subject_id from crm.customer where id = 3", user=ROOT
    )
    assert owner is None
    assert stored.startswith("erased-")
    assert app.execute("select email, phone from gdpr_clear.customer where id = 3").fetchone() == (
        stored,
        None,
    )
    assert app.execute("select gdpr.reveal(email) from crm.customer where id = 3").fetchone() == (
        None,
    )
    assert broken(crm) == []
    assert findings(crm, severities=("error",)) == set()


def test_a_table_that_is_only_observed(crm: Database) -> None:
    apply(crm, policy(**{"tables__crm.customer__mode": "observe"}))
    plant(crm, "update crm.customer set phone = 'forged' where id = 1")
    with refused("PR404", "tampered"):
        crm.rows("select phone from gdpr_clear.customer where id = 1", user=APP)
    crm.rows("update crm.customer set phone = '+49 711 7' where id = 1", user=APP)
    assert crm.rows("select phone from gdpr_clear.customer where id = 1", user=APP) == [
        ("+49 711 7",)
    ]


def test_parallel_plans_refuse_it(crm: Database) -> None:
    plant(crm, "update crm.customer set phone = 'forged' where id = 1")
    app = crm.connect(APP)
    for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        app.execute(f"set {setting} = 0".encode())
    with refused("PR404", "tampered"):
        app.execute("select max(phone) from gdpr_clear.customer")


# ---------------------------------------------------------------- while plaintext has its place


def test_a_column_that_is_encrypted_from_now_on(crm: Database) -> None:
    new = policy()
    new["tables"]["crm.customer"]["columns"]["city"] = {"category": "contact", "encrypt": True}
    plant(crm, "update crm.customer set phone = 'forged' where id = 1")
    # the other column of the same rows is not taken for one that still has to be encrypted
    with refused("PR404", "tampered") as error:
        apply(crm, new)
    assert "forged" not in str(error.value)
    crm.rows("update crm.customer set phone = '+49 711 7' where id = 1", user=APP)
    apply(crm, new)
    assert crm.rows("select phone, city from gdpr_clear.customer where id = 1", user=APP) == [
        ("+49 711 7", "Aalen")
    ]
    plant(crm, "update crm.customer set city = 'Aalen' where id = 1")
    with refused("PR404", "tampered"):
        crm.rows("select city from gdpr_clear.customer where id = 1", user=APP)
    assert crm.rows(
        "select count(*) from gdpr_internal.protected_column where encrypting_xid is not null",
        user=ROOT,
    ) == [(0,)]
    # nor is a policy that masks it otherwise a way to have it sealed
    new["tables"]["crm.customer"]["columns"]["city"]["mask"] = "initial"
    with refused("PR404", "tampered"):
        apply(crm, new)


def test_a_protected_table_is_not_taken_for_one_that_is_being_enabled(crm: Database) -> None:
    plant(crm, "update crm.customer set phone = 'forged' where id = 1")
    owner = crm.connect()
    with refused("PR006", "enabling_state"):
        owner.execute("select gdpr_policy.put_enabling('crm.customer', 'begun')")
    owner.autocommit = False
    owner.execute("select gdpr.reshape('crm.customer')")
    with refused("PR006", "enabling_state"):
        owner.execute("select gdpr_policy.put_enabling('crm.customer', 'begun')")
    owner.rollback()
    with refused("PR404", "tampered"):
        crm.rows("select phone from gdpr_clear.customer where id = 1", user=APP)


def test_a_retyped_column_has_to_be_whole(crm: Database) -> None:
    plant(crm, "update crm.customer set phone = '0711' where id = 1")
    owner = crm.connect(autocommit=False)
    owner.execute("select gdpr.reshape('crm.customer')")
    owner.execute("select gdpr.retype('crm.customer', 'phone', 'varchar(40)')")
    with refused("PR404", "tampered"):
        owner.execute("select gdpr.end_reshape()")


PARTITIONED = """
create table public.person (
  id integer, region text, note text, memo text check (memo <> ''), primary key (id, region)
) partition by list (region);
create table public.person_eu partition of public.person for values in ('eu');
create table public.person_us partition of public.person for values in ('us');
insert into public.person
values (1, 'eu', 'one', 'm'), (2, 'eu', 'two', null), (3, 'eu', 'three', 'x');
grant all on public.person, public.person_eu, public.person_us to crm_app;
"""


def test_it_is_not_sealed_on_its_way_to_another_partition(db: Database) -> None:
    db.connect().execute(PARTITIONED)
    columns = {name: {"category": "other", "encrypt": True} for name in ("note", "memo")}
    apply(db, one_table("public.person", columns=columns))
    for wrong in ("note = 'forged'", "memo = 'forged'", "note = 'forged', memo = 'forged'"):
        plant(db, f"update public.person_eu set {wrong} where id = 1", "public.person_eu")
        with refused("PR404", "tampered") as error:
            db.rows("update public.person set region = 'us' where id = 1", user=APP)
        assert "forged" not in str(error.value)
        db.rows("update public.person set note = 'one', memo = 'm' where id = 1", user=APP)
    db.rows("update public.person set region = 'us', note = 'new' where id < 4", user=APP)
    assert db.rows(
        "select id, region, note, memo from gdpr_clear.person order by id", user=APP
    ) == [(1, "us", "new", "m"), (2, "us", "new", None), (3, "us", "new", "x")]


# ---------------------------------------------------------------- found and replaced


def test_who_may_look_for_it(crm: Database) -> None:
    plant(crm, "update crm.customer set phone = overlay(phone placing 'AAAA' from 60) where id = 1")
    for user in (APP, "metabase", "portal_app", "auditor_login"):
        with refused("42501"):
            broken(crm, user=user)
    for user in (DPO, "db_owner"):
        assert broken(crm, user=user) == [("1", "phone", "PR404")]
    crm.rows(
        "delete from gdpr_internal.subject_key where subject_id = %s",
        [subject(crm, "crm.customer", 2)],
        user=ROOT,
    )
    assert set(broken(crm)) == {
        ("1", "phone", "PR404"),
        *(("2", c, "PR410") for c in ("birth_date", "email", "phone")),
    }
    assert crm.rows("select count(*) from gdpr.broken_values('crm.customer', 2)") == [(2,)]
    assert broken(crm, "crm.order_line") == [('["3", "1"]', "engraving", "PR410")]
    with refused("PR002", "not_protected"):
        broken(crm, "pg_class")


def test_the_doctor_says_how(crm: Database) -> None:
    plant(crm, "update crm.customer set phone = 'forged' where id = 1")
    ((finding, hint),) = crm.rows(
        "select finding, hint from gdpr.doctor() where topic = 'plaintext'"
    )
    assert finding.startswith("1 rows")
    assert "gdpr.broken_values('crm.customer')" in hint
    assert crm.rows(f"select row_key from {hint.split()[5]}") == [("1",)]


@pytest.mark.parametrize("user", [APP, "db_owner"])
def test_an_update_replaces_it(crm: Database, user: str) -> None:
    """By the application and by an owner who is no superuser; a searchable identifier, too."""
    if user == "db_owner":
        new = policy()
        new["roles"]["db_owner"] = {"audience": "clear", "purposes": ["orders"]}
        apply(crm, new)
    session = crm.connect(user)
    n = 0
    for column, right in (
        ("phone", "+49 711 {}"),
        ("email", "new{}@example.com"),
        ("birth_date", "1980-01-{:02}"),
    ):
        for planted in (
            "'forged'",
            f"overlay({column} placing 'AAAA' from 60)",
            "'gdpr1:'",
            "'gdpr1:' || repeat('!', 108)",
        ):
            plant(crm, f"update crm.customer set {column} = {planted} where id = 1")
            n += 1
            value = right.format(n)
            session.execute(f"update crm.customer set {column} = %s where id = 1".encode(), [value])
            assert session.execute(
                f"select {column}::text from gdpr_clear.customer where id = 1".encode()
            ).fetchone() == (value,)
            # it is on record
            assert crm.rows(
                "select operation, changed, login from gdpr.audit_log order by id desc limit 1",
                user=DPO,
            ) == [("UPDATE", [column], user)]
    assert broken(crm) == []
    assert findings(crm, severities=("error",)) == set()


def find(crm: Database, kind: str, value: str) -> int | None:
    ((person,),) = crm.rows("select gdpr.find_subject(%s, %s)", [kind, value], user=DPO)
    return person if isinstance(person, int) else None


def test_the_old_address_is_known_from_its_digest(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    plant(crm, "update crm.customer set email = 'forged', phone = 'forged' where id = 1")
    crm.rows(
        "update crm.customer set email = 'new@example.com', phone = '+49 711 7' where id = 1",
        user=APP,
    )
    assert find(crm, "email", "new@example.com") == anna
    assert find(crm, "phone", "+49 711 7") == anna
    # gdprdb cannot know the number that stood there: it stays the person's
    assert find(crm, "phone", "+49 711 1001") == anna
    crm.rows("insert into crm.customer (email, last_name) values ('x@example.com', 'X')", user=APP)
    retired = crm.rows(
        "select count(*) from gdpr_internal.identifier where subject_id = %s"
        " and retired_at is not null",
        [anna],
        user=ROOT,
    )
    # a lead of the same person still has it
    assert retired == [(1,)]
    assert findings(crm) == set()


def test_the_same_address_again(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    plant(crm, "update crm.customer set email = left(email, 60) where id = 1")
    crm.rows("update crm.customer set email = 'Anna@Example.com' where id = 1", user=APP)
    assert find(crm, "email", "anna@example.com") == anna
    assert findings(crm) == set()


def test_a_broken_value_is_no_way_past_the_blocklist(crm: Database) -> None:
    """Not with the digest of a blocked address beside it, nor with the address itself planted."""
    crm.rows("select gdpr.block('email', 'blocked@example.com', 'objected')", user=DPO)
    digest = "(select gdpr.digest('email', 'blocked@example.com'))"
    for value, beside in (
        ("'forged'", digest),
        ("'blocked@example.com'", digest),
        ("'blocked@example.com'", "gdpr_email_digest"),
        ("left(email, 60)", digest),
        ("''", "null"),
    ):
        plant(
            crm,
            f"update crm.customer set email = {value}, gdpr_email_digest = {beside} where id = 1",
        )
        with refused("23505"):
            crm.rows("update crm.customer set email = 'Blocked@example.com' where id = 1", user=APP)


def test_nor_to_somebody_elses_address(crm: Database) -> None:
    bela = subject(crm, "crm.customer", 2)
    plant(crm, "update crm.customer set email = 'forged' where id = 1")
    # unique, as ever
    with refused("23505"):
        crm.rows("update crm.customer set email = 'BELA@example.com' where id = 1", user=APP)
    # with another's digest beside it: his address stays his
    ((dora,),) = crm.rows("select gdpr_subject_id from crm.lead where id = 2", user=ROOT)
    plant(
        crm,
        "update crm.customer set gdpr_email_digest = (select gdpr.digest('email',"
        " 'dora@example.com')) where id = 1",
    )
    crm.rows("update crm.customer set email = 'mine@example.com' where id = 1", user=APP)
    assert find(crm, "email", "dora@example.com") == dora
    assert find(crm, "email", "bela@example.com") == bela


def test_who_may_not_read_may_not_replace(crm: Database) -> None:
    plant(crm, "update crm.customer set phone = 'forged' where id = 1")
    crm.rows(
        "grant update, select on crm.customer to metabase; grant usage on schema crm to metabase",
        user=ROOT,
    )
    with refused("42501"):
        crm.rows("update crm.customer set phone = '1' where id = 1", user="metabase")
    person = subject(crm, "crm.customer", 1)
    crm.rows("select gdpr.restrict(%s, 'other')", [person], user=DPO)
    crm.rows("update crm.customer set phone = '+49 711 9' where id = 1", user=APP)
    assert broken(crm) == [("1", "phone", "PR404")]


def test_a_row_goes_to_its_person_with_whole_values_only(crm: Database) -> None:
    plant(crm, "update crm.\"order\" set note = 'forged' where id = 1", 'crm."order"')
    with refused("PR404", "tampered"):
        crm.rows('update crm."order" set customer_id = 2 where id = 1', user=APP)
    crm.rows('update crm."order" set total = 11 where id = 1', user=APP)
    # nor does the change that moves it away replace what it says
    crm.rows("update crm.\"order\" set note = 'right' where id = 1", user=APP)
    crm.rows('update crm."order" set customer_id = 2 where id = 1', user=APP)
    assert crm.rows('select note from gdpr_clear."order" where id = 1', user=APP) == [("right",)]


def test_a_broken_row_is_deleted_and_its_person_forgotten(crm: Database) -> None:
    plant(crm, "update crm.lead set email = 'forged' where id = 2", "crm.lead")
    crm.rows("delete from crm.lead where id = 2", user=APP)
    plant(crm, "update crm.customer set email = 'forged', phone = '' where id = 2")
    crm.rows("select gdpr.erase(%s)", [subject(crm, "crm.customer", 2)], user=DPO)
    assert crm.rows("select gdpr.is_blocked('email', 'bela@example.com')", user=DPO) == [(True,)]
    assert json.dumps(broken(crm)) == "[]"


TWO = """
create table public.person (
  id integer primary key, home text, mobile text, low text, high text, check (low < high)
);
insert into public.person values (1, '+49 711 1', '+49 711 2', 'a', 'b'),
  (2, '+49 711 3', '+49 711 3', 'a', 'b');
grant all on public.person to crm_app;
"""


@pytest.mark.parametrize("encrypt", [True, "searchable"])
def test_a_value_beside_a_broken_one_is_replaced(db: Database, encrypt: bool | str) -> None:
    """Numbers of one person in two columns, and two columns in one constraint."""
    db.connect().execute(TWO.encode())
    number = {"category": "contact", "identifier": "phone", "encrypt": encrypt}
    other = {"category": "other", "encrypt": True}
    new = one_table(
        "public.person", columns={"home": number, "mobile": number, "low": other, "high": other}
    )
    new["settings"] = {"phone_country_code": "49"}
    apply(db, new)
    db.rows(
        "update public.person set home = '+49 711 4', mobile = '+49 711 5' where id = 1", user=APP
    )
    plant(db, "update public.person set mobile = 'forged', high = 'forged'", "public.person")
    for statement in (
        "update public.person set home = '+49 711 6' where id = 1",
        "update public.person set home = '+49 711 7', mobile = '+49 711 8' where id = 2",
        "update public.person set high = 'c'",
        "update public.person set mobile = '+49 711 9' where id = 1",
    ):
        db.rows(statement, user=APP)
    assert db.rows("select * from gdpr_clear.person order by id", user=APP)[0][:5] == (
        1,
        "+49 711 6",
        "+49 711 9",
        "a",
        "c",
    )
    assert db.rows("select * from gdpr_clear.person order by id", user=APP)[1][:5] == (
        2,
        "+49 711 7",
        "+49 711 8",
        "a",
        "c",
    )
    with refused("23514"):
        db.rows("update public.person set high = 'A' where id = 1", user=APP)
    # one that stands beside a broken one in a constraint waits for it
    plant(db, "update public.person set high = 'forged' where id = 1", "public.person")
    with refused("PR404", "tampered"):
        db.rows("update public.person set low = 'b' where id = 1", user=APP)
    db.rows("update public.person set low = 'b', high = 'c' where id = 1", user=APP)
    assert broken(db, "public.person") == []
