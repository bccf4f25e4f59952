"""Two sessions write one row through a clear view at the same time: what would be lost there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.capabilities.crm import apply, one_table, refused
from tests.support import Clone, Database, waiting

TABLE = """
create table public.account (
  id integer primary key,
  owner_name text,
  balance integer not null default 0,
  version integer not null default 1,
  note text
) {storage};
{partition}
grant all on public.account to crm_app;
grant select, delete on public.account to metabase;
insert into public.account values (1, 'Ada', 100, 1, 'n'), (2, 'Bela', 100, 1, 'n');
"""

COLUMNS = {
    "id": {"category": "key"},
    "owner_name": {"category": "identity", "encrypt": True},
    "balance": {"category": "transaction"},
    "version": {"category": "other"},
    "note": {"category": "other", "encrypt": True},
}


@pytest.fixture(scope="module", params=["plain", "partitioned"])
def bank_template(
    request: pytest.FixtureRequest, clone: Clone, installed_template: str
) -> Iterator[str]:
    """Two accounts, in a table and in a partitioned one."""
    parted = request.param == "partitioned"
    with clone(installed_template) as database:
        database.rows(
            TABLE.format(
                storage="partition by range (id)" if parted else "",
                partition="create table public.some partition of public.account"
                " for values from (0) to (100);"
                if parted
                else "",
            )
        )
        policy = one_table("public.account", columns=COLUMNS)
        policy["roles"]["metabase"] = {"audience": "clear", "purposes": ["orders"]}
        policy["purposes"]["news"] = {"basis": "consent", "grace": False}
        policy["tables"]["public.account"]["purposes"].append("news")
        apply(database, policy)
        yield database.name
        # membership is the server's, and other databases' tests suppose that it has none
        database.rows("revoke gdpr_app from metabase", user="postgres")


@pytest.fixture
def bank(clone: Clone, bank_template: str) -> Iterator[Database]:
    """A copy of them."""
    with clone(bank_template) as database:
        yield database


@pytest.fixture
def first(bank: Database) -> psycopg.Connection:
    """Whoever writes first, and holds the row."""
    return bank.connect("crm_app", autocommit=False, options="-c search_path=gdpr_clear")


@pytest.fixture
def second(bank: Database) -> psycopg.Connection:
    """Whoever comes while the first is at it."""
    return bank.connect("crm_app", options="-c search_path=gdpr_clear")


ROW = "select owner_name, balance, version, note from account where id = 1"


@pytest.mark.parametrize(
    "write",
    [
        "update account set balance = balance - 20 where id = 1",
        "update account set version = 2, note = 'second' where id = 1 and version = 1",
        "update account set note = note || '!' where id = 1",
        "update account set owner_name = 'Second' where id = 1",
        "update account set balance = 0 where owner_name = 'Ada' and balance = 100",
        "delete from account where id = 1 and version = 1",
        "with w as (update account set balance = balance - 20 where id = 1 returning id) table w",
    ],
)
def test_what_another_session_wrote_is_not_overwritten(
    first: psycopg.Connection, second: psycopg.Connection, write: str
) -> None:
    """PostgreSQL hands a view's trigger the row as it was. Whether the statement would have meant
    the row as it is, nobody knows: it is refused, and repeated does what it says."""
    first.execute("update account set balance = balance - 10, version = 2, note = 'first'")
    end = waiting(second, lambda: second.execute(write.encode()))
    first.commit()
    error = end()
    assert isinstance(error, psycopg.errors.SerializationFailure)
    assert error.diag.constraint_name == "gdpr_row_changed"
    assert error.diag.message_hint
    assert "first" not in str(error)
    assert second.execute(ROW.encode()).fetchone() == ("Ada", 90, 2, "first")
    again = second.execute(write.encode())
    assert again.rowcount == (0 if "version = 1" in write or "balance = 100" in write else 1)


def test_a_counter_counts_every_one(bank: Database) -> None:
    """Many sessions at once, each of which repeats what was refused."""

    def count(_: int) -> None:
        with psycopg.connect(bank.dsn("crm_app"), autocommit=True) as session:
            left = 15
            while left:
                try:
                    done = session.execute(
                        "update gdpr_clear.account set balance = balance + 1, note = note || '+'"
                        " where id = 1"
                    )
                except psycopg.errors.SerializationFailure:
                    continue
                assert done.rowcount == 1
                left -= 1

    with ThreadPoolExecutor(6) as sessions:
        list(sessions.map(count, range(6)))
    assert bank.rows(
        "select balance, length(note) from gdpr_clear.account where id = 1", user="crm_app"
    ) == [(190, 91)]


def test_a_row_that_was_locked_first_is_written(
    first: psycopg.Connection, second: psycopg.Connection
) -> None:
    """SELECT FOR UPDATE waits and shows what is there then, opened anew."""
    first.execute("update account set balance = 7, owner_name = 'First', note = 'first'")
    seen: list[object] = []
    second.autocommit = False

    def lock() -> None:
        seen.extend(second.execute((ROW + " for update").encode()).fetchall())
        second.execute("update account set balance = balance + 1, note = note || '!' where id = 1")

    end = waiting(second, lock)
    first.commit()
    assert end() is None
    second.commit()
    assert seen == [("First", 7, 1, "first")]
    assert first.execute(ROW.encode()).fetchone() == ("First", 8, 1, "first!")


def test_a_row_that_is_gone_is_no_row(
    first: psycopg.Connection, second: psycopg.Connection
) -> None:
    first.execute("delete from account where id = 1")
    counts: list[int] = []
    end = waiting(
        second,
        lambda: counts.append(
            second.execute("update account set balance = 1 where id = 1 returning id").rowcount
        ),
    )
    first.commit()
    assert end() is None
    assert counts == [0]


def test_what_nobody_sees_is_no_change(bank: Database, second: psycopg.Connection) -> None:
    """A decision about the person touches the row below its columns: the application goes on."""
    officer = bank.connect("dpo_login", autocommit=False)
    officer.execute(
        "select gdpr.record_consent(gdpr.subject_of('public.account', '1'), 'news', true,"
        " 'in_person')"
    )
    found: list[object] = []

    def write() -> None:
        found.extend(
            second.execute(
                "update account set balance = balance - 1, owner_name = 'New' where id = 1"
                " returning id, owner_name, balance, note"
            ).fetchall()
        )

    end = waiting(second, write)
    officer.commit()
    assert end() is None
    assert found == [(1, "New", 99, "n")]
    assert second.execute(ROW.encode()).fetchone() == ("New", 99, 1, "n")


def test_a_statement_that_meets_a_row_twice(bank: Database, second: psycopg.Connection) -> None:
    """A join that finds it twice, and a trigger that writes the rows beside the one it fires for:
    the same transaction did it, in savepoints too."""
    twice = (
        "update account as a set balance = a.balance + v.n from (values (1), (5)) as v (n)"
        " where a.id = 1"
    )
    second.execute(twice.encode())
    with second.transaction():
        second.execute("insert into account values (3, 'Chie', 1, 1, 'n')")
        with second.transaction():
            second.execute("update account set note = 'x' where id = 3")
            assert second.execute("update account set balance = 2 where id = 3").rowcount == 1
            second.execute(twice.encode())
    bank.rows("""
        create function public.touch() returns trigger language plpgsql as $$
        begin
          if pg_trigger_depth() < 3 then
            begin
              update public.account set version = version + 1 where id <> new.id;
            exception when division_by_zero then null;
            end;
          end if;
          return null;
        end $$;
        create trigger touch after update on public.account for each row execute function
          public.touch();
    """)
    assert second.execute("update account set balance = 0").rowcount == 3
    assert second.execute("select sum(balance) from account").fetchone() == (0,)


def test_a_trigger_that_keeps_a_row(bank: Database, second: psycopg.Connection) -> None:
    """Nothing is written, and nobody waits for ever."""
    bank.rows("""
        create function public.keep() returns trigger language plpgsql as
          $$ begin return null; end $$;
        create trigger a_keep before update or delete on public.account for each row
          execute function public.keep();
    """)
    with second.transaction():
        assert second.execute("update account set balance = 0").rowcount == 0
        assert second.execute("delete from account").rowcount == 0


def test_rights_to_single_columns_and_to_none_but_delete(
    bank: Database, first: psycopg.Connection, second: psycopg.Connection
) -> None:
    bank.rows(
        "revoke update on public.account from crm_app;"
        "grant update (balance, note) on public.account to crm_app"
    )
    write = "update account set balance = balance - 20, note = 'x' where id = 1 returning balance"
    first.execute(write.encode())
    end = waiting(second, lambda: second.execute(write.encode()))
    first.commit()
    assert isinstance(end(), psycopg.errors.SerializationFailure)
    assert second.execute(write.encode()).fetchone() == (60,)

    first.execute("update account set balance = 5 where id = 2")
    other = bank.connect("metabase", options="-c search_path=gdpr_clear")
    end = waiting(other, lambda: other.execute("delete from account where balance = 100"))
    first.commit()
    assert isinstance(end(), psycopg.errors.SerializationFailure)
    assert other.execute("delete from account where id = 2").rowcount == 1


def test_a_forged_snapshot_is_written_over(
    first: psycopg.Connection, second: psycopg.Connection
) -> None:
    """The setting in which the snapshot is handed on is set anew for each row."""
    first.execute("update account set balance = 1 where id = 1")
    second.execute("set gdpr.seen = '9999999:9999999:'")
    end = waiting(second, lambda: second.execute("update account set balance = 2 where id = 1"))
    first.commit()
    assert isinstance(end(), psycopg.errors.SerializationFailure)


def test_above_read_committed_it_is_postgresqls_own_refusal(
    first: psycopg.Connection, second: psycopg.Connection
) -> None:
    second.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with refused("40001"), second.transaction():
        second.execute(ROW.encode())
        first.execute("update account set balance = 1 where id = 1")
        first.commit()
        second.execute("update account set balance = 2 where id = 1")
    with second.transaction():
        assert second.execute("update account set balance = 2 where id = 1").rowcount == 1
