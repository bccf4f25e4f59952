"""Rows about two persons, and columns about somebody else: what a policy says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.crm import apply, findings, one_table, problems, refused, subject
from tests.support import Clone, Database

TABLES = """
create table person (id integer primary key, name text not null);
create table account (
  id integer primary key,
  holder_id integer not null references person,
  second_holder_id integer references person,
  balance numeric(10, 2) not null,
  holder_note text,
  second_note text,
  branch text
);
create table transfer (
  id integer primary key,
  account_id integer not null references account,
  amount numeric(10, 2) not null
);
insert into person values (1, 'Ada'), (2, 'Bela'), (3, 'Chie');
insert into account values
  (10, 1, 2, 100, 'likes Ada', 'likes Bela', 'Ulm'),
  (11, 1, 3, 200, 'Ada too', 'Chie too', 'Bonn'),
  (12, 3, null, 300, 'Chie alone', null, 'Kiel');
insert into transfer values (100, 10, 60), (101, 10, 40), (102, 11, 200), (103, 12, 300);
"""


def joint_policy(**account: Any) -> dict[str, Any]:
    """Accounts with two holders; ``account``: settings of that table over the defaults."""
    new = one_table("public.person", columns={"name": {"category": "identity"}})
    common = {"purposes": ["orders"]}
    new["tables"]["public.account"] = {
        **common,
        "subject": {"via": "holder_id", "joint": ["second_holder_id"]},
        "columns": {
            "holder_note": {"encrypt": True, "about": "holder_id"},
            "second_note": {"encrypt": True, "about": "second_holder_id"},
            "balance": {"category": "transaction"},
            "branch": {"category": "transaction"},
        },
        **account,
    }
    new["tables"]["public.transfer"] = {
        **common,
        "subject": {"via": "account_id"},
        "columns": {"amount": {"category": "transaction"}},
    }
    return new


@pytest.fixture(scope="module")
def bank_template(clone: Clone, installed_template: str) -> Iterator[str]:
    """Name of a database with the accounts, unprotected."""
    with clone(installed_template) as database:
        connection = database.connect()
        connection.execute(TABLES)
        database.close()
        yield database.name


@pytest.fixture(scope="module")
def plain(clone: Clone, bank_template: str) -> Iterator[Database]:
    """The accounts, unprotected, for tests that change nothing."""
    with clone(bank_template) as database:
        yield database


@pytest.mark.parametrize(
    ("account", "problem"),
    [
        ({"subject": {"via": "holder_id", "joint": ["branch"]}, "columns": {}}, "foreign key"),
        ({"subject": {"via": "holder_id", "joint": ["holder_id"]}, "columns": {}}, "other link"),
        ({"subject": {"via": "holder_id", "joint": []}, "columns": {}}, "other link"),
        ({"subject": {"via": "holder_id", "joint": "x"}, "columns": {}}, "foreign key"),
        ({"columns": {"branch": {"about": "balance"}}}, "someone_else"),
        (
            {
                "subject": {"via": "holder_id"},
                "columns": {"branch": {"about": "second_holder_id"}},
            },
            "someone_else",
        ),
    ],
)
def test_links_and_columns_that_cannot_be_meant_are_refused(
    plain: Database, account: dict[str, Any], problem: str
) -> None:
    found = problems(plain, joint_policy(**account))
    assert len(found) == 1, found
    assert problem in found[0]


def test_the_register_says_about_whom_a_column_is(clone: Clone, bank_template: str) -> None:
    with clone(bank_template) as bank:
        new = joint_policy()
        new["tables"]["public.account"]["columns"]["branch"]["about"] = "someone_else"
        for _ in range(2):
            apply(bank, new)
        assert bank.rows(
            "select column_name, about from gdpr.protected_column where about is not null order by 1"
        ) == [
            ("branch", "someone_else"),
            ("holder_note", "holder_id"),
            ("second_note", "second_holder_id"),
        ]
        assert bank.rows(
            "select joint_columns::text[] from gdpr_internal.protected_table"
            " where joint_columns is not null",
            user="postgres",
        ) == [(["second_holder_id"],)]
        with refused("42501"):
            bank.rows("select * from gdpr.protected_column", user="crm_app")


@pytest.fixture
def bank(clone: Clone, bank_template: str) -> Iterator[Database]:
    """The accounts, protected."""
    with clone(bank_template) as database:
        apply(database, joint_policy())
        yield database


def holder(bank: Database, person: int) -> int:
    """The number of a holder."""
    return subject(bank, "public.person", person)


def erase(bank: Database, *persons: int) -> list[dict[str, Any]]:
    """Receipts of persons erased together."""
    return [
        receipt
        for (receipt,) in bank.rows(
            "select gdpr.erase(%s::bigint[], 'asked')", [list(persons)], user="dpo_login"
        )
    ]


def accounts(bank: Database) -> list[tuple[Any, ...]]:
    """All accounts as the officer sees them."""
    return bank.rows(
        "select id, holder_id, second_holder_id, balance::integer, holder_note, second_note,"
        " branch from gdpr_clear.account order by id",
        user="dpo_login",
    )


def test_the_first_holder_goes_and_the_account_stays_with_the_second(bank: Database) -> None:
    ada, bela, chie = (holder(bank, person) for person in (1, 2, 3))
    (receipt,) = erase(bank, ada)
    assert {line["table"]: (line["rows"], line.get("passed_on")) for line in receipt["tables"]} == {
        "public.transfer": (0, None),
        "public.account": (0, 2),
        "public.person": (1, None),
    }
    assert receipt["key_destroyed"] is True
    assert accounts(bank) == [
        (10, 2, None, 100, None, "likes Bela", "Ulm"),
        (11, 3, None, 200, None, "Chie too", "Bonn"),
        (12, 3, None, 300, "Chie alone", None, "Kiel"),
    ]
    assert bank.rows(
        "select id, gdpr_subject_id from public.transfer order by id", user="postgres"
    ) == [(100, bela), (101, bela), (102, chie), (103, chie)]
    erase(bank, bela)
    assert [row[0] for row in accounts(bank)] == [11, 12]


def test_the_second_holder_goes_and_the_account_stays_with_the_first(bank: Database) -> None:
    (receipt,) = erase(bank, holder(bank, 2))
    assert [line for line in receipt["tables"] if line.get("passed_on")] == [
        {"table": "public.account", "method": "delete", "rows": 0, "passed_on": 1}
    ]
    assert accounts(bank)[0] == (10, 1, None, 100, "likes Ada", None, "Ulm")
    assert {topic for topic, _ in findings(bank)} <= {"statistics"}


def test_both_holders_go_and_the_account_goes(bank: Database) -> None:
    erase(bank, holder(bank, 1), holder(bank, 2))
    assert accounts(bank) == [
        (11, 3, None, 200, None, "Chie too", "Bonn"),
        (12, 3, None, 300, "Chie alone", None, "Kiel"),
    ]
    assert bank.rows("select count(*) from public.transfer", user="postgres") == [(2,)]


def test_a_second_link_that_cannot_be_null_becomes_the_first(
    clone: Clone, bank_template: str
) -> None:
    with clone(bank_template) as bank:
        bank.connect().execute(
            "update account set second_holder_id = 2 where id = 12;"
            " alter table account alter column second_holder_id set not null"
        )
        apply(bank, joint_policy())
        erase(bank, holder(bank, 2))
        assert accounts(bank)[0] == (10, 1, 1, 100, "likes Ada", None, "Ulm")
        erase(bank, holder(bank, 1))
        assert [row[:3] for row in accounts(bank)] == [(11, 3, 3), (12, 3, 3)]
