"""Station 10: whose row it is, where it came from, and who may not come back."""

from __future__ import annotations

from typing import Any, cast

import psycopg
import pytest

from tests.capabilities.crm import (
    POLICY,
    apply,
    one_table,
    original,
    plan,
    policy,
    refused,
    subject,
)
from tests.support import Database, waiting

INSERT = "insert into gdpr_clear.customer (email, last_name) values (%s, 'N') returning id"


# ---------------------------------------------------------------- persons


def test_every_row_has_a_person_and_persons_have_no_name(crm: Database) -> None:
    assert crm.rows(
        "select count(*), count(distinct gdpr_subject_id) from crm.customer", user="postgres"
    ) == [(3, 3)]
    columns = crm.rows(
        "select attname from pg_attribute where attrelid ="
        " 'gdpr_internal.subject'::regclass and attnum > 0",
        user="postgres",
    )
    assert {name for (name,) in columns} == {
        "id",
        "ref",
        "purposes",
        "until",
        "created_at",
        "erased_at",
    }


def test_one_person_across_tables(crm: Database) -> None:
    """The lead that wrote her address in capitals is the customer; the other lead is somebody
    else."""
    assert subject(crm, "crm.lead", 1) == subject(crm, "crm.customer", 1)
    assert subject(crm, "crm.lead", 2) not in {
        subject(crm, "crm.customer", key) for key in (1, 2, 3)
    }


def test_children_belong_to_the_person_of_their_parent(crm: Database) -> None:
    anna = subject(crm, "crm.customer", 1)
    assert subject(crm, 'crm."order"', 1) == subject(crm, 'crm."order"', 2) == anna
    assert subject(crm, "crm.order_line", '["1", "1"]') == anna
    app = crm.connect("crm_app")
    app.execute("insert into gdpr_clear.\"order\" (id, customer_id, note) values (50, 2, 'new')")
    app.execute("insert into gdpr_clear.order_line values (50, 1, 'for B')")
    assert subject(crm, "crm.order_line", '["50", "1"]') == subject(crm, "crm.customer", 2)


def test_a_child_moves_to_another_parent_and_its_values_with_it(crm: Database) -> None:
    app = crm.connect("crm_app")
    app.execute('update gdpr_clear."order" set customer_id = 3 where id = 1')
    assert subject(crm, 'crm."order"', 1) == subject(crm, "crm.customer", 3)
    assert app.execute('select note from gdpr_clear."order" where id = 1').fetchone() == (
        "gift for Ada",
    )
    # the children of the child go where it goes
    assert subject(crm, "crm.order_line", '["1", "1"]') == subject(crm, "crm.customer", 3)
    assert app.execute(
        "select engraving from gdpr_clear.order_line where order_id = 1"
    ).fetchone() == ("Forever, Ada",)
    crm.rows("select gdpr.erase(%s)", [subject(crm, "crm.customer", 1)], user="dpo_login")
    assert app.execute(
        "select engraving from gdpr_clear.order_line where order_id = 1"
    ).fetchone() == ("Forever, Ada",)


def test_an_orphan_is_a_person_of_its_own(crm: Database) -> None:
    app = crm.connect("crm_app")
    app.execute("insert into gdpr_clear.\"order\" (id, note) values (60, 'walk-in')")
    alone = subject(crm, 'crm."order"', 60)
    assert alone not in {subject(crm, "crm.customer", key) for key in (1, 2, 3)}
    app.execute('update gdpr_clear."order" set customer_id = null where id = 1')
    assert subject(crm, 'crm."order"', 1) == subject(crm, "crm.customer", 1)


def test_a_child_of_nobody_is_refused(crm: Database) -> None:
    with refused("PR102", "not_yet_linked"):
        crm.rows(
            "insert into gdpr_clear.\"order\" (customer_id, note) values (99, 'x')", user="crm_app"
        )
    with refused("PR102", "not_yet_linked"):
        crm.rows('update gdpr_clear."order" set customer_id = 99 where id = 1', user="crm_app")


def test_foreign_keys_of_several_columns(db: Database) -> None:
    owner = db.connect()
    owner.execute("""
        create table public.person (tenant integer, n integer, name text, primary key (tenant, n));
        create table public.visit (id integer primary key, n integer, tenant integer, place text,
          foreign key (tenant, n) references public.person (tenant, n));
        insert into public.person values (1, 1, 'A'), (1, 2, 'B'), (2, 1, 'C');
        insert into public.visit values (1, 1, 2, 'Cologne'), (2, 2, 1, 'Bremen'), (3, null, 1,
          'nowhere');
        grant all on public.person, public.visit to crm_app;
    """)
    new = one_table("public.person", columns={"name": {"encrypt": True}})
    new["tables"]["public.visit"] = {
        "subject": {"via": ["tenant", "n"]},
        "purposes": ["orders"],
        "columns": {"place": {"encrypt": True}},
    }
    apply(db, new)
    assert plan(db, new) == []
    assert subject(db, "public.visit", 1) == subject(db, "public.person", '["2", "1"]')
    assert subject(db, "public.visit", 2) == subject(db, "public.person", '["1", "2"]')
    db.rows("update gdpr_clear.visit set tenant = 2, n = 1 where id = 2", user="crm_app")
    assert subject(db, "public.visit", 2) == subject(db, "public.person", '["2", "1"]')
    assert db.rows("select place from gdpr_clear.visit order by id", user="crm_app") == [
        ("Cologne",),
        ("Bremen",),
        ("nowhere",),
    ]


def test_subject_of_says_what_is_wrong_with_the_question(crm: Database) -> None:
    def ask(table: str, key: str | None) -> Any:
        return crm.rows(
            "select gdpr.subject_of(%s::text::regclass, %s)", [table, key], user="dpo_login"
        )[0][0]

    assert ask("crm.customer", "99") is None
    assert ask("crm.customer", None) is None
    with refused("PR004", "invalid_argument"):
        ask("crm.customer", "anna")
    with refused("PR004", "invalid_argument"):
        ask("crm.order_line", "one")
    with refused("PR002", "not_protected"):
        ask("pg_class", "1")


# ---------------------------------------------------------------- identifiers


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("email", "anna@example.com", "  ANNA@Example.COM "),
        ("email", "straße@example.com", "STRASSE@example.com"),
        ("email", "x@bücher.de", "X@xn--bcher-kva.de"),
        ("email", "x@bücher.de", "x@BU\u0308CHER.de"),
        ("email", "anna@example.com", "an\u200dna@exam\u00adple.com"),
        (
            "email",
            "anna@example.com",
            "\uff41\uff4e\uff4e\uff41\uff20\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45\uff0e\uff43\uff4f\uff4d",
        ),
        ("email", "x@example.com", "x@example.com."),
        ("email", "日本@例え.jp", "日本@例え。jp"),
        ("email", "ﬁne@example.com", "fine@example.com"),
        ("email", "ςίγμα@example.gr", "ΣΊΓΜΑ@EXAMPLE.gr"),
        ("phone", "+49 711 123-456", "0711/123456"),
        ("phone", "+49 711 123456", "0049 (711) 123456"),
        ("phone", "+49 (0)711 123456", "+49711123456"),
        (
            "phone",
            "+49 711 123456",
            "\uff0b\uff14\uff19 \uff17\uff11\uff11 \uff11\uff12\uff13\uff14\uff15\uff16",
        ),
        ("phone", "+81 3 1003", "٠٠٨١٣١٠٠٣"),
        ("text", " Müller ", "MÜLLER"),
        ("text", "İstanbul", "i̇stanbul"),
    ],
)
def test_two_spellings_of_one_identifier(crm: Database, kind: str, one: str, other: str) -> None:
    first, second = crm.rows(
        "select gdpr.digest(%s, %s), gdpr.digest(%s, %s)", [kind, one, kind, other], user="crm_app"
    )[0]
    assert first == second is not None


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("email", "anna@example.com", "anna+shop@example.com"),
        ("email", "anna@example.com", "ana@example.com"),
        ("email", "a@b@example.com", "a@example.com"),
        ("phone", "+49 711 123456", "+43 711 123456"),
        ("text", "Müller", "Mueller"),
        ("exact", "Anna", "anna"),
    ],
)
def test_two_identifiers_that_are_not_one(crm: Database, kind: str, one: str, other: str) -> None:
    first, second = crm.rows(
        "select gdpr.digest(%s, %s), gdpr.digest(%s, %s)", [kind, one, kind, other], user="crm_app"
    )[0]
    assert first != second


def test_kinds_share_no_digests_and_a_value_without_content_has_one(crm: Database) -> None:
    row = crm.rows(
        "select gdpr.digest('email', 'x'), gdpr.digest('text', 'x'),"
        " gdpr.digest('email', ' \u200b'), gdpr.digest('phone', ''),"
        " gdpr.digest('email', ''), gdpr.digest('email', null)",
        user="crm_app",
    )[0]
    assert len(set(row[:4])) == 4
    assert row[4] == row[2]
    assert row[5] is None
    with refused("PR004", "invalid_argument"):
        crm.rows("select gdpr.find_subject('email', ' ')", user="dpo_login")


def test_an_unknown_kind_of_identifier_is_refused(crm: Database) -> None:
    """A misspelt kind would find nobody and block nothing, without a word."""
    for call in (
        "gdpr.digest('e-mail', 'x@example.com')",
        "gdpr.find_subject('e-mail', 'anna@example.com')",
        "gdpr.is_blocked('mail', 'anna@example.com')",
        "gdpr.block('mail', 'anna@example.com', 'asked')",
    ):
        with refused("PR004", "invalid_argument"):
            crm.rows(f"select {call}", user="dpo_login")


def test_uniqueness_follows_the_digest(crm: Database) -> None:
    """Stricter than before: spellings of one address count as one. The message tells no value."""
    with refused("23505") as error:
        crm.rows(INSERT, ["Anna@Example.com"], user="crm_app")
    assert error.value.diag.constraint_name == "customer_email_key"
    assert "example" not in str(error.value).lower()
    with refused("23505") as error:
        crm.rows(
            "update gdpr_clear.customer set email = 'BELA@example.com' where id = 1", user="crm_app"
        )
    assert "example" not in str(error.value).lower()
    assert crm.rows(INSERT, ["anna+shop@example.com"], user="crm_app")


def test_an_identifier_changes_hands(crm: Database) -> None:
    """Anna gives up her address; the next owner of it is not Anna."""
    anna = subject(crm, "crm.customer", 1)
    app = crm.connect("crm_app")
    app.execute("update gdpr_clear.customer set email = 'anna@new.example' where id = 1")
    find = "select gdpr.find_subject('email', %s)"
    assert crm.rows(find, ["ANNA@new.example"], user="dpo_login") == [(anna,)]
    assert crm.rows(find, ["anna@example.com"], user="dpo_login") == [(None,)]
    (number,) = app.execute(INSERT, ["anna@example.com"]).fetchone() or (None,)
    other = subject(crm, "crm.customer", number)
    assert other != anna
    assert crm.rows(find, ["anna@example.com"], user="dpo_login") == [(other,)]
    app.execute("update gdpr_clear.customer set email = 'x@example.com' where id = %s", [number])
    app.execute("update gdpr_clear.customer set email = 'anna@example.com' where id = 1")
    assert crm.rows(find, ["anna@example.com"], user="dpo_login") == [(anna,)]


@pytest.mark.parametrize("encrypt", [False, True, "searchable"])
def test_one_number_in_two_columns_stays_the_persons_while_one_has_it(
    db: Database, encrypt: bool | str
) -> None:
    """A telephone changes that was the fax, too: the number is not free for somebody else."""
    owner = db.connect()
    owner.execute("""
        create table public.person (id integer primary key, phone text, fax text);
        insert into public.person values (1, '+4930123', '+4930123');
        grant all on public.person to crm_app;
    """)
    column = {"encrypt": encrypt, "identifier": "phone"}
    apply(db, one_table("public.person", columns={"phone": column, "fax": column}))
    person = subject(db, "public.person", 1)
    app = db.connect("crm_app")
    find = "select gdpr.find_subject('phone', %s)"

    def holder(number: str) -> int | None:
        ((found,),) = db.rows(find, [number], user="dpo_login")
        return cast("int | None", found)

    app.execute("update gdpr_clear.person set phone = '030 / 999' where id = 1")
    assert holder("+4930123") == person
    app.execute("update gdpr_clear.person set phone = fax, fax = phone where id = 1")
    assert holder("+4930123") == person
    app.execute("insert into gdpr_clear.person values (2, '+49 30 123', null)")
    assert holder("+4930123") == person != subject(db, "public.person", 2)
    app.execute("delete from gdpr_clear.person where id = 2")
    # neither column has it any more
    app.execute("update gdpr_clear.person set phone = '+4930777', fax = '+4930777' where id = 1")
    assert (holder("+4930123"), holder("+4930777")) == (None, person)
    app.execute("insert into gdpr_clear.person values (3, '+49 30 123', null)")
    assert holder("+4930123") == subject(db, "public.person", 3)


@pytest.mark.parametrize("encrypt", [False, True, "searchable"])
def test_a_column_becomes_an_identifier_later(db: Database, encrypt: bool | str) -> None:
    """Persons who are there are known by it at once, and who is blocked by it is met."""
    owner = db.connect()
    owner.execute("""
        create table public.person (id integer primary key, phone text, name text);
        insert into public.person values (1, '+4930123', 'A'), (2, '+4930124', 'B');
        grant all on public.person to crm_app;
    """)
    name = {"encrypt": True}
    apply(db, one_table("public.person", columns={"name": name, "phone": {"encrypt": encrypt}}))
    known = {"encrypt": encrypt, "identifier": "phone"}
    wanted = one_table("public.person", columns={"name": name, "phone": known})
    wanted["tables"]["public.person"]["blocklist"] = "refuse"
    db.rows("select gdpr.block('phone', '+49 30 124', 'asked')", user="dpo_login")
    with refused("PR103", "blocked_rows"):
        apply(db, wanted)
    db.rows("select gdpr.unblock('phone', '+49 30 124', 'mistaken')", user="dpo_login")
    apply(db, wanted)
    for number, key in (("+49 30 123", 1), ("+4930124", 2)):
        assert db.rows("select gdpr.find_subject('phone', %s)", [number], user="dpo_login") == [
            (subject(db, "public.person", key),)
        ]


def test_an_identifier_is_taken_away(crm: Database) -> None:
    app = crm.connect("crm_app")
    app.execute("update gdpr_clear.customer set phone = null where id = 1")
    assert crm.rows("select gdpr.find_subject('phone', '+49 711 1001')", user="dpo_login") == [
        (None,)
    ]
    assert app.execute("select phone from gdpr_clear.customer where id = 1").fetchone() == (None,)


def test_the_second_identifier_does_not_match_persons(crm: Database) -> None:
    """A household shares a telephone; only match_on makes two rows one person."""
    (number,) = crm.rows(
        "insert into gdpr_clear.customer (email, last_name, phone) values"
        " ('z@example.com', 'Z', '+49 711 1001') returning id",
        user="crm_app",
    )[0]
    assert subject(crm, "crm.customer", number) != subject(crm, "crm.customer", 1)
    assert crm.rows("select gdpr.find_subject('phone', '+49 711 1001')", user="dpo_login") == [
        (subject(crm, "crm.customer", 1),)
    ]


def test_officers_find_persons_and_applications_do_not(crm: Database) -> None:
    for user in ("crm_app", "metabase", "portal_app", "auditor_login"):
        for call in (
            "gdpr.find_subject('email', 'anna@example.com')",
            "gdpr.is_blocked('email', 'x@example.com')",
            "gdpr.block('email', 'x@example.com', 'r')",
            "gdpr.unblock('email', 'x@example.com', 'r')",
            "gdpr.erase(1)",
        ):
            with refused("42501"):
                crm.rows(f"select {call}", user=user)


# ---------------------------------------------------------------- sources


def test_each_new_row_has_its_source(crm: Database) -> None:
    assert crm.rows("select distinct kind from gdpr.source", user="dpo_login") == [
        ("before_gdprdb",)
    ]
    app = crm.connect("crm_app", autocommit=False)
    app.execute(
        """select gdpr.set_context('jo@desk', 'orders', '{"kind": "web_form", "form":
        "newsletter", "ip": "192.0.2.7"}')"""
    )
    (number,) = app.execute(INSERT, ["e@example.com"]).fetchone() or (None,)
    app.commit()
    app.execute('insert into gdpr_clear."order" (customer_id) values (%s)', [number])
    app.commit()
    person = subject(crm, "crm.customer", number)
    question = (
        "select table_name::text, kind, details, actor from gdpr.source where"
        " subject_id = %s order by id"
    )
    assert crm.rows(question, [person], user="dpo_login") == [
        ("crm.customer", "web_form", {"form": "newsletter", "ip": "192.0.2.7"}, "jo@desk"),
        ('crm."order"', "unspecified", None, None),
    ]
    assert [row[2] for row in crm.rows(question, [person], user="auditor_login")] == [None, None]
    stored = crm.rows(
        "select string_agg(s::text, '') from gdpr_internal.source s", user="postgres"
    )[0][0]
    assert "192.0.2.7" not in stored
    for user in ("crm_app", "metabase"):
        with refused("42501"):
            crm.rows("select * from gdpr.source", user=user)


@pytest.mark.parametrize(
    "claim", ["not json", '"api"', "[1]", "{}", '{"kind": "rumour"}', '{"kind": 7}', "null"]
)
def test_a_source_that_is_none_is_refused_as_such(crm: Database, claim: str) -> None:
    """The setting is free text, and the application's mistake must not become a riddle."""
    app = crm.connect("crm_app")
    app.execute("select set_config('gdpr.source', %s, false)", [claim])
    with refused("PR004", "invalid_argument"):
        app.execute(INSERT, ["f@example.com"])


# ---------------------------------------------------------------- blocklist


def test_a_blocked_address_stays_out(crm: Database) -> None:
    crm.rows(
        "select gdpr.block('email', 'troll@example.com', 'asked never to be written to')",
        user="dpo_login",
    )
    app = crm.connect("crm_app")
    for spelling in (
        "troll@example.com",
        "TROLL@EXAMPLE.com",
        "troll+tag@example.com",
        "tr\u200boll@example.com",
    ):
        with refused("23505"):
            app.execute(INSERT, [spelling])
        with refused("23505"):
            app.execute("update gdpr_clear.customer set email = %s where id = 1", [spelling])
        with refused("23505"):
            app.execute("insert into crm.customer (email, last_name) values (%s, 'N')", [spelling])
    assert crm.rows("select gdpr.is_blocked('email', 'Troll+x@example.com')", user="dpo_login") == [
        (True,)
    ]
    assert crm.rows("select kind, reason from gdpr.blocklist", user="dpo_login") == [
        ("email", "asked never to be written to")
    ]
    assert crm.rows(
        "select gdpr.unblock('email', 'troll@example.com', 'came back')", user="dpo_login"
    ) == [(True,)]
    assert crm.rows(
        "select gdpr.unblock('email', 'troll@example.com', 'again')", user="dpo_login"
    ) == [(False,)]
    assert app.execute(INSERT, ["troll@example.com"]).fetchone()


def test_blocked_and_duplicate_look_the_same(crm: Database) -> None:
    crm.rows("select gdpr.block('email', 'gone@example.com', 'x')", user="dpo_login")
    seen = []
    for address in ("gone@example.com", "anna@example.com"):
        with refused("23505") as error:
            crm.rows(INSERT, [address], user="crm_app")
        diag = error.value.diag
        seen.append((diag.message_primary, diag.constraint_name, diag.message_hint))
        assert diag.message_detail is None or "(" not in diag.message_detail
    assert seen[0] == seen[1]


def test_a_blocked_phone_is_refused_with_a_name_of_its_own(crm: Database) -> None:
    """The column is not unique: there is no duplicate to hide behind."""
    crm.rows("select gdpr.block('phone', '+49 30 5', 'x')", user="dpo_login")
    with refused("23505"):
        crm.rows(
            "insert into gdpr_clear.customer (email, last_name, phone) values"
            " ('p@example.com', 'P', '030 5')",
            user="crm_app",
        )
    with refused("23505"):
        crm.rows("update gdpr_clear.customer set phone = '030 5' where id = 1", user="crm_app")


def test_blocklist_warns_where_the_policy_says_so(crm: Database) -> None:
    apply(crm, policy(**{"tables__crm.customer__blocklist": "warn"}))
    crm.rows("select gdpr.block('email', 'troll@example.com', 'x')", user="dpo_login")
    app = crm.connect("crm_app")
    notices: list[tuple[str | None, str | None, str | None]] = []
    app.add_notice_handler(
        lambda diag: notices.append((diag.severity, diag.message_primary, diag.constraint_name))
    )
    (number,) = app.execute(INSERT, ["Troll+1@example.com"]).fetchone() or (None,)
    assert notices == [("WARNING", "duplicate or blocked identifier", "gdpr_blocked_identifier")]
    app.execute(
        "update gdpr_clear.customer set email = 'troll@example.com' where id = %s", [number]
    )
    assert len(notices) == 2
    assert app.execute(
        "select email from gdpr_clear.customer where id = %s", [number]
    ).fetchone() == ("troll@example.com",)
    assert crm.rows("select gdpr.is_blocked('email', 'troll@example.com')", user="dpo_login") == [
        (True,)
    ]


def test_block_is_refused_for_a_person_who_is_here(crm: Database) -> None:
    with refused("PR004", "invalid_argument"):
        crm.rows("select gdpr.block('email', 'anna@example.com', 'x')", user="dpo_login")
    with refused("PR004", "invalid_argument"):
        crm.rows("select gdpr.block('email', ' ', 'x')", user="dpo_login")


def test_a_blocked_address_in_old_rows_stops_apply_with_the_reason(crm: Database) -> None:
    """The rows were there before the protection: nothing changes until the officer or the owner
    decides."""
    crm.rows("select gdpr.unprotect('crm.lead')")
    crm.rows("insert into crm.lead (id, email) values (9, 'troll@example.com')")
    crm.rows("select gdpr.block('email', 'troll@example.com', 'x')", user="dpo_login")
    before = original(crm, "crm")
    with refused("PR103", "blocked_rows") as error:
        apply(crm, POLICY)
    assert "troll" not in str(error.value)
    assert original(crm, "crm") == before
    crm.rows("delete from crm.lead where id = 9")
    assert apply(crm, POLICY)


# ---------------------------------------------------------------- two at once


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("first_commits", [True, False])
def test_two_sessions_bring_one_person(crm: Database, isolation: str, first_commits: bool) -> None:
    one, two = (crm.connect("crm_app", autocommit=False) for _ in range(2))
    insert = "insert into gdpr_clear.customer (email, last_name) values (%s, %s)"
    for session in (one, two):
        session.execute(f"set transaction isolation level {isolation}".encode())
        session.execute("select count(*) from crm.customer")
    one.execute(insert, ["twin@example.com", "One"])
    end = waiting(two, lambda: two.execute(insert, ["TWIN@example.com", "Two"]))
    if first_commits:
        one.commit()
    else:
        one.rollback()
    error = end()
    assert isinstance(error, psycopg.Error) == first_commits
    if isinstance(error, psycopg.Error):
        assert error.sqlstate in ("23505", "40001")
        two.rollback()
    else:
        two.commit()
    names = crm.rows(
        "select last_name from gdpr_clear.customer where email = lower(email) or true",
        user="crm_app",
    )
    assert sum(name in ("One", "Two") for (name,) in names) == 1
    assert crm.rows(
        "select count(*) from gdpr_internal.identifier where subject_id not in"
        " (select id from gdpr_internal.subject)",
        user="postgres",
    ) == [(0,)]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_two_rows_of_one_new_person_at_once(db: Database, isolation: str) -> None:
    """Without UNIQUE: two rows, one person, whoever was first."""
    db.connect().execute(
        "create table public.lead (id integer primary key, email text); grant all"
        " on public.lead to crm_app"
    )
    apply(
        db,
        one_table(
            "public.lead",
            match_on=["email"],
            columns={"email": {"identifier": "email", "encrypt": True}},
        ),
    )
    one, two = (db.connect("crm_app", autocommit=False) for _ in range(2))
    for session in (one, two):
        session.execute(f"set transaction isolation level {isolation}".encode())
        session.execute("select count(*) from public.lead")
    one.execute("insert into gdpr_clear.lead values (1, 'twin@example.com')")
    end = waiting(
        two, lambda: two.execute("insert into gdpr_clear.lead values (2, 'Twin@example.com')")
    )
    one.commit()
    error = end()
    if isinstance(error, psycopg.Error):
        assert (isolation, error.sqlstate) == ("repeatable read", "40001")
        two.rollback()
        two.execute("insert into gdpr_clear.lead values (2, 'Twin@example.com')")
    two.commit()
    assert subject(db, "public.lead", 1) == subject(db, "public.lead", 2)
    assert db.rows("select count(*) from gdpr.subject", user="dpo_login") == [(1,)]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_block_against_insert(crm: Database, isolation: str) -> None:
    """The officer blocks an address while somebody signs up with it: blocked, or there; never
    both."""
    officer = crm.connect("dpo_login", autocommit=False)
    app = crm.connect("crm_app", autocommit=False)
    app.execute(f"set transaction isolation level {isolation}".encode())
    app.execute("select count(*) from crm.customer")
    officer.execute("select gdpr.block('email', 'ghost@example.com', 'x')")
    end = waiting(app, lambda: app.execute(INSERT, ["Ghost@example.com"]))
    officer.commit()
    error = end()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate in ("23505", "40001")


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
@pytest.mark.parametrize("address", ["bela@example.com", "tag@example.com", "tag+1@example.com"])
def test_insert_while_the_person_is_erased(crm: Database, isolation: str, address: str) -> None:
    crm.rows(
        "update gdpr_clear.customer set email = 'tag+1@example.com' where id = 3", user="crm_app"
    )
    victim = subject(crm, "crm.customer", 2 if address.startswith("bela") else 3)
    officer = crm.connect("dpo_login", autocommit=False)
    app = crm.connect("crm_app", autocommit=False)
    app.execute(f"set transaction isolation level {isolation}".encode())
    app.execute("select count(*) from crm.customer")
    officer.execute("select gdpr.erase(%s)", [victim])
    end = waiting(app, lambda: app.execute(INSERT, [address]))
    officer.commit()
    error = end()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate in ("23505", "40001")
    app.rollback()
    assert crm.rows("select count(*) from crm.customer", user="postgres") == [(2,)]


def test_erase_waits_for_rows_on_their_way(crm: Database) -> None:
    """An order that was being written when the erasure began is erased too."""
    bela = subject(crm, "crm.customer", 2)
    app = crm.connect("crm_app", autocommit=False)
    app.execute("insert into gdpr_clear.\"order\" (id, customer_id, note) values (70, 2, 'late')")
    officer = crm.connect("dpo_login", autocommit=False)
    end = waiting(officer, lambda: officer.execute("select gdpr.erase(%s)", [bela]))
    app.commit()
    assert end() is None
    officer.commit()
    assert crm.rows('select count(*) from crm."order" where id in (3, 70)', user="postgres") == [
        (0,)
    ]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_child_inserted_while_the_person_is_erased(crm: Database, isolation: str) -> None:
    bela = subject(crm, "crm.customer", 2)
    officer = crm.connect("dpo_login", autocommit=False)
    app = crm.connect("crm_app", autocommit=False)
    app.execute(f"set transaction isolation level {isolation}".encode())
    app.execute("select count(*) from crm.customer")
    officer.execute("select gdpr.erase(%s)", [bela])
    end = waiting(
        app,
        lambda: app.execute(
            "insert into gdpr_clear.\"order\" (customer_id, note) values (2, 'late')"
        ),
    )
    officer.commit()
    error = end()
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate in ("PR603", "PR102", "40001")
    app.rollback()
    assert crm.rows(
        "select count(*) from gdpr_internal.subject_key where subject_id = %s",
        [bela],
        user="postgres",
    ) == [(0,)]
