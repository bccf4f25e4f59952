"""The audit of years: a person's records, an actor's, a row's, among many millions.

Some persons have real records, made by the application in this month; they are copied into the 24
months before, where the rest is filled in by statements, and indexed as gdprdb does it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import psycopg
from rich.console import Console

from bench import clock
from bench.audit.site import AUDIT, AUDITOR
from bench.contenders import APP, DPO, OWNER
from bench.lines import Line
from gdprdb.server import Cluster

#: Months that are filled, persons with real records, and their changes.
_MONTHS, _REAL, _CHANGES = 24, 40, 10

#: Milliseconds that each question may take.
BUDGETS = {
    "a person's records": 20.0,
    "a person's records, old values opened": 100.0,
    "the versions of a row": 100.0,
    "the versions of a deleted row, whose is not said": 200.0,
    "the last 1,000 records of an actor": 500.0,
    "the last 1,000 records of a purpose that is rare": 500.0,
    "the last 20 records": 20.0,
}

#: A month: most is made up, and what real persons have in this month they have in each.
_MONTH = """
create table gdpr_internal.{name} (like gdpr_internal.audit_record including defaults);
alter table gdpr_internal.{name} owner to gdpr_owner;
insert into gdpr_internal.{name} (
  id, at, operation, table_id, subject_id, row_key, purpose_id, actor, login, role,
  application_name, changed, row_hash, payload
)
select
  {first} + n, timestamptz '{start}' + n * interval '27 days' / {records},
  case when n % 20 = 0 then 'DELETE' else 'UPDATE' end, n % 5 + 1,
  1000000 + abs(hashint8({first} + n)::bigint) % {persons}, md5(({first} + n)::text)::uuid,
  (
    select id from gdpr_internal.purpose
    where name = case when n % 10000 = 0 then 'marketing' else 'orders' end
  ),
  'clerk ' || n % 20000,
  'crm_app', 'crm_app', 'shop', '{{phone,city}}', sha256(int8send(n)),
  'gdpr1:' || repeat(md5(n::text), 5)
from generate_series(1, {records}) as n;
insert into gdpr_internal.{name} (
  id, at, operation, table_id, subject_id, row_key, purpose_id, actor, login, role,
  application_name, changed, row_hash, payload
)
select
  {first} - 100000 + row_number() over (order by a.id),
  timestamptz '{start}' + interval '9 days' + (a.at - date_trunc('day', a.at)),
  a.operation, a.table_id, a.subject_id, a.row_key, a.purpose_id, a.actor, a.login, a.role,
  a.application_name, a.changed, a.row_hash, a.payload
from gdpr_internal.audit_record as a
where a.operation = 'UPDATE' and a.subject_id <= {real} and a.at > now() - interval '1 day';
"""
_ATTACH = """
alter table gdpr_internal.audit_record attach partition gdpr_internal.{name}
  for values from ('{start}') to (timestamptz '{start}' + interval '1 month')
"""


def measure(cluster: Cluster, records: int, words: Console) -> Iterator[Line]:
    """Fill in so many records, and ask.

    Args:
        cluster: the server.
        records: how many, all in all.
        words: told what happens.
    """
    _work(cluster)
    start = time.perf_counter()
    _fill(cluster, records)
    words.print(f"{records:,} records filled in {time.perf_counter() - start:.0f} s")
    with psycopg.connect(cluster.dsn(AUDIT, OWNER), autocommit=True) as owner:
        start = time.perf_counter()
        owner.execute("select * from gdpr.tidy()")
        words.print(f"tidied in {time.perf_counter() - start:.0f} s")
    with psycopg.connect(cluster.dsn(AUDIT), autocommit=True) as postgres:
        postgres.execute("analyze gdpr_internal.audit_record")
        ((size,),) = postgres.execute(
            "select sum(pg_total_relation_size(inhrelid))::bigint / 1048576 from pg_inherits"
            " where inhparent = 'gdpr_internal.audit_record'::regclass"
        ).fetchall()
        words.print(f"{size:,} MB")
    with (
        psycopg.connect(cluster.dsn(AUDIT, AUDITOR), autocommit=True) as auditor,
        psycopg.connect(cluster.dsn(AUDIT, DPO), autocommit=True) as officer,
    ):
        log = "select * from gdpr.audit_log where {} order by id desc{}"
        by_person, last = log.format("subject_id = %s", ""), log.format("true", " limit 20")
        by_actor = log.format("actor = %s", " limit 1000")
        by_purpose = log.format("purpose_id = %s", " limit 1000")
        ((rare,),) = auditor.execute("select gdpr.audit_purpose_id('marketing')").fetchall()
        history = "select * from gdpr.history('public.person', %s)"
        people = range(1, _REAL + 1)
        for what, session, statement, values in (
            ("a person's records", auditor, by_person, list(people)),
            ("a person's records, old values opened", officer, by_person, list(people)),
            ("the versions of a row", officer, history, [str(n) for n in people]),
            (
                "the versions of a deleted row, whose is not said",
                officer,
                history,
                [str(n) for n in range(_REAL + 1, _REAL + 11)],
            ),
            (
                "the last 1,000 records of an actor",
                auditor,
                by_actor,
                [f"clerk {n}" for n in range(10)],
            ),
            ("the last 1,000 records of a purpose that is rare", auditor, by_purpose, [rare] * 5),
            ("the last 20 records", auditor, last, [None] * 5),
        ):
            yield _ask(session, what, records, statement, values)


def _work(cluster: Cluster) -> None:
    """Some persons are changed in this month, and some of them deleted."""
    with psycopg.connect(cluster.dsn(AUDIT), autocommit=True) as postgres:
        for trigger in _triggers(postgres):
            postgres.execute(f"alter table public.person enable always trigger {trigger}".encode())
    with psycopg.connect(cluster.dsn(AUDIT, APP), autocommit=True) as app:
        for number in range(1, _REAL + 11):
            for change in range(_CHANGES):
                app.execute(
                    "update gdpr_clear.person set city = %s, phone = %s where id = %s",
                    [f"City {change}", f"+49 711 {change}", number],
                )
        for table in ("purchase", "invoice", "ticket", "visit"):
            app.execute(f"delete from gdpr_clear.{table} where person_id > {_REAL}".encode())
        app.execute(
            "delete from gdpr_clear.person where id between %s and %s", [_REAL + 1, _REAL + 10]
        )


def _triggers(postgres: psycopg.Connection) -> list[str]:
    """The triggers of gdprdb on persons that are changed or deleted."""
    return [
        name
        for (name,) in postgres.execute(
            "select tgname from pg_trigger"
            " where tgrelid = 'public.person'::regclass and tgname ~ '^zzz_gdpr'"
            " and tgname !~ '^zzz_gdpr_50_audit_'"
        )
    ]


def _fill(cluster: Cluster, records: int) -> None:
    """Make the months before this one, two at a time."""
    with psycopg.connect(cluster.dsn(AUDIT), autocommit=True) as postgres:
        months = [
            row[0]
            for row in postgres.execute(
                "select to_char(date_trunc('month', now() at time zone 'UTC')"
                " - n * interval '1 month', 'YYYY-MM') from generate_series(1, %s) as n",
                [_MONTHS],
            )
        ]

    def month(number: int) -> None:
        name = f"audit_record_{months[number - 1].replace('-', '_')}"
        start = f"{months[number - 1]}-01 00:00+00"
        each = records // _MONTHS
        values: dict[str, Any] = {
            "name": name,
            "start": start,
            "records": each,
            "first": -(number + 1) * (each + 200_000),
            "persons": max(records // 20, 1),
            "real": _REAL,
        }
        with psycopg.connect(cluster.dsn(AUDIT)) as postgres:
            postgres.execute("set maintenance_work_mem = '512MB'")
            postgres.execute(_MONTH.format(**values).encode())
            postgres.commit()
            postgres.execute(_ATTACH.format(**values).encode())

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(month, number) for number in range(1, _MONTHS + 1)]:
            done.result()


def _ask(
    session: psycopg.Connection, what: str, records: int, statement: str, values: Sequence[Any]
) -> Line:
    """The median time of a question, asked once before."""

    def ask(value: Any) -> int:
        parameters = [value] if "%s" in statement else None
        return len(session.execute(statement.encode(), parameters).fetchall())

    ask(values[-1])
    pid = session.info.backend_pid
    times, cpu = [], clock.backend_cpu_us(pid)
    for value in values:
        start = time.perf_counter()
        found = ask(value)
        times.append(time.perf_counter() - start)
        assert found, what
    cpu = (clock.backend_cpu_us(pid) - cpu) / len(values)
    return Line(what, records, median(times) * 1000, cpu / 1000, "ms", BUDGETS[what])
