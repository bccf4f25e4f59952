"""Station 10: who was erased does not come back, in whatever spelling and by whatever door."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import apply, policy, problems, refused, subject
from tests.support import Clone, Database

DOCS = Path(__file__).parents[2] / "docs" / "blocklist.md"

ERASED = "Jörg.Müller+shop@Example.com"

#: As which the erased comes back; the domain has letters of its own in `DOMAINS`.
SPELLINGS = {
    "without the tag": "JÖRG.MÜLLER@example.com",
    "decomposed": "Jo\u0308rg.Mu\u0308ller@example.com",
    "full width": "\uff2a\u00f6rg.M\u00fcller@example.com",
    "zero-width joiner": "j\u00f6rg\u200d.m\u00fcller@example.com",
    "another tag": "jörg.müller+news@example.com",
    "as it was": ERASED,
}

Door = Callable[[psycopg.Connection, str], object]


def copy(app: psycopg.Connection, address: str) -> None:
    """COPY a customer into the clear view."""
    with (
        app.cursor() as cursor,
        cursor.copy("copy gdpr_clear.customer (email, last_name) from stdin") as rows,
    ):
        rows.write_row((address, "Müller"))


DOORS: dict[str, Door] = {
    "insert": lambda app, address: app.execute(
        "insert into crm.customer (email, last_name) values (%s, 'Müller')", [address]
    ),
    "insert into the view": lambda app, address: app.execute(
        "insert into gdpr_clear.customer (email, last_name) values (%s, 'Müller')", [address]
    ),
    "copy": copy,
    "update": lambda app, address: app.execute(
        "update crm.customer set email = %s where last_name = 'Bartok'", [address]
    ),
    "merge": lambda app, address: app.execute(
        "merge into crm.customer c using (select %s as email) s on c.last_name = 'nobody'"
        " when not matched then insert (email, last_name) values (s.email, 'Müller')",
        [address],
    ),
    "merge of a change": lambda app, address: app.execute(
        "merge into crm.customer c using (select %s as email) s on c.last_name = 'Bartok'"
        " when matched then update set email = s.email",
        [address],
    ),
    "upsert": lambda app, address: app.execute(
        "insert into crm.customer (email, last_name) values (%s, 'Müller')"
        " on conflict (gdpr_email_digest) do update set last_name = excluded.last_name",
        [address],
    ),
    "upsert that does nothing": lambda app, address: app.execute(
        "insert into crm.customer (email, last_name) values (%s, 'Müller') on conflict do nothing",
        [address],
    ),
}


@pytest.fixture(scope="module")
def erased_template(clone: Clone, crm_template: str) -> Iterator[str]:
    """Name of a database from which Jörg Müller, and one of a domain with letters, were erased."""
    with clone(crm_template) as database:
        app = database.connect("crm_app")
        for address in (ERASED, "jörg@bücher.example"):
            app.execute(
                "insert into crm.customer (email, last_name) values (%s, 'Müller')", [address]
            )
        dpo = database.connect("dpo_login")
        dpo.execute(
            "select gdpr.erase(subject_id) from (select gdpr.find_subject('email', v) as subject_id"
            " from unnest(%s::text[]) as v) as s",
            [[ERASED, "jörg@bücher.example"]],
        )
        database.close()
        yield database.name


@pytest.fixture(scope="module")
def erased(clone: Clone, erased_template: str) -> Iterator[Database]:
    """A copy of it that the tests of refusals share: nothing of theirs stays."""
    with clone(erased_template) as database:
        yield database


@pytest.mark.parametrize("door", DOORS)
def test_the_erased_do_not_come_back(erased: Database, door: str) -> None:
    app = erased.connect("crm_app")
    rows = erased.rows("select count(*) from crm.customer", user="postgres")
    for name, address in {**SPELLINGS, "idna": "JÖRG@xn--bcher-kva.example"}.items():
        with pytest.raises(psycopg.Error) as error:
            DOORS[door](app, address)
        assert error.value.sqlstate == "23505", name
        assert error.value.diag.constraint_name == "customer_email_key"
        told = f"{error.value.diag.message_primary} {error.value.diag.message_detail}"
        assert "rg" not in told.casefold()
    assert erased.rows("select count(*) from crm.customer", user="postgres") == rows


@pytest.mark.parametrize("door", DOORS)
def test_somebody_else_comes_in(clone: Clone, erased_template: str, door: str) -> None:
    with clone(erased_template) as database:
        app = database.connect("crm_app")
        DOORS[door](app, "jorg.muller@example.com")
        assert app.execute(
            "select count(*) from gdpr_clear.customer where email = 'jorg.muller@example.com'"
        ).fetchone() == (1,)


def examples() -> list[tuple[str, str, str, bool, bool]]:
    """The rows of the published table."""
    row = re.compile(
        r"^\| (email|phone|text) \| `([^`]+)` \| `([^`]+)`[^|]*\| (yes|no) \| (yes|no) \|$",
        re.MULTILINE,
    )

    def plain(text: str) -> str:
        return re.sub(r"\\u(....)", lambda point: chr(int(point[1], 16)), text)

    return [
        (kind, plain(one), plain(other), same == "yes", blocked == "yes")
        for kind, one, other, same, blocked in row.findall(DOCS.read_text(encoding="utf-8"))
    ]


def test_the_published_examples(crm: Database) -> None:
    rows = examples()
    assert len(rows) == DOCS.read_text(encoding="utf-8").count("\n| ") - 1
    assert {same for *_, same, _ in rows} == {blocked for *_, blocked in rows} == {True, False}
    forms = (
        "select gdpr_internal.canonical(%(k)s, %(v)s),"
        " gdpr_internal.bare_form(%(k)s, gdpr_internal.canonical(%(k)s, %(v)s))"
    )
    for kind, one, other, same, blocked in rows:
        ((canonical, bare),) = crm.rows(forms, {"k": kind, "v": one}, user="postgres")
        ((again, mailbox),) = crm.rows(forms, {"k": kind, "v": other}, user="postgres")
        assert (canonical == again) is same, (one, other)
        assert (bare == mailbox) is blocked, (one, other)


GMAIL = {
    "gmail.com": {"ignore_dots": True},
    "googlemail.com": {"same_as": "gmail.com"},
    "minus.example": {"tag": "-"},
    "none.example": {"tag": ""},
}


def test_rules_of_a_domain(crm: Database) -> None:
    apply(crm, policy(settings__addresses=GMAIL))
    app = crm.connect("crm_app")
    insert = "insert into crm.customer (email, last_name) values (%s, 'x')"
    for address in ("j.o.e+a@gmail.com", "joe-a@minus.example", "joe+a@none.example"):
        app.execute(insert, [address])
        crm.rows("select gdpr.erase(gdpr.find_subject('email', %s))", [address], user="dpo_login")
    for blocked in (
        "joe@gmail.com",
        "jo.e+b@googlemail.com",
        "JOE-B@minus.example",
        "joe@minus.example",
        "joe+a@none.example",
    ):
        with refused("23505"):
            app.execute(insert, [blocked])
    for other in (
        "jo@gmail.com",
        "j.oe@gmail.example",
        "joe+a@minus.example",
        "joe+b@none.example",
        "joe@none.example",
    ):
        app.execute(insert, [other])
    # matching and uniqueness keep the address as it is
    app.execute(insert, ["m.a.x@gmail.com"])
    app.execute(insert, ["max@gmail.com"])
    apply(crm, policy())
    app.execute(insert, ["j.oe@gmail.com"])


@pytest.mark.parametrize(
    "wrong",
    [
        "gmail.com",
        {"gmail": {}},
        {"Gmail.com": {}},
        {"a@gmail.com": {}},
        {"gmail.com": {"tag": "++"}},
        {"gmail.com": {"tag": "'"}},
        {"gmail.com": {"ignore_dots": "yes"}},
        {"gmail.com": {"dots": False}},
        {"gmail.com": {"same_as": "googlemail.com"}},
        {"gmail.com": {"same_as": "gmail.com"}},
    ],
)
def test_rules_that_the_policy_refuses(crm: Database, wrong: Any) -> None:
    assert problems(crm, policy(settings__addresses=wrong))


def test_the_blocklist_forgets(crm: Database) -> None:
    dpo = crm.connect("dpo_login")
    dpo.execute("select gdpr.block('email', 'old@example.com', 'objection')")
    dpo.execute("select gdpr.block('email', 'new@example.com', 'objection')")
    crm.rows(
        "update gdpr_internal.identifier set blocked_at = now() - interval '11 years'"
        " where digest = (gdpr_internal.identifier_digests('email', 'old@example.com')).digest",
        user="postgres",
    )
    tidy = "select tidied from gdpr.tidy() where what = 'blocklist'"
    assert crm.rows(tidy) == [(0,)]
    assert problems(crm, policy(settings__blocklist_retain="for a while"))
    apply(crm, policy(settings__blocklist_retain="10 years"))
    assert crm.rows(tidy) == [(1,)]
    assert crm.rows(tidy) == [(0,)]
    assert dpo.execute(
        "select gdpr.is_blocked('email', 'old@example.com'),"
        " gdpr.is_blocked('email', 'new@example.com')"
    ).fetchone() == (False, True)
    assert dpo.execute("select old from gdpr.audit_log where operation = 'UNBLOCK'").fetchall() == [
        ({"reason": "blocklist_retain", "identifiers": 1},)
    ]
    crm.rows(
        "insert into crm.customer (email, last_name) values ('old@example.com', 'x')",
        user="crm_app",
    )


def test_probes_are_counted_and_not_answered(crm: Database) -> None:
    dpo = crm.connect("dpo_login")
    dpo.execute("select gdpr.erase(%s)", [subject(crm, "crm.customer", 2)])
    counted = "select role, sum(tries)::integer from gdpr.probe group by role having sum(tries) > 0"
    assert dpo.execute(counted).fetchall() == []
    app = crm.connect("crm_app")
    insert = "insert into crm.customer (email, last_name) values (%s, 'x')"
    for address in ("bela@example.com", "BELA+1@example.com", "anna@example.com"):
        with refused("23505"):
            app.execute(insert, [address])
    # the duplicate is none
    assert dpo.execute(counted).fetchall() == [("crm_app", 2)]
    assert crm.rows("select count(*) from gdpr.tidy()") == [(8,)]
    with refused("23505"):
        app.execute(insert, ["bela@example.com"])
    assert dpo.execute(
        "select tries from gdpr.probe where role = 'crm_app' order by counted_until"
    ).fetchall() == [(2,), (1,)]
    # whoever owns the tables is no role of the policy
    with refused("23505"):
        crm.rows(insert, ["bela@example.com"], user="postgres")
    assert ("(other roles)", 1) in dpo.execute(counted).fetchall()
    for user in ("crm_app", "metabase"):
        with refused("42501"):
            crm.rows("select * from gdpr.probe", user=user)
    digest = crm.rows(
        "select (gdpr_internal.identifier_digests('email', 'bela@example.com')).digest::text",
        user="postgres",
    )[0][0]
    kept = crm.rows("select * from gdpr_internal.probe_reading", user="postgres")
    assert str(digest) not in str(kept)


def test_warnings_are_counted_too(crm: Database) -> None:
    apply(crm, policy(**{"tables__crm.lead__blocklist": "warn"}))
    crm.rows("select gdpr.block('email', 'troll@example.com', 'x')", user="dpo_login")
    crm.rows(
        "insert into crm.lead (email, full_name) values ('troll@example.com', 'T')",
        user="postgres",
    )
    assert ("(other roles)", 1) in crm.rows("select role, tries from gdpr.probe")
