"""Double opt-in: nothing is in the table until the owner of the address says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.capabilities.crm import POLICY, apply, policy, problems, refused
from tests.support import Database, Prepared

SOURCE = {
    "kind": "web_form",
    "form": "newsletter",
    "url": "https://shop.example/join",
    "ip": "203.0.113.7",
    "referrer": "https://search.example/",
    "language": "fr",
}
DORA = {"email": "Dora@example.com", "last_name": "Dietz", "birth_date": "1990-05-06"}


def with_registrations(**settings: Any) -> dict[str, Any]:
    """The policy, with registrations for customers, and a role that sends mails."""
    return policy(
        **{"tables__crm.customer__double_opt_in": settings or True},
        roles__mailer={"audience": "mail"},
    )


def with_a_form(crm: Database) -> None:
    """Give it a form."""
    crm.rows("grant gdpr_portal to portal_app", user="postgres")
    apply(crm, with_registrations())


@pytest.fixture
def forms(prepared: Prepared, crm_template: str) -> Iterator[Database]:
    """The application, with a form for customers: portal_app shows it, mailer sends mails."""
    with prepared(crm_template, with_a_form) as database:
        yield database


def submit(
    db: Database, row: dict[str, Any] | None = None, *consent: str, user: str = "portal_app"
) -> Any:
    """Send the form; what it answers."""
    ((answer,),) = db.rows(
        "select gdpr.submit('crm.customer', %s, %s, %s)",
        [json.dumps(row or DORA), json.dumps(SOURCE), list(consent)],
        user=user,
    )
    return answer


def mails(db: Database) -> list[Any]:
    """The contents of the mails that wait, which leave by it."""
    found = []
    with psycopg.connect(db.dsn("mailer"), autocommit=True) as sender:
        while (number := sender.execute("select gdpr.next_mail()").fetchall()[0][0]) is not None:
            found += sender.execute("select message from gdpr.open_mail(%s)", [number]).fetchall()
            sender.execute("select gdpr.mail_sent(%s)", [number])
    return [message for (message,) in found]


def token(db: Database) -> str:
    """The token in the one mail that waits."""
    (mail,) = mails(db)
    return str(mail["token"])


def confirm(db: Database, which: str, user: str = "portal_app") -> str:
    """Click on the link; the status."""
    ((answer,),) = db.rows("select gdpr.confirm(%s)", [which], user=user)
    return str(answer["status"])


def customers(db: Database, address: str = "dora@example.com") -> list[Any]:
    """Rows with an address, as the officer sees them."""
    return db.rows(
        "select email, last_name, birth_date::text, city from gdpr_clear.customer"
        " where email_digest = gdpr.digest('email', %s)",
        [address],
        user="dpo_login",
    )


def test_nothing_is_in_the_table_before_the_confirmation(forms: Database) -> None:
    forms.rows("grant select on crm.customer to dpo_login")
    before = forms.rows("select count(*) from gdpr.subject")
    assert submit(forms) == {"status": "submitted", "confirm_within": "48:00:00"}
    assert customers(forms) == []
    assert forms.rows("select count(*) from gdpr.subject") == before
    stored = forms.rows(
        "select r::text from gdpr_internal.registration as r"
        " union all select o::text from gdpr_internal.outbox as o",
        user="postgres",
    )
    assert len(stored) == 2
    for (text,) in stored:
        assert "dora" not in text.lower()
        assert "203.0.113.7" not in text
    assert confirm(forms, token(forms)) == "confirmed"
    assert customers(forms) == [("Dora@example.com", "Dietz", "1990-05-06", "Stuttgart")]
    left = forms.rows(
        "select content, (select count(*) from gdpr_internal.registration_key)"
        " from gdpr_internal.registration",
        user="postgres",
    )
    assert left == [(None, 0)]


def test_the_mail_goes_to_the_address_in_the_language_of_the_form(forms: Database) -> None:
    submit(forms)
    ((template, language),) = forms.rows("select template, language from gdpr.outbox")
    assert (template, language) == ("registration", "fr")
    (mail,) = mails(forms)
    assert mail["to"] == "Dora@example.com"
    assert len(mail["token"]) == 43
    assert mail.keys() == {"to", "token", "confirm_by"}


def test_the_row_remembers_where_and_when_it_came_from(forms: Database) -> None:
    submit(forms)
    which = token(forms)
    forms.rows('select gdpr.confirm(%s, \'{"ip": "203.0.113.8"}\')', [which], user="portal_app")
    ((kind, details),) = forms.rows(
        "select kind, details from gdpr.source order by id desc limit 1", user="dpo_login"
    )
    assert kind == "web_form"
    assert details["form"] == "newsletter"
    assert details["ip"] == "203.0.113.7"
    assert details["confirmation"] == {"ip": "203.0.113.8"}
    assert details["submitted_at"] < details["confirmed_at"]
    # and the setting that carried it is gone
    connection = forms.connect("portal_app", autocommit=False)
    submit(forms, {**DORA, "email": "emil@example.com"})
    connection.execute("select gdpr.confirm(%s)", [token(forms)])
    assert connection.execute("select current_setting('gdpr.source', true)").fetchall() == [("",)]


def test_a_second_click_says_so_kindly(forms: Database) -> None:
    submit(forms)
    which = token(forms)
    assert confirm(forms, which) == "confirmed"
    assert confirm(forms, which) == "already_confirmed"
    assert confirm(forms, which, user="crm_app") == "already_confirmed"
    assert forms.rows(
        "select count(*) from gdpr_internal.source where table_id = 1", user="postgres"
    ) == [(4,)]


def test_two_clicks_at_once_insert_once(forms: Database) -> None:
    submit(forms)
    which = token(forms)
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(confirm(forms, which))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == ["already_confirmed"] * 7 + ["confirmed"]


def test_consent_that_was_ticked_counts_from_the_confirmation_on(forms: Database) -> None:
    submit(forms, DORA, "marketing")
    question = (
        "select subject_id, channel from gdpr.consent"
        " where purpose = 'marketing' and status = 'granted'"
    )
    assert forms.rows(question, user="dpo_login") == []
    confirm(forms, token(forms))
    ((_, channel),) = forms.rows(question, user="dpo_login")
    assert channel == "web_form"
    app = forms.connect("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    assert app.execute("select last_name from gdpr_clear.customer").fetchall() == [("Dietz",)]


def test_a_table_that_rests_on_consent_alone(forms: Database) -> None:
    new = with_registrations()
    new["tables"]["crm.lead"] |= {"purposes": ["marketing"], "double_opt_in": True}
    apply(forms, new)
    for user in ("portal_app", "crm_app"):
        address = f"{user}@example.com"
        forms.rows(
            "select gdpr.submit('crm.lead', %s, null, '{marketing}')",
            [json.dumps({"email": address})],
            user=user,
        )
        assert confirm(forms, token(forms), user) == "confirmed"
    app = forms.connect("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    found = app.execute("select email from gdpr_clear.lead order by id desc limit 2").fetchall()
    assert found == [("crm_app@example.com",), ("portal_app@example.com",)]


def test_confirming_opens_nothing_else(forms: Database) -> None:
    submit(forms)
    portal = forms.connect("portal_app", autocommit=False)
    portal.execute("select gdpr.confirm(%s)", [token(forms)])
    forms.rows(
        "grant usage on schema crm to portal_app; grant select on crm.customer to portal_app"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        portal.execute("select * from crm.customer")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**DORA, "nickname": "D"}, "column nickname: there is no such column"),
        ({**DORA, "gdpr_purposes": 1}, "column gdpr_purposes: there is no such column"),
        ({**DORA, "id": 1}, "column id: there is no such column"),
        ({"email": "dora@example.com"}, "column last_name: is missing"),
        ({**DORA, "last_name": None}, "column last_name: is missing"),
        ({**DORA, "created_at": None}, "column created_at: is missing"),
        ({**DORA, "birth_date": "yesterday-ish"}, "column birth_date: no value of type date"),
        ({**DORA, "birth_date": "1990-02-31"}, "column birth_date: no value of type date"),
        ({**DORA, "city": "x" * 41}, "column city: longer than 40 characters"),
        ({**DORA, "email": "x" * 120 + "@e.de"}, "column email: longer than 120 characters"),
        ({**DORA, "email": "dora"}, "column email: is no e-mail address"),
        ({**DORA, "email": "a@b.de, c@d.de"}, "column email: is no e-mail address"),
        ({"last_name": "Dietz"}, "column email: is no e-mail address"),
    ],
)
def test_what_can_be_known_is_said_at_once(
    forms: Database, row: dict[str, Any], problem: str
) -> None:
    with refused("PR104", "registration_refused") as error:
        submit(forms, row)
    assert problem in (error.value.diag.message_detail or "").splitlines()
    assert mails(forms) == []


def test_every_problem_is_named_and_no_value(forms: Database) -> None:
    with refused("PR104", "registration_refused") as error:
        submit(forms, {"email": "s3cret", "birth_date": "s3cret", "city": "s3cret" * 9})
    lines = (error.value.diag.message_detail or "").splitlines()
    assert len(lines) == 4
    assert "s3cret" not in str(error.value)


def test_a_check_of_the_table_is_asked_at_once(forms: Database) -> None:
    forms.rows("alter table crm.customer add check (city is not null and city <> 'Ulm')")
    forms.rows("alter table crm.customer add check (last_name <> upper(last_name))")
    with refused("PR104", "registration_refused") as error:
        submit(forms, {**DORA, "city": "Ulm", "last_name": "DIETZ"})
    assert (error.value.diag.message_detail or "").splitlines() == [
        "constraint customer_city_check",
        "constraint customer_last_name_check",
    ]
    # a column that was not given has its default, which nobody knows yet
    submit(forms)


def test_a_check_over_an_encrypted_column_is_asked_at_once(shop: Database) -> None:
    """Encryption took it off the table; it is one of the table's conditions all the same."""
    shop.rows("alter table crm.customer add check (birth_date > '1900-01-01')")
    shop.rows("grant gdpr_portal to portal_app", user="postgres")
    apply(shop, with_registrations())
    with refused("PR104", "registration_refused") as error:
        submit(shop, {**DORA, "birth_date": "1890-05-06"})
    assert error.value.diag.message_detail == "constraint customer_birth_date_check"
    submit(shop)


def test_what_cannot_be_known_is_said_at_the_confirmation_and_nothing_is_lost(
    forms: Database,
) -> None:
    forms.rows(
        "create function crm.no_dora() returns trigger language plpgsql as $$ begin"
        " if new.last_name = 'Dietz' then raise 'no % here', new.email; end if; return new; end $$;"
        "create trigger no_dora before insert on crm.customer"
        " for each row execute function crm.no_dora()"
    )
    apply(forms, with_registrations())
    submit(forms)
    which = token(forms)
    with refused("PR106", "registration_conflict") as error:
        confirm(forms, which)
    assert "dora" not in str(error.value).lower().replace("no_dora", "")
    assert error.value.diag.message_detail == "SQLSTATE P0001"
    forms.rows("drop trigger no_dora on crm.customer")
    apply(forms, with_registrations())
    assert confirm(forms, which) == "confirmed"


def test_somebody_who_is_registered_is_told_only_after_the_proof(forms: Database) -> None:
    known = submit(forms, {**DORA, "email": "anna@example.com"})
    assert known == submit(forms)
    which = next(mail["token"] for mail in mails(forms) if mail["to"] == "anna@example.com")
    with refused("PR107", "registration_known") as error:
        confirm(forms, which)
    assert "anna" not in str(error.value)


def test_sent_twice_one_mail_for_each_interval(forms: Database) -> None:
    first = submit(forms)
    assert submit(forms, {**DORA, "last_name": "Mallory", "email": "DORA@example.com"}) == first
    assert len(mails(forms)) == 1
    forms.rows(
        "update gdpr_internal.registration_mail set mailed_at = now() - interval '61 minutes'",
        user="postgres",
    )
    assert submit(forms) == first
    assert len(mails(forms)) == 1


def test_sent_at_once_by_many_one_mail(forms: Database) -> None:
    threads = [threading.Thread(target=submit, args=(forms,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(mails(forms)) == 1


def test_the_first_of_two_mails_answers_both(forms: Database) -> None:
    submit(forms)
    first = token(forms)
    forms.rows(
        "update gdpr_internal.registration_mail set mailed_at = now() - interval '2 hours'",
        user="postgres",
    )
    submit(forms)
    second = token(forms)
    assert confirm(forms, first) == "confirmed"
    assert confirm(forms, second) == "already_confirmed"


def with_form(db: Database, *, publish: bool = True) -> int:
    """Record a text about the newsletter, and publish it; its number."""
    db.rows(
        "select gdpr.record_form('news', 'en', '{marketing}', '{mail}', 'May we?', 'Yes or no.',"
        " 'https://shop.example/privacy')",
        user="dpo_login",
    )
    if publish:
        db.rows("select gdpr.publish_form('news', 'en')", user="dpo_login")
    ((form,),) = db.rows("select max(form_id) from gdpr.consent_form", user="dpo_login")
    return int(form)


SUBMIT_FORM = "select gdpr.submit('crm.customer', %s, null, %s, %s)"


def test_the_text_beside_the_ticks_is_recorded_with_the_consent(forms: Database) -> None:
    """The very version that was shown, though another is published before the confirmation."""
    shown = with_form(forms)
    forms.rows(SUBMIT_FORM, [json.dumps(DORA), ["marketing"], shown], user="portal_app")
    assert with_form(forms) > shown
    assert confirm(forms, token(forms)) == "confirmed"
    recorded = forms.rows(
        "select form_id, channel, contact from gdpr.consent where status = 'granted'",
        user="dpo_login",
    )
    assert recorded == [(shown, "web_form", ["mail"])]


@pytest.mark.parametrize("case", ["a draft", "unknown", "of other purposes"])
def test_a_text_that_was_never_shown_is_refused_at_once(forms: Database, case: str) -> None:
    form = with_form(forms, publish=case != "a draft")
    if case == "of other purposes":
        apply(
            forms,
            policy(
                **{"tables__crm.customer__double_opt_in": True},
                purposes__profiling={"basis": "consent"},
            ),
        )
    purpose = "profiling" if case == "of other purposes" else "marketing"
    arguments = [json.dumps(DORA), [purpose], form + (case == "unknown")]
    with refused("PR305", "form_refused"):
        forms.rows(SUBMIT_FORM, arguments, user="portal_app")
    assert forms.rows("select * from gdpr.registration") == []


def test_after_its_time_a_registration_is_nothing(forms: Database) -> None:
    submit(forms)
    which = token(forms)
    forms.rows(
        "update gdpr_internal.registration set valid_until = clock_timestamp();"
        "update gdpr_internal.token set valid_until = clock_timestamp()",
        user="postgres",
    )
    with refused("PR303", "token_refused"):
        confirm(forms, which)
    with refused("PR303", "token_refused"):
        forms.rows("select gdpr.opt_out(%s)", [which], user="portal_app")
    assert forms.rows("select * from gdpr.registration") == []
    assert forms.rows("select gdpr.tidy_registrations()") == [(1,)]
    assert forms.rows("select gdpr.tidy_registrations()") == [(0,)]
    for table in ("registration", "registration_key", "registration_mail", "token", "outbox"):
        assert forms.rows(f"select * from gdpr_internal.{table}", user="postgres") == []


def test_a_mail_that_could_not_be_sent_in_time_never_is(forms: Database) -> None:
    submit(forms)
    forms.rows("update gdpr_internal.outbox set expires_at = now()", user="postgres")
    assert mails(forms) == []


def test_who_opts_out_gets_no_more_mails_until_it_is_lifted(forms: Database) -> None:
    answer = submit(forms)
    which = token(forms)
    for _ in range(2):
        out = forms.rows("select gdpr.opt_out(%s)", [which], user="portal_app")
        assert out == [({"status": "opted_out"},)]
    with refused("PR303", "token_refused"):
        confirm(forms, which)
    later = "update gdpr_internal.registration_mail set mailed_at = now() - interval '2 hours'"
    forms.rows(later, user="postgres")
    assert submit(forms) == answer
    assert mails(forms) == []
    assert forms.rows("select count(*) from gdpr.opt_out", user="dpo_login") == [(1,)]
    lift = "select gdpr.lift_opt_out(%s, 'asked by phone')"
    assert forms.rows(lift, ["DORA@example.com"], user="dpo_login") == [(True,)]
    assert forms.rows(lift, ["DORA@example.com"], user="dpo_login") == [(False,)]
    forms.rows(later, user="postgres")
    submit(forms)
    assert len(mails(forms)) == 1


def test_opting_out_calls_back_the_mails_that_wait(forms: Database) -> None:
    submit(forms)
    which = token(forms)
    forms.rows(
        "update gdpr_internal.registration_mail set mailed_at = now() - interval '2 hours'",
        user="postgres",
    )
    submit(forms)
    forms.rows("select gdpr.opt_out(%s)", [which], user="portal_app")
    assert mails(forms) == []


def test_a_blocked_address_gets_the_same_answer_and_no_mail(forms: Database) -> None:
    answer = submit(forms)
    mails(forms)
    forms.rows("select gdpr.block('email', 'eva@example.com', 'abuse')", user="dpo_login")
    assert submit(forms, {**DORA, "email": "Eva+tag@example.com"}) == answer
    assert mails(forms) == []


@pytest.mark.parametrize("lifts", [False, True])
def test_somebody_erased_comes_back_where_the_policy_lets_them(
    forms: Database, lifts: bool
) -> None:
    apply(forms, with_registrations(lifts_block=lifts))
    anna = forms.rows("select gdpr.subject_of('crm.customer', '1')", user="dpo_login")[0][0]
    forms.rows("select gdpr.erase(%s)", [anna], user="dpo_login")
    submit(forms, {**DORA, "email": "anna@example.com"})
    waiting = mails(forms)
    assert len(waiting) == lifts
    if lifts:
        assert confirm(forms, waiting[0]["token"]) == "confirmed"
        forms.rows("grant select on crm.customer to dpo_login")
        assert len(customers(forms, "anna@example.com")) == 1
        assert forms.rows(
            "select count(*) from gdpr.audit_log where operation = 'UNBLOCK'", user="dpo_login"
        ) == [(1,)]


def test_erasure_forgets_what_waits_under_an_address_of_the_person(forms: Database) -> None:
    submit(forms, {**DORA, "email": "anna@example.com"})
    which = token(forms)
    anna = forms.rows("select gdpr.subject_of('crm.customer', '1')", user="dpo_login")[0][0]
    forms.rows("select gdpr.erase(%s)", [anna], user="dpo_login")
    assert forms.rows(
        "select content, (select count(*) from gdpr_internal.registration_key)"
        " from gdpr_internal.registration",
        user="postgres",
    ) == [(None, 0)]
    with refused("PR303", "token_refused"):
        confirm(forms, which)


def test_what_an_officer_blocked_no_confirmation_lifts(forms: Database) -> None:
    apply(forms, with_registrations(lifts_block=True))
    submit(forms, {**DORA, "email": "eva@example.com"})
    which = token(forms)
    forms.rows("select gdpr.block('email', 'eva@example.com', 'abuse')", user="dpo_login")
    with refused("PR107", "registration_known"):
        confirm(forms, which)


def test_a_table_without_the_setting_takes_no_registrations(crm: Database) -> None:
    crm.rows("grant gdpr_portal to portal_app", user="postgres")
    with refused("PR105", "no_registrations"):
        submit(crm)


def test_a_table_that_stopped_taking_them_confirms_none(forms: Database) -> None:
    submit(forms)
    which = token(forms)
    apply(forms, policy(roles__mailer={"audience": "mail"}))
    with refused("PR105", "no_registrations"):
        confirm(forms, which)


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("select gdpr.submit('crm.customer', '[]')", "PR004"),
        ("select gdpr.submit('crm.customer', null)", "PR004"),
        (
            "select gdpr.submit('crm.customer', jsonb_build_object('x', repeat('x', 99999)))",
            "PR004",
        ),
        ("select gdpr.submit('crm.customer', '{}', '{\"kind\": \"gossip\"}')", "PR004"),
        ("select gdpr.submit('crm.customer', '{}', null, '{unheard}')", "PR003"),
        ("select gdpr.submit('crm.customer', '{}', null, '{orders}')", "PR302"),
        ("select gdpr.submit('pg_class', '{}')", "PR105"),
    ],
)
def test_what_is_no_registration(forms: Database, statement: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        forms.rows(statement, user="portal_app")
    assert error.value.sqlstate == state


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"confirm_within": "soon"}, 'confirm_within: "soon" is not a duration'),
        (
            {"confirm_within": "1 hour", "resend_after": "2 hours"},
            "resend_after: has to be shorter",
        ),
        ({"address": "phone"}, 'address: the column with identifier = "email"'),
        ({"lifts_block": "yes"}, "lifts_block: true or false"),
        ({"expires": "1 hour"}, "unknown setting"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(
    unchanged: Database, setting: dict[str, Any], problem: str
) -> None:
    new = policy(**{"tables__crm.customer__double_opt_in": setting})
    assert any(problem in line for line in problems(unchanged, new))


def test_children_take_no_registrations(unchanged: Database) -> None:
    new = policy(**{"tables__crm.order__double_opt_in": True})
    assert any("rows are persons" in line for line in problems(unchanged, new))


def test_the_policy_is_stable_and_can_be_taken_back(forms: Database) -> None:
    assert apply(forms, with_registrations()) == []
    assert forms.rows("select proname from pg_proc where proname like '%registration_1'") != []
    apply(forms, POLICY)
    assert forms.rows("select proname from pg_proc where proname like '%registration_1'") == []


def test_what_waits_is_confirmed_under_the_names_that_columns_have_then(forms: Database) -> None:
    submit(forms)
    forms.rows(
        "select * from gdpr.reshape('crm.customer', array["
        "'alter table crm.customer rename last_name to surname',"
        "'alter table crm.customer rename email to mail',"
        "'alter table crm.customer drop birth_date'])"
    )
    assert confirm(forms, token(forms)) == "confirmed"
    assert forms.rows(
        "select mail, surname from gdpr_clear.customer where id > 3", user="dpo_login"
    ) == [("Dora@example.com", "Dietz")]
