"""Whatever a column holds, it holds after it became text, was encrypted and is read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.capabilities.crm import one_table
from tests.capabilities.enabling import finish, take
from tests.support import Clone, Database

_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
).filter(lambda text: not text.startswith("gdpr1:"))
_INTEGERS = st.integers(-(2**31), 2**31 - 1)
_JSON = st.recursive(
    st.none() | st.booleans() | _INTEGERS | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)

#: Each type, and what is said in its words.
TYPES: dict[str, st.SearchStrategy[str]] = {
    "date": st.dates().map(str) | st.sampled_from(["infinity", "0044-03-15 BC"]),
    "timestamp": st.datetimes().map(str),
    "timestamptz": st.datetimes().map(str) | st.just("-infinity"),
    "time": st.times().map(str),
    "interval": st.tuples(_INTEGERS, st.integers(-999, 999), st.integers(-(10**9), 10**9)).map(
        lambda v: f"{v[0] % 999} mons {v[1]} days {v[2]} microseconds"
    ),
    "numeric": st.decimals(-(10**9), 10**9).map(str) | st.just("NaN"),
    "bigint": st.integers(-(2**63), 2**63 - 1).map(str),
    "real": st.floats(width=32).map(repr),
    "double precision": st.floats().map(repr),
    "boolean": st.sampled_from(["true", "false"]),
    "uuid": st.uuids().map(str),
    "inet": st.ip_addresses().map(str),
    "jsonb": _JSON.map(json.dumps).filter(lambda v: "\\u0000" not in v),
    "json": _JSON.map(json.dumps),
    "bytea": st.binary(max_size=9).map(lambda v: "\\x" + v.hex()),
    "integer[]": st.lists(_INTEGERS | st.just("NULL"), max_size=4).map(
        lambda v: "{" + ",".join(map(str, v)) + "}"
    ),
    "character(9)": _TEXT,
    "int4range": st.tuples(_INTEGERS, _INTEGERS).map(
        lambda v: f"[{min(v)},{min(max(v), 2**31 - 2)}]" if max(v) < 2**31 - 1 else "empty"
    ),
}

NAMES = [f"c{n}" for n in range(len(TYPES))]
POLICY: dict[str, Any] = one_table(
    "public.thing",
    columns={"id": {"category": "key"}}
    | {name: {"category": "other", "encrypt": True} for name in NAMES},
)


@pytest.fixture
def things(clone: Clone, shop_template: str) -> Iterator[Database]:
    with clone(shop_template) as database:
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(NAMES, TYPES, strict=True))
        database.rows(f"create table thing (id serial primary key, {columns})")
        database.rows("grant select on thing to crm_app")
        yield database


@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[*HealthCheck],
)
@given(
    rows=st.lists(
        st.tuples(*(st.none() | values for values in TYPES.values())), min_size=20, max_size=60
    )
)
def test_values_are_what_they_were(things: Database, rows: list[tuple[str | None, ...]]) -> None:
    values = ", ".join(f"%s::{kind}" for kind in TYPES)
    with psycopg.connect(things.dsn(), autocommit=True) as connection:
        connection.execute("delete from thing")
        connection.cursor().executemany(
            f"insert into thing ({', '.join(NAMES)}) values ({values})".encode(), rows
        )
    texts = ", ".join(f"gdpr.text_of({name})" for name in NAMES)
    read = f"select id, {texts} from %s order by id"
    before = things.rows(read % "thing")
    take(things, policy=POLICY)
    finish(things, POLICY)
    assert things.rows(read % "gdpr_clear.thing", user="crm_app") == before
    sealed = " and ".join(f"coalesce(starts_with({name}, 'gdpr1:'), true)" for name in NAMES)
    assert things.rows(f"select bool_and({sealed}) from thing", user="postgres") == [(True,)]
    things.rows("select gdpr.unprotect('thing')")
    assert things.rows(read % "thing") == before
