"""Station 90: the nightly job takes away what has no effect, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.capabilities.consents import PURPOSES, answer, ask, set_up
from tests.capabilities.crm import apply, policy, refused, subject
from tests.support import Database, Prepared


@pytest.fixture
def news(prepared: Prepared, crm_template: str) -> Iterator[Database]:
    """The customer database that can ask."""
    with prepared(crm_template, set_up) as database:
        yield database


def tidied(db: Database) -> dict[str, int]:
    """Run the job as the administrator; what it did."""
    return dict(db.rows("select what, tidied from gdpr.tidy()"))


def later(db: Database, by: str) -> None:
    """Let tokens be as much older."""
    db.rows(
        "update gdpr_internal.token set valid_until = valid_until - %s::interval,"
        " used_at = used_at - %s::interval",
        [by, by],
        user="postgres",
    )


def tokens(db: Database) -> int:
    """How many tokens the database knows."""
    ((count,),) = db.rows("select count(*) from gdpr_internal.token", user="postgres")
    return int(count)


def test_an_unused_token_goes_a_month_after_its_time(news: Database) -> None:
    ask(news, subject(news, "crm.customer", 1))
    assert tidied(news) == dict.fromkeys(
        [
            *("registrations", "tokens", "gates", "blocklist", "imports"),
            *("audit_months", "audit_indexes", "erasures"),
        ],
        0,
    )
    later(news, "14 days 1 hour")
    assert tidied(news)["tokens"] == 0
    later(news, "1 month")
    assert tidied(news)["tokens"] == 1
    assert tokens(news) == 0


def test_a_link_withdraws_for_as_long_as_there_is_something_to_withdraw(news: Database) -> None:
    """However long ago it was answered; a year after it gave nothing, it goes."""
    anna, bela = subject(news, "crm.customer", 1), subject(news, "crm.customer", 2)
    yes, no = ask(news, anna), ask(news, bela)
    answer(news, yes, "marketing")
    answer(news, no)
    assert tidied(news)["tokens"] == 0
    later(news, "13 months")
    assert tidied(news)["tokens"] == 1
    withdraw = "select gdpr.portal_withdraw(%s)"
    with refused("PR303", "token_refused"):
        news.rows(withdraw, [no], user="portal_app")
    assert news.rows(withdraw, [yes], user="portal_app") == [({"marketing": "withdrawn"},)]
    assert tidied(news)["tokens"] == 1
    assert tokens(news) == 0


def test_the_job_does_so_many_at_a_time(news: Database) -> None:
    for key in (1, 2):
        ask(news, subject(news, "crm.customer", key))
    later(news, "2 months")
    tidy = "select tidied from gdpr.tidy(1) where what = 'tokens'"
    assert [news.rows(tidy) for _ in range(3)] == [[(1,)], [(1,)], [(0,)]]


@pytest.mark.parametrize("user", ["crm_app", "portal_app", "metabase"])
def test_the_job_is_the_administrators(news: Database, user: str) -> None:
    with refused("42501"):
        news.rows("select gdpr.tidy()", user=user)


def test_the_doctor_tells_of_mails_that_nobody_sends(news: Database) -> None:
    apply(news, policy(**PURPOSES, roles__mailer={"audience": "mail"}))
    ask(news, subject(news, "crm.customer", 1), channel="email")
    findings = "select object, finding from gdpr.doctor() where topic = 'mails'"
    assert news.rows(findings) == []
    news.rows(
        "update gdpr_internal.outbox set due_at = now() - interval '16 minutes'"
        " where template = 'consent_request'",
        user="postgres",
    )
    overdue = "mails due for more than 15 minutes: 1"
    assert news.rows(findings) == [("consent_request", overdue)]
    # one that is tried again and again is not overdue, and one day it is dead
    news.rows("update gdpr_internal.outbox set attempts = 11", user="postgres")
    sender = news.connect("mailer")
    ((mail,),) = sender.execute("select gdpr.next_mail()").fetchall()
    assert news.rows(findings) == []
    sender.execute("select gdpr.mail_failed(%s, false, '450 4.2.0')", [mail])
    assert news.rows(findings) == [("consent_request", "mails given up: 1")]
