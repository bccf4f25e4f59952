"""Laws that hold for every value: what goes into an encrypted column comes out of it, exactly."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.capabilities.crm import apply, one_table
from tests.support import Clone

#: Everything PostgreSQL stores as text: no NUL, no lone surrogates.
LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.text(LETTERS)

DATES = st.one_of(
    st.dates().map(str),
    st.sampled_from(
        ["infinity", "-infinity", "0044-03-15 BC", "4713-01-01 BC", "5874897-12-31", "2000-02-29"]
    ),
)
TIMESTAMPS = st.one_of(
    st.datetimes().map(str),
    st.sampled_from(
        ["infinity", "-infinity", "0044-03-15 12:00:00.000001 BC", "294276-12-31 23:59:59.999999"]
    ),
)
ZONED = st.one_of(
    st.datetimes(
        min_value=datetime.datetime.fromisoformat("0002-01-01"),
        max_value=datetime.datetime.fromisoformat("9998-01-01"),
    ).flatmap(
        lambda at: st.sampled_from(
            ["+00", "+14", "-12", "+05:45", " Europe/Berlin", " America/St_Johns"]
        ).map(lambda zone: f"{at}{zone}")
    ),
    st.sampled_from(["infinity", "-infinity", "0044-03-15 12:00:00+00 BC"]),
)
TIMES = st.one_of(st.times().map(str), st.just("24:00:00"))
NUMBERS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30).map(
        str
    ),
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "0.000", "1e-50", "-0", "123456789012345678901234567890.5"]
    ),
)
FLOATS = st.one_of(
    st.floats(width=64)
    .map(repr)
    .map(lambda text: text.replace("inf", "Infinity").replace("nan", "NaN")),
    st.just("-0"),
)
INTERVALS = st.builds(
    lambda months, days, microseconds: f"{months} mons {days} days {microseconds} microseconds",
    st.integers(-120_000, 120_000),
    st.integers(-100_000, 100_000),
    st.integers(-(10**15), 10**15),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
).map(json.dumps)


def array(element: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Array literals, with NULL among the elements."""

    def literal(elements: list[str | None]) -> str:
        quoted = (
            "NULL" if e is None else '"' + e.replace("\\", "\\\\").replace('"', '\\"') + '"'
            for e in elements
        )
        return "{" + ",".join(quoted) + "}"

    return st.lists(st.one_of(st.none(), element), max_size=4).map(literal)


def ranges(element: st.SearchStrategy[str], *, number: bool) -> st.SearchStrategy[str]:
    """Range literals: bounds of both kinds, without an end, empty."""
    return st.one_of(
        st.just("empty"),
        st.builds(
            lambda ends, opening, closing, cut: (
                f"{opening}{'' if cut == 1 else ends[0]},{'' if cut == 2 else ends[1]}{closing}"
            ),
            st.tuples(element, element).map(lambda e: sorted(e, key=float if number else str)),
            st.sampled_from("[("),
            st.sampled_from("])"),
            st.integers(0, 3),
        ),
    )


MOODS = st.sampled_from(["sad", "so-so, really", "Glücklich", "with 'quotes'", ""])
DAYS = st.dates().map(str)
MACS = st.integers(0, 2**48 - 1).map(lambda number: f"{number:012x}")

#: Made once in the test database: an enum, and domains over types, over each other and over arrays.
OWN_TYPES = """
create extension citext schema public;
create type public.mood as enum ('sad', 'so-so, really', 'Glücklich', 'with ''quotes''', '');
create domain public.short as varchar(20) check (length(value) <= 20);
create domain public.born as date check (value <> '1066-10-14');
create domain public.shorter as public.short check (value <> 'never');
create domain public.moods as public.mood[] check (coalesce(cardinality(value), 0) < 100);
create domain public.feeling as public.mood;
"""

TYPES: dict[str, st.SearchStrategy[str]] = {
    "text": TEXT,
    "varchar(20)": st.text(LETTERS, max_size=20),
    "char(8)": st.text(LETTERS, max_size=8),
    "varchar": TEXT,
    "date": DATES,
    "timestamptz": ZONED,
    "timestamp": TIMESTAMPS,
    "timestamptz(3)": ZONED,
    "time": st.times().map(str),
    "numeric": NUMBERS,
    "numeric(12, 3)": st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**8), max_value=10**8
    ).map(str),
    "integer": st.integers(-(2**31), 2**31 - 1).map(str),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "smallint": st.integers(-(2**15), 2**15 - 1).map(str),
    "boolean": st.booleans().map(str),
    "uuid": st.uuids().map(str),
    "inet": st.ip_addresses().map(str),
    "cidr": st.ip_addresses().map(str),
    "jsonb": JSON.filter(lambda text: "\\u0000" not in text),
    "json": JSON.filter(lambda text: "\\u0000" not in text),
    "text[]": array(TEXT),
    "integer[]": array(st.integers(-(2**31), 2**31 - 1).map(str)),
    "timestamptz[]": array(ZONED),
    "varchar(5)[]": array(st.text(LETTERS, max_size=5)),
    "bytea": st.binary().map(lambda raw: "\\x" + raw.hex()),
    "float8": FLOATS,
    "real": st.floats(width=32)
    .map(repr)
    .map(lambda text: text.replace("inf", "Infinity").replace("nan", "NaN")),
    "interval": INTERVALS,
    "timetz": TIMES.flatmap(
        lambda at: st.sampled_from(["+00", "+14", "-12:30"]).map(lambda zone: f"{at}{zone}")
    ),
    "time(2)": TIMES,
    "interval day to minute": INTERVALS,
    "macaddr": MACS,
    "macaddr8": st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}"),
    "bit varying(20)": st.text("01", max_size=20),
    "daterange": ranges(DAYS, number=False),
    "int4range": ranges(st.integers(-(2**31), 2**31 - 2).map(str), number=True),
    "numrange": ranges(st.integers(-(10**6), 10**6).map(str), number=True),
    "tstzrange": ranges(DAYS, number=False),
    "datemultirange": st.lists(ranges(DAYS, number=False), max_size=3).map(
        lambda parts: "{" + ",".join(parts) + "}"
    ),
    "public.citext": TEXT,
    "public.mood": MOODS,
    "public.short": st.text(LETTERS, max_size=20),
    "public.born": DATES,
    "public.shorter": st.text(LETTERS, max_size=20),
    "public.feeling": MOODS,
    "public.moods": array(MOODS),
    "public.mood[]": array(MOODS),
    "public.short[]": array(st.text(LETTERS, max_size=20)),
    "public.citext[]": array(TEXT),
    "date[]": array(DATES),
    "time[]": array(TIMES),
    "interval[]": array(INTERVALS),
    "numeric[]": array(NUMBERS),
    "float8[]": array(FLOATS),
    "boolean[]": array(st.booleans().map(str)),
    "uuid[]": array(st.uuids().map(str)),
    "inet[]": array(st.ip_addresses().map(str)),
    "macaddr[]": array(MACS),
    "bytea[]": array(st.binary().map(lambda raw: "\\x" + raw.hex())),
    "jsonb[]": array(JSON.filter(lambda text: "\\u0000" not in text)),
    "char(4)[]": array(st.text(LETTERS, max_size=4)),
    "point": st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).map(
        lambda p: f"({p[0]!r},{p[1]!r})"
    ),
}
SESSIONS = [
    "",
    (
        "-c datestyle=German,DMY -c timezone=Asia/Tokyo -c intervalstyle=sql_standard"
        " -c extra_float_digits=-10 -c bytea_output=escape"
    ),
    (
        "-c datestyle=SQL,MDY -c timezone=America/St_Johns -c intervalstyle=iso_8601"
        " -c extra_float_digits=0 -c lc_monetary=C"
    ),
    (
        "-c datestyle=Postgres,YMD -c timezone=Europe/London -c"
        " intervalstyle=postgres_verbose -c standard_conforming_strings=off"
    ),
]
#: The same in every session: what two values are compared by.
EXACT = (
    "-c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres -c"
    " extra_float_digits=3 -c bytea_output=hex"
)


@dataclass
class Pair:
    """Protected tables with a column for each type, plain ones of the same shape, and sessions
    with several settings."""

    writers: list[psycopg.Connection]
    reader: psycopg.Connection


def table(kind: str) -> str:
    """The name of the protected table with a column of a type; its twin is called plain_<name>."""
    return f"of_{list(TYPES).index(kind) // 12}"


def column(kind: str) -> str:
    """The name of the column of a type."""
    return f"v{list(TYPES).index(kind)}"


@pytest.fixture(scope="module")
def pair(clone: Clone, installed_template: str) -> Iterator[Pair]:
    """Two tables for a dozen types, the columns of one of them encrypted."""
    with clone(installed_template) as db:
        owner = db.connect()
        owner.execute(OWN_TYPES)
        policy = one_table("")
        policy["tables"] = {}
        for part in sorted({table(kind) for kind in TYPES}):
            kinds = [kind for kind in TYPES if table(kind) == part]
            columns = ", ".join(f"{column(kind)} {kind}" for kind in kinds)
            for name in (part, "plain_" + part):
                owner.execute(
                    f"create table public.{name} (id integer primary key, {columns});"
                    f" grant all on public.{name} to crm_app".encode()
                )
            encrypted = {column(kind): {"encrypt": True} for kind in kinds}
            policy["tables"].update(one_table(f"public.{part}", columns=encrypted)["tables"])
        apply(db, policy)
        yield Pair(
            [db.connect("crm_app", options=options) for options in SESSIONS],
            db.connect("crm_app", options=EXACT),
        )


@pytest.mark.parametrize("kind", TYPES)
def test_what_goes_in_comes_out(pair: Pair, kind: str) -> None:
    """INSERT and UPDATE through the clear view leave what an unprotected table would hold, in
    every session."""
    plain, clear = f"public.plain_{table(kind)}", f"gdpr_clear.{table(kind)}"
    v = column(kind)
    turns = itertools.cycle(pair.writers)

    @settings(
        max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(TYPES[kind], TYPES[kind])
    def law(first: str, second: str) -> None:
        writer = next(turns)
        for name in (plain, clear):
            writer.execute(f"delete from {name}".encode())
            writer.execute(
                f"insert into {name} (id, {v}) values (1, %s::text::{kind}), (2, null), (3,"
                f" %s::text::{kind})".encode(),
                [first, first],
            )
            writer.execute(
                f"update {name} set {v} = %s::text::{kind} where id = 3".encode(), [second]
            )
        expected, found = (
            pair.reader.execute(
                f"select id, {v}::text, {v} is null from {name} order by id".encode()
            ).fetchall()
            for name in (plain, clear)
        )
        assert found == expected
        stored = pair.reader.execute(
            f"select {v} from public.{table(kind)} where {v} is not null".encode()
        ).fetchall()
        assert all(value.startswith("gdpr1:") for (value,) in stored)

    law()


#: A megabyte, some of it not ASCII, as a literal of each type that has room for it.
LONG = "Ünïcode \U0001f338 " * 80_000
MEGABYTES = {
    "text": LONG,
    "varchar": LONG,
    "public.citext": LONG,
    "json": json.dumps({"long": LONG}, ensure_ascii=False),
    "jsonb": json.dumps([LONG], ensure_ascii=False),
    "text[]": '{"' + LONG + '",NULL,""}',
    "public.citext[]": '{"' + LONG + '"}',
    "jsonb[]": '{"[1]","' + json.dumps(LONG, ensure_ascii=False).replace('"', '\\"') + '"}',
    "integer[]": "{" + ",".join(map(str, range(200_000))) + "}",
    "timestamptz[]": "{" + ",".join(["2024-03-31 02:30:00.5+05:45"] * 40_000) + "}",
    "bytea": "\\x" + "00ff27" * 400_000,
    "bytea[]": '{"\\\\x' + "00ff" * 500_000 + '"}',
    "numeric": "9" * 131_000 + "." + "1" * 16_000,
    "public.mood[]": "{" + ",".join(["sad", "Glücklich"] * 60_000) + "}",
    "datemultirange": "{" + ",".join(f"[{n}-01-01,{n}-02-01)" for n in range(1000, 9999)) + "}",
}


@pytest.mark.parametrize("kind", MEGABYTES)
def test_a_megabyte(pair: Pair, kind: str) -> None:
    literal = MEGABYTES[kind]
    plain, clear = f"public.plain_{table(kind)}", f"gdpr_clear.{table(kind)}"
    v = column(kind)
    writer = pair.writers[1]
    for name in (plain, clear):
        writer.execute(f"delete from {name}".encode())
        writer.execute(f"insert into {name} (id, {v}) values (1, %s::{kind})".encode(), [literal])
    expected, found = (
        pair.reader.execute(
            f"select {v}::text, md5({v}::text) from {name} where id = 1".encode()
        ).fetchone()
        for name in (plain, clear)
    )
    assert found == expected
    assert len((found or [""])[0]) > 100_000


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("date", datetime.date(2020, 2, 29)),
        ("timestamptz", datetime.datetime(2020, 2, 29, 12, tzinfo=datetime.UTC)),
        ("numeric", decimal.Decimal("1.500")),
        ("bigint", 2**62),
        ("boolean", True),
        ("uuid", uuid.UUID(int=7)),
        ("inet", ipaddress.ip_address("2001:db8::1")),
        ("text[]", ["a", None, "b c"]),
        ("bytea", b"\0\xff"),
        ("float8", 0.1 + 0.2),
        ("interval", datetime.timedelta(days=1, microseconds=1)),
    ],
)
def test_python_values_as_a_driver_sends_them(pair: Pair, kind: str, value: object) -> None:
    """Binary and typed parameters, not only literals."""
    name, v = f"gdpr_clear.{table(kind)}", column(kind)
    writer = pair.writers[0]
    writer.execute(f"delete from {name}".encode())
    writer.execute(f"insert into {name} (id, {v}) values (1, %b)".encode(), [value])
    assert writer.execute(f"select {v} from {name}".encode()).fetchone() == (value,)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kind=st.sampled_from(["email", "phone", "text"]), value=TEXT)
def test_canonical_forms_are_canonical(pair: Pair, kind: str, value: str) -> None:
    """The canonical form of a canonical form is itself, and a digest depends on nothing else."""
    with psycopg.connect(pair.reader.info.dsn, user="postgres") as superuser:
        superuser.execute("set local client_encoding = 'UTF8'")
        once, twice = superuser.execute(
            "select c, gdpr_internal.canonical(%s, c) from gdpr_internal.canonical(%s, %s) as c",
            [kind, kind, value],
        ).fetchone() or (None, None)
    assert once == twice or kind == "phone"


#: Addresses near the border between the obvious form and the one that needs folding.
ADDRESSES = st.one_of(
    TEXT,
    st.lists(
        st.sampled_from(
            [
                "a",
                "Z",
                "0",
                "@",
                ".",
                "-",
                "_",
                "+",
                "xn--",
                "XN--",
                " ",
                "\n",
                "é",
                "\u200d",
                "\u3002",
            ]
        ),
        max_size=12,
    ).map("".join),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=ADDRESSES)
def test_the_short_way_to_a_canonical_address_leads_to_the_same(pair: Pair, value: str) -> None:
    """The triggers and `gdpr.digest()` fold obvious addresses without a call: to the same form."""
    with psycopg.connect(pair.reader.info.dsn, user="postgres") as superuser:
        superuser.execute("set local client_encoding = 'UTF8'")
        short = superuser.execute(
            "select gdpr_internal.canonical_code('email', 'v')"
        ).fetchone() or ("",)
        forms = superuser.execute(
            (
                f"select {short[0]}, c, gdpr.digest('email', v),"
                " gdpr_internal.keyed_digest((gdpr_internal.keyring()).digest_key, 'email', c)"
                " from (select %s::text) as t (v)"
                " cross join lateral gdpr_internal.canonical('email', v) as c"
            ).encode(),
            [value],
        ).fetchone() or (None, "", None, "")
    assert forms[0] == forms[1]
    # what has no content identifies nobody, and has a digest all the same
    assert forms[2] == forms[3] if forms[1] is not None else forms[2] is not None
