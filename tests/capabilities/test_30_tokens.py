"""Station 30: one-time tokens, before anybody hands them out."""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.capabilities.crm import refused
from tests.support import Database

TAKE = "select (gdpr_internal.take_token(%s, %s)).reference"


def make(db: Database, kind: str = "consent", until: str = "1 hour") -> str:
    """A token for reference 7."""
    ((token,),) = db.rows(
        "select gdpr_internal.create_token(%s, 7, null, statement_timestamp() + %s::interval)",
        [kind, until],
        user="postgres",
    )
    assert isinstance(token, str)
    return token


def test_a_token_is_taken_once_and_known_ever_after(db: Database) -> None:
    token = make(db)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    known = "select (gdpr_internal.know_token(%s, 'consent')).used_at is not null"
    assert db.rows(known, [token], user="postgres") == [(False,)]
    assert db.rows(TAKE, [token, "consent"], user="postgres") == [(7,)]
    with refused("PR303", "token_refused"):
        db.rows(TAKE, [token, "consent"], user="postgres")
    assert db.rows(known, [token], user="postgres") == [(True,)]


def test_only_the_digest_is_kept(db: Database) -> None:
    token = make(db)
    rows = db.rows("select digest, t::text from gdpr_internal.token as t", user="postgres")
    assert rows[0][0] == hashlib.sha256(token.encode()).digest()
    assert token not in rows[0][1]


def test_every_token_that_is_none_gets_one_answer(db: Database) -> None:
    """The last character of 43 carries four bits: its other spellings are no tokens."""
    token, other, late = make(db), make(db, "registration"), make(db, until="-1 second")
    used = make(db)
    db.rows(TAKE, [used, "consent"], user="postgres")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    answers = set()
    for wrong in (
        None,
        "",
        "x",
        token[:-1],
        token + "A",
        token.swapcase(),
        " " + token,
        token + "\n",
        token[:-1] + alphabet[last ^ 1],
        token.encode().hex(),
        "é" * 43,
        "A" * 1_000_000,
        "'; drop table gdpr_internal.token; --",
        other,
        late,
        used,
    ):
        with pytest.raises(psycopg.Error) as caught:
            db.rows(TAKE, [wrong, "consent"], user="postgres")
        diag = caught.value.diag
        answers.add(
            (
                diag.sqlstate,
                diag.message_primary,
                diag.message_detail,
                diag.message_hint,
                diag.constraint_name,
                diag.context,
            )
        )
    assert len(answers) == 1
    with refused("PR303", "token_refused"):
        db.rows(TAKE, [token, None], user="postgres")
    assert db.rows(TAKE, [token, "consent"], user="postgres") == [(7,)]


def test_two_who_come_at_once_with_one_token(db: Database) -> None:
    token = make(db)

    def take(_: int) -> str:
        try:
            db.rows(TAKE, [token, "consent"], user="postgres")
        except psycopg.Error as error:
            return error.sqlstate or ""
        return "taken"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(take, range(8))) == ["PR303"] * 7 + ["taken"]


def test_a_hundred_thousand_tokens_in_a_statement(db: Database) -> None:
    made = db.rows(
        "select count(distinct token), min(reference), max(reference)"
        " from (select array(select generate_series(1, 100000)::bigint)) as n (ids),"
        " gdpr_internal.create_tokens('consent', ids, ids,"
        " array_fill(statement_timestamp() + interval '1 day', array[100000]))",
        user="postgres",
    )
    assert made == [(100_000, 1, 100_000)]
    assert db.rows("select count(*) from gdpr_internal.token", user="postgres") == [(100_000,)]
