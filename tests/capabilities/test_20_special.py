"""Station 20: special categories of data (Art. 9) need a second condition; without it the column
is empty and cannot be filled, and the rest of the row goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.capabilities.crm import apply, findings, policy, problems, refused, subject
from tests.support import Database, Prepared, assess

DIET = {"category": "health", "special": "health", "encrypt": True}


def special(**changes: Any) -> dict[str, Any]:
    """The policy of the shop with a diet for each customer."""
    new = policy(**changes)
    new["tables"]["crm.customer"]["columns"]["diet"] = DIET
    return new


def with_diets(shop: Database) -> None:
    """Give each customer a diet, and the policy."""
    shop.rows("alter table crm.customer add diet text; update crm.customer set diet = 'vegan'")
    apply(shop, special())


@pytest.fixture
def clinic(prepared: Prepared, shop_template: str) -> Iterator[Database]:
    """Customers with diets, under the policy, no condition anywhere."""
    with prepared(shop_template, with_diets) as database:
        yield database


def diets(db: Database, purpose: str = "orders", user: str = "crm_app") -> list[str | None]:
    """The diets that somebody sees."""
    session = db.connect(user)
    if user == "crm_app":
        session.execute("select set_config('gdpr.purpose', %s, false)", [purpose])
    return [diet for (diet,) in session.execute("select diet from gdpr_clear.customer order by id")]


def test_without_a_condition_the_column_is_empty_and_the_row_is_not(clinic: Database) -> None:
    assert diets(clinic) == [None, None, None]
    assert clinic.rows("select count(last_name) from gdpr_clear.customer", user="crm_app") == [(3,)]
    assert diets(clinic, user="dpo_login") == ["vegan"] * 3
    assess(clinic, "analytics")
    assert clinic.rows("select distinct diet from gdpr_bi.customer", user="metabase") == [(None,)]
    # which call for an impact assessment, and nothing else is wrong
    assert {topic for topic, _ in findings(clinic)} == {"impact_assessment"}
    assert apply(clinic, special()) == []


def test_without_a_condition_it_is_not_written_and_the_rest_is(clinic: Database) -> None:
    for statement in (
        "update gdpr_clear.customer set diet = 'halal' where id = 1",
        "insert into gdpr_clear.customer (email, last_name, diet) values ('n@b.com', 'N', 'x')",
        "update crm.customer set diet = 'halal'",
    ):
        with refused("PR208", "condition_missing"):
            clinic.rows(statement, user="crm_app")
    clinic.rows(
        "update gdpr_clear.customer set city = 'Ulm';"
        "insert into gdpr_clear.customer (email, last_name) values ('n@example.com', 'N')",
        user="crm_app",
    )
    assert diets(clinic, user="dpo_login") == ["vegan"] * 3 + [None]


def test_the_table_itself_and_reveal_tell_no_more(clinic: Database) -> None:
    ((value,),) = clinic.rows("select diet from crm.customer where id = 1", user="crm_app")
    assert value.startswith("gdpr1:")
    with refused("42501", "not_revealed"):
        clinic.rows("select gdpr.reveal(%s)", [value], user="crm_app")
    clinic.rows(
        "select gdpr.record_basis(1, 'orders', 'contract', 'x', p_condition => 'made_public')",
        user="dpo_login",
    )
    assert clinic.rows("select gdpr.reveal(%s)", [value], user="crm_app") == [("vegan",)]


def test_a_recorded_condition_opens_it_for_the_person_purpose_and_time(clinic: Database) -> None:
    person = subject(clinic, "crm.customer", 2)
    ((number,),) = clinic.rows(
        "select gdpr.record_basis(%s, 'orders', 'contract', 'told us', p_condition =>"
        " 'explicit_consent')",
        [person],
        user="dpo_login",
    )
    app = clinic.connect("crm_app", autocommit=False)
    question = "select diet from gdpr_clear.customer order by id"
    assert app.execute(question).fetchall() == [(None,), ("vegan",), (None,)]
    app.execute("update gdpr_clear.customer set diet = 'kosher' where id = 2")
    assert app.execute(question).fetchall() == [(None,), ("kosher",), (None,)]
    app.commit()
    clinic.rows("select gdpr.end_basis(%s, 'over')", [number], user="dpo_login")
    assert app.execute(question).fetchall() == [(None,)] * 3


def test_a_purpose_can_have_a_condition_for_everybody(clinic: Database) -> None:
    apply(clinic, special(purposes__orders={"basis": "contract", "condition": "health_care"}))
    assert diets(clinic) == ["vegan"] * 3
    clinic.rows("update gdpr_clear.customer set diet = 'halal'", user="crm_app")


def test_explicit_consent_is_the_persons_and_not_the_policys(clinic: Database) -> None:
    apply(
        clinic, special(purposes__marketing={"basis": "consent", "condition": "explicit_consent"})
    )
    person = subject(clinic, "crm.customer", 1)
    assert diets(clinic, "marketing") == [None] * 3
    clinic.rows(
        "select gdpr.record_consent(%s, 'marketing', true, 'in_person')", [person], user="dpo_login"
    )
    assert diets(clinic, "marketing") == ["vegan", None, None]
    assert diets(clinic, "orders") == [None] * 3
    clinic.rows("select gdpr.withdraw_consent(%s, 'marketing')", [person], user="dpo_login")
    assert diets(clinic, "marketing") == [None, None]


def test_an_observed_table_is_written_and_erased_as_before(clinic: Database) -> None:
    new = special()
    new["tables"]["crm.customer"]["mode"] = "observe"
    apply(clinic, new)
    clinic.rows("update crm.customer set diet = 'halal' where id = 1", user="crm_app")
    clinic.rows("select gdpr.erase(%s)", [subject(clinic, "crm.customer", 1)], user="dpo_login")


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ({"special": "mood", "encrypt": True}, ".special: one of racial_or_ethnic_origin"),
        ({"special": "health"}, ': a special category needs encrypt = true and mask = "hide"'),
        ({"special": "health", "encrypt": "searchable"}, ": a special category needs"),
        ({"special": "health", "encrypt": True, "mask": "initial"}, ": a special category needs"),
        ({"special": "health", "encrypt": True, "identifier": "text"}, ": a special category ca"),
    ],
)
def test_special_categories_are_encrypted_and_hidden(
    clinic: Database, column: dict[str, Any], problem: str
) -> None:
    new = special()
    new["tables"]["crm.customer"]["columns"]["diet"] = column
    found = problems(clinic, new)
    assert any(f'"diet"{problem}' in line for line in found), found


def test_conditions_are_those_of_the_law(shop: Database) -> None:
    (line,) = problems(shop, policy(purposes__orders={"basis": "contract", "condition": "mood"}))
    assert line.startswith("purposes.orders.condition: one of explicit_consent, employment_law")
