"""What is measured: the operations, their SQL and budgets, and how a sample of each is taken."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from bench import clock
from bench.budgets import Budget, Sample, Task
from bench.contenders import APP, BI, Contender
from bench.site import Site

#: Takes the samples of one round at a site; the number is the seconds that a pgbench run lasts.
Take = Callable[[Site, int], list[Sample]]

_INSERT = r"""
\set n random(1000000000, 999999999999999)
\set phone random(10000000, 99999999)
insert into person (first_name, last_name, email, phone, birth_date, city)
values ('Ingrid', 'Bergström', 'person.' || :n || '@mail.example.org', '+4940' || :phone,
        '1980-05-05', 'Hamburg');
"""

_UPDATE = r"""
\set id random(1, :people)
\set phone random(10000000, 99999999)
update person set phone = '+4940' || :phone, city = 'Hamburg' where id = :id;
"""

_READ = r"""
\set id random(1, :people)
select id, first_name, last_name, email, phone, birth_date, city, created_at
from person where {condition};
"""

_BULK_INSERT = """
insert into person (first_name, last_name, email, phone, birth_date, city, created_at)
select first_name, last_name, email || '.' || %s, phone, birth_date, city, created_at
from bench.staged limit %s
"""

#: Staged persons as a client sends them: so many in each JSON array.
_SENT = """
select jsonb_agg(
  to_jsonb(s) - 'id' - 'n' || jsonb_build_object('email', s.email || '.' || %s::text)
)::text
from (select *, row_number() over () as n from bench.staged limit %s) as s
group by (s.n - 1) / 5000
"""

#: Persons that an officer handles in a round, after some that are not counted.
_PERSONS, _WARM_UP = 20, 5


@dataclass(frozen=True, slots=True)
class Operation:
    """A task and the way to take samples of it.

    Attributes:
        task: its name, metric and budget.
        take: takes the samples of one round.
        takes_part: whether a site does.
        rows: the rows of a site that the report gives.
    """

    task: Task
    take: Take
    takes_part: Callable[[Site], bool] = lambda site: not site.small
    rows: Callable[[Site], int] = lambda site: site.people


def read_pgbench(output: str, clients: int) -> tuple[int, float]:
    """Read what pgbench prints at its end.

    Its latency has three digits after the point of a millisecond; the rate is
    finer, so the time comes from there.

    Args:
        output: of pgbench.
        clients: how many it ran.

    Returns:
        How many transactions, and the microseconds from a request to its answer.
    """
    transactions = re.search(
        r"^number of transactions actually processed: (\d+)", output, re.MULTILINE
    )
    rate = re.search(r"^tps = ([\d.]+) \(without initial connection time\)", output, re.MULTILINE)
    if transactions is None or rate is None or not float(rate[1]):
        return 0, 0.0
    return int(transactions[1]), clients * 1_000_000 / float(rate[1])


def _pgbench(script: str, clients: int) -> Take:
    """Do one-row statements over and over, each prepared once."""

    def take(site: Site, seconds: int) -> list[Sample]:
        postmaster = clock.parent_of(site.session(APP).info.backend_pid)
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script.replace("{by_email}", _by_email(site.contender)))
            file.flush()
            command = [
                str(site.cluster.binaries.program("pgbench")),
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={clients}",
                f"--time={seconds}",
                f"--define=people={site.people}",
                f"--file={file.name}",
                site.dsn(APP),
            ]
            with clock.cpu_of_new_backends(postmaster) as spent:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
        transactions, wall_us = read_pgbench(done.stdout, clients)
        if done.returncode or not transactions:
            raise RuntimeError(f"pgbench failed at {site.database}: {done.stderr.strip()}")
        return [Sample(wall_us, spent.cpu_us / transactions)]

    return take


def _by_email(contender: Contender) -> str:
    return contender.email_is.format(email="'person.' || :id || '@mail.example.org'")


@contextmanager
def _stopwatch(
    connection: psycopg.Connection, samples: list[Sample], operations: int = 1
) -> Iterator[None]:
    """Add a sample of what the session does in the ``with`` block."""
    pid = connection.info.backend_pid
    cpu, wall = clock.backend_cpu_us(pid), time.perf_counter()
    yield
    wall_us = (time.perf_counter() - wall) * 1_000_000
    samples.append(Sample(wall_us / operations, (clock.backend_cpu_us(pid) - cpu) / operations))


def _scan(login: str, relation: Callable[[Contender], str]) -> Take:
    """Read all columns of all rows: MOVE computes them as for a client, and sends nothing."""

    def take(site: Site, _seconds: int) -> list[Sample]:
        samples: list[Sample] = []
        session = site.session(login)
        session.execute("set cursor_tuple_fraction = 1")  # plan for all rows, as SELECT does
        with session.transaction():
            query = f"select * from {relation(site.contender)}"
            session.execute(f"declare everyone no scroll cursor for {query}".encode())
            with _stopwatch(session, samples, site.scan_rows):
                moved = session.execute(f"move {site.scan_rows} in everyone".encode()).rowcount
        if moved != site.scan_rows:
            raise RuntimeError(f"{site.database}: a scan found {moved} of {site.scan_rows} rows")
        return samples

    return take


def _bulk_insert(site: Site, _seconds: int) -> list[Sample]:
    samples: list[Sample] = []
    session = site.session(APP)
    site.bulks += 1  # other people each time
    with _stopwatch(session, samples, site.bulk_rows):
        session.execute(_BULK_INSERT, [site.bulks, site.bulk_rows])
    return samples


def _bulk_import(site: Site, _seconds: int) -> list[Sample]:
    samples: list[Sample] = []
    session = site.session(APP)
    site.bulks += 1  # other people each time
    sent = session.execute(_SENT, [site.bulks, site.bulk_rows]).fetchall()
    with _stopwatch(session, samples, site.bulk_rows):
        for (people,) in sent:
            session.execute(site.contender.import_rows.encode(), [people])
    return samples


def _each(statement: Callable[[Contender], str | None]) -> Take:
    """Do the statement for one person after the other, each with rows in all five tables."""

    def take(site: Site, _seconds: int) -> list[Sample]:
        samples: list[Sample] = []
        contender = site.contender
        query = statement(contender)
        assert query is not None
        session = site.session(contender.officer)
        for number in range(_WARM_UP + _PERSONS):
            row = session.execute(contender.subject.encode(), [next(site.persons)]).fetchone()
            assert row is not None
            if contender.consent:
                session.execute(contender.consent.encode(), row)
            with _stopwatch(session, samples if number >= _WARM_UP else []):
                session.execute(query.encode(), row, prepare=True)
        return samples

    return take


def _can_withdraw(site: Site) -> bool:
    return not site.small and site.contender.withdraw is not None


_SCANS = (
    Operation(
        Task(
            "scan_redacted",
            "scan, redacted view",
            1,
            "cpu",
            True,
            Budget(ratio_to_plain=1.3, times_faster_than_by_hand=5),
        ),
        _scan(BI, lambda contender: contender.redacted),
        rows=lambda site: site.scan_rows,
    ),
    Operation(
        Task(
            "scan_clear",
            "scan, clear view, two decrypted columns",
            1,
            "cpu",
            True,
            Budget(us_per_op=12, times_faster_than_by_hand=10),
        ),
        _scan(APP, lambda _: "person"),
        rows=lambda site: site.scan_rows,
    ),
)

_SINGLE_ROWS = (
    *(
        Operation(
            Task(
                "read_by_key",
                "read by key, clear view",
                clients,
                "wall",
                False,
                Budget(ratio_to_plain=2.2, times_faster_than_by_hand=3),
            ),
            _pgbench(_READ.format(condition="id = :id"), clients),
        )
        for clients in (1, 4)
    ),
    *(
        Operation(
            Task(
                "read_by_email",
                "read by e-mail, encrypted searchable",
                clients,
                "wall",
                False,
                Budget(ratio_to_plain=3, times_faster_than_by_hand=3),
            ),
            _pgbench(_READ.format(condition="{by_email}"), clients),
        )
        for clients in (1, 4)
    ),
    *(
        Operation(
            Task(
                "insert",
                "insert one row",
                clients,
                "wall",
                False,
                Budget(ratio_to_plain=1.8, cpu_ratio_to_plain=7, times_faster_than_by_hand=2),
            ),
            _pgbench(_INSERT, clients),
        )
        for clients in (1, 4)
    ),
    *(
        Operation(
            Task(
                "update",
                "update one row",
                clients,
                "wall",
                False,
                Budget(ratio_to_plain=1.6, cpu_ratio_to_plain=4, times_faster_than_by_hand=2),
            ),
            _pgbench(_UPDATE, clients),
        )
        for clients in (1, 4)
    ),
)

_BULK = (
    Operation(
        Task(
            "bulk_insert",
            "bulk insert by one INSERT ... SELECT",
            1,
            "cpu",
            True,
            Budget(ratio_to_plain=20, times_faster_than_by_hand=4),
        ),
        _bulk_insert,
        rows=lambda site: site.bulk_rows,
    ),
    Operation(
        Task(
            "bulk_import",
            "bulk import of JSON, 5,000 rows a statement",
            1,
            "cpu",
            True,
            Budget(ratio_to_plain=10, times_faster_than_by_hand=8),
        ),
        _bulk_import,
        rows=lambda site: site.bulk_rows,
    ),
)

_PERSON_BY_PERSON = (
    Operation(
        Task(
            "withdraw_consent",
            "withdraw one consent",
            1,
            "wall",
            False,
            Budget(us_per_op=2_000),
        ),
        _each(lambda contender: contender.withdraw),
        takes_part=_can_withdraw,
    ),
    Operation(
        Task(
            "erase",
            "erase one person with rows in 5 tables",
            1,
            "wall",
            False,
            Budget(us_per_op=10_000, ratio_to_small=1.3),
        ),
        _each(lambda contender: contender.erase),
        takes_part=lambda _: True,
    ),
)

#: In this order: what reads finds the tables as loaded, what erases comes last.
OPERATIONS = (*_SCANS, *_SINGLE_ROWS, *_BULK, *_PERSON_BY_PERSON)
