"""Station 00: triggers of the application do not take the backfill for changes of its data."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from tests.capabilities.crm import apply, findings, original, plan
from tests.capabilities.enabling import (
    POLICY,
    ROWS,
    TABLES,
    application,
    catalog,
    clear,
    finish,
    state,
    take,
    until,
)
from tests.support import Clone, Database

#: All that fires for an UPDATE of whatever column, of rows and statements, in every state.
TRIGGERS = """
create table shop.log (n serial, what text);
grant insert on shop.log to crm_app;
grant usage on sequence shop.log_n_seq to crm_app;
create function shop.note() returns trigger language plpgsql as $$
begin
  insert into shop.log (what) values (tg_name || ' ' || tg_op);
  return new;
end $$;
create trigger plain before update on shop.buyer for each row execute function shop.note();
create trigger "an always" after insert or update on shop.buyer
  for each row execute function shop.note();
create trigger replica before update on shop.buyer for each row execute function shop.note();
create trigger off before update on shop.buyer for each row execute function shop.note();
create trigger statement after update on shop.buyer
  referencing new table as rows for each statement execute function shop.note();
create constraint trigger late after update on shop.buyer
  for each row execute function shop.note();
create trigger of_city before update of city on shop.buyer
  for each row execute function shop.note();
alter table shop.buyer enable always trigger "an always";
alter table shop.buyer enable replica trigger replica;
alter table shop.buyer disable trigger off;
"""

STATES = """
select tgname, tgenabled from pg_trigger
where tgrelid = 'shop.buyer'::regclass and not tgisinternal and tgname !~ '^zzz' order by 1
"""

LOG = 'select what, count(*) from shop.log group by what order by what collate "C"'


@pytest.fixture(scope="module")
def template(clone: Clone, shop_template: str) -> Iterator[str]:
    # a key that is tested later is asked nothing, and keeps no trigger from coming back
    deferred = (
        "alter table shop.purchase alter constraint purchase_buyer_id_fkey"
        " deferrable initially deferred"
    )
    with application(clone, shop_template, TABLES, ROWS, deferred, TRIGGERS) as database:
        yield database.name


@pytest.fixture
def shop(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        yield database


@pytest.fixture(scope="module")
def at_once(clone: Clone, template: str) -> Iterator[Database]:
    with clone(template) as database:
        apply(database, POLICY)
        yield database


def drop(db: Database, *names: str) -> None:
    for name in names:
        db.rows(f'drop trigger "{name}" on shop.buyer')


def estimated(db: Database) -> tuple[str, str | None]:
    ((method, reason),) = db.rows(
        "select method, reason from gdpr.estimate(%s) where object = 'shop.buyer'",
        [json.dumps(POLICY)],
    )
    return method, reason


def test_in_batches_or_at_once_is_the_same(shop: Database, at_once: Database) -> None:
    """The role may not keep them quiet: they are off for each batch, and no write gets past."""
    before = shop.rows(STATES)
    method, reason = estimated(shop)
    assert method == "batches"
    assert "writers wait for each batch" in str(reason)
    while take(shop, 4):
        assert shop.rows(STATES) == before
    assert shop.rows(LOG) == [] == at_once.rows(LOG)
    assert catalog(shop, "shop.buyer") == catalog(at_once, "shop.buyer")
    assert clear(shop, "buyer") == clear(at_once, "buyer")
    assert plan(shop, POLICY) == []
    assert findings(shop) == findings(at_once)


def test_changes_of_the_application_fire_them_at_every_moment(shop: Database) -> None:
    seen: set[str | None] = set()
    written = 0
    while (now := state(shop)) is not None or not seen - {None}:
        seen.add(now)
        view = shop.rows("select to_regclass('gdpr_clear.buyer') is not null") == [(True,)]
        relation = "gdpr_clear.buyer" if view else "shop.buyer"
        shop.rows(
            f"update {relation} set nickname = nickname || 'x' where id in (1, 40)", user="crm_app"
        )
        written += 1
        take(shop, 8)
    log = dict(shop.rows(LOG))
    # a statement on the view is one on the table for each row
    assert written < log.pop("statement UPDATE") <= 2 * written
    assert log == {
        "an always UPDATE": 2 * written,
        "late UPDATE": 2 * written,
        "plain UPDATE": 2 * written,
    }
    assert len(seen) > 5


def test_who_may_be_a_replica_keeps_nobody_out(shop: Database) -> None:
    drop(shop, "an always", "replica")
    shop.rows("grant set on parameter session_replication_role to db_owner", user="postgres")
    try:
        assert estimated(shop) == ("batches", None)
        until(shop, "claiming")
        ((kept_out,),) = shop.rows("select kept_out from gdpr.backfill('shop.buyer', 1)")
        assert kept_out is False
        finish(shop)
    finally:
        shop.rows("revoke set on parameter session_replication_role from db_owner", user="postgres")
    assert shop.rows(LOG) == []
    assert plan(shop, POLICY) == []


@pytest.mark.parametrize("left", ["an always", "replica"])
def test_one_that_fires_on_replicas_is_switched_off(shop: Database, left: str) -> None:
    """Even by who may be a replica: it would fire there."""
    drop(shop, *({"an always", "replica"} - {left}))
    shop.rows("grant set on parameter session_replication_role to db_owner", user="postgres")
    try:
        assert "writers wait" in str(estimated(shop)[1])
        finish(shop)
    finally:
        shop.rows("revoke set on parameter session_replication_role from db_owner", user="postgres")
    assert shop.rows(LOG) == []


def test_one_for_replicas_alone_is_no_matter(shop: Database) -> None:
    drop(shop, "plain", "an always", "statement", "late")
    assert estimated(shop) == ("batches", None)
    finish(shop)
    assert shop.rows(LOG) == []


def test_a_batch_does_not_wait_in_front_of_writers(shop: Database) -> None:
    """By hand, too: it gives up after a moment, and everything is as it was."""
    before = shop.rows(STATES)
    until(shop, "claiming")
    app = shop.connect("crm_app", autocommit=False)
    app.execute("update shop.buyer set city = 'Ulm' where id = 5")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        shop.rows("select gdpr.backfill('shop.buyer', 1)")
    assert shop.rows(STATES) == before
    app.commit()
    finish(shop)
    assert clear(shop, "buyer")[4][4] == "Ulm"
    assert shop.rows(STATES) == before


def test_unprotect_in_the_middle_gives_back_the_original(shop: Database) -> None:
    before = sorted(original(shop, "shop").splitlines())
    until(shop, "sealing")
    for _ in range(3):
        take(shop)
    shop.rows("select gdpr.unprotect('shop.buyer')")
    assert sorted(original(shop, "shop").splitlines()) == before
