"""Station 30: who is known to be a child consents with a guardian."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tests.capabilities.crm import apply, policy, problems, refused, subject
from tests.support import Database

AGED = policy()
AGED["tables"]["crm.customer"]["columns"]["birth_date"] = {
    "category": "demographic",
    "encrypt": True,
    "mask": "year",
    "age": True,
}
PLAIN = policy()
PLAIN["tables"]["crm.customer"]["columns"]["birth_date"] = {"age": True}
CONSENT = "select gdpr.record_consent(%s, 'marketing', true, 'in_person', %s)"
GUARDIAN = '{"guardian": {"name": "Ada Ahrens", "verified": "called back"}}'


def born(years: int, days: int = 0) -> datetime.date:
    """The birth date of somebody who is so old today (UTC), and so many days more."""
    today = datetime.datetime.now(datetime.UTC).date()
    if (today.month, today.day) == (2, 29):
        today -= datetime.timedelta(days=1)
    return today.replace(year=today.year - years) - datetime.timedelta(days=days)


def person(shop: Database, birth: datetime.date | None, new: dict[str, Any] = AGED) -> int:
    """Anna's number, after her birth date was set and the table switched on."""
    shop.rows("update crm.customer set birth_date = %s where id = 1", [birth])
    apply(shop, new)
    return subject(shop, "crm.customer", 1)


@pytest.mark.parametrize("new", [AGED, PLAIN])
def test_a_child_needs_a_guardian(shop: Database, new: dict[str, Any]) -> None:
    anna = person(shop, born(16, days=-1), new)
    for evidence in (
        None,
        "{}",
        '{"guardian": "Ada"}',
        '{"guardian": {"name": "Ada"}}',
        '{"guardian": {"name": "", "verified": "x"}}',
    ):
        with refused("PR310", "guardian_missing"):
            shop.rows(CONSENT, [anna, evidence], user="dpo_login")
    shop.rows(
        "select gdpr.record_consent(%s, 'marketing', false, 'phone')", [anna], user="dpo_login"
    )
    shop.rows(CONSENT, [anna, GUARDIAN], user="dpo_login")
    shop.rows("select gdpr.withdraw_consent(%s, 'marketing')", [anna], user="dpo_login")


@pytest.mark.parametrize("birth", [None, born(16), born(45)])
def test_who_is_of_age_or_of_unknown_age_does_not(
    shop: Database, birth: datetime.date | None
) -> None:
    shop.rows(CONSENT, [person(shop, birth), None], user="dpo_login")


def test_the_policy_sets_the_age(shop: Database) -> None:
    anna = person(shop, born(14))
    with refused("PR310"):
        shop.rows(CONSENT, [anna, None], user="dpo_login")
    apply(shop, AGED | {"settings": {"child_age": 14, "phone_country_code": "49"}})
    shop.rows(CONSENT, [anna, None], user="dpo_login")
    assert problems(shop, AGED | {"settings": {"child_age": 12}}) == [
        "settings.child_age: 13 to 16"
    ]


def test_only_dates_tell_an_age(shop: Database) -> None:
    new = policy()
    new["tables"]["crm.customer"]["columns"]["last_name"]["age"] = True
    assert problems(shop, new) == [
        'tables."crm.customer".columns."last_name".age: is for birth dates, the column is text'
    ]
    new = policy()
    for column in ("birth_date", "created_at"):
        new["tables"]["crm.customer"]["columns"][column]["age"] = True
    assert problems(shop, new) == ['tables."crm.customer".columns: at most one has age = true']


def test_a_child_in_one_table_is_a_child_everywhere(shop: Database) -> None:
    """The lead of Anna has no birth date, the customer has: it is one person."""
    shop.rows("update crm.customer set birth_date = %s where id = 1", [born(10)])
    apply(shop, AGED)
    with refused("PR310"):
        shop.rows(CONSENT, [subject(shop, "crm.lead", 1), None], user="dpo_login")


def test_without_the_mark_a_birth_date_is_only_a_date(crm: Database) -> None:
    crm.rows(
        "update gdpr_clear.customer set birth_date = current_date where id = 1", user="crm_app"
    )
    crm.rows(CONSENT, [subject(crm, "crm.customer", 1), None], user="dpo_login")


def test_no_birth_date_comes_out(shop: Database) -> None:
    """The officer learns yes or no; the functions that know are not for anybody."""
    anna = person(shop, born(10))
    with refused("PR310") as error:
        shop.rows(CONSENT, [anna, None], user="dpo_login")
    told = str(error.value.diag.message_detail) + str(error.value.diag.context)
    assert str(born(10)) not in told
    for call in (
        "gdpr_generated.births_1('{1}')",
        "gdpr_internal.children('{1}')",
        "gdpr_internal.born_after(1, 1, 'x', now()::date)",
    ):
        for user in ("crm_app", "metabase", "dpo_login"):
            with refused("42501"):
                shop.rows(f"select * from {call}", user=user)
