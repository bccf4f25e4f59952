"""Station 70: what leaves for the analysts: the same shape, masked, and never decrypted on the
way."""

from __future__ import annotations

import pytest

from tests.capabilities.crm import POLICY, apply, one_table, policy, refused, subject
from tests.support import Database

COLUMNS = """
    select attname, format_type(atttypid, atttypmod) from pg_attribute
    where attrelid = %s::text::regclass and attnum > 0 and not attisdropped order by attnum"""


def test_a_redacted_view_has_the_shape_of_the_table(shop: Database) -> None:
    shapes = {
        name: shop.rows(COLUMNS, [f"crm.{name}"])
        for name in ("customer", '"order"', "order_line", "lead")
    }
    apply(shop, POLICY)
    for name, shape in shapes.items():
        assert shop.rows(COLUMNS, [f"gdpr_bi.{name}"], user="postgres") == [
            ("subject_ref", "uuid"),
            *shape,
        ]


def test_masks(crm: Database) -> None:
    rows = crm.rows(
        "select id, email, phone, last_name, birth_date::text, city, created_at is"
        " not null from gdpr_bi.customer order by id",
        user="metabase",
    )
    assert rows[0] == (1, "a***@***.com", None, "A.", "1980-01-01", "Aalen", True)
    assert crm.rows(
        'select note, total::text from gdpr_bi."order" where id = 1', user="metabase"
    ) == [(None, "10.00")]


def test_a_pseudonym_is_stable_and_says_nothing(crm: Database) -> None:
    crm.rows(
        "insert into crm.lead (email, full_name) values ('other@example.com', 'anna AHRENS')",
        user="postgres",
    )
    names = dict(crm.rows("select id, full_name from gdpr_bi.lead", user="metabase"))
    assert len(names) == 3
    assert all(name and "nna" not in name for name in names.values())
    assert names[1] != names[2]
    again = dict(crm.rows("select id, full_name from gdpr_bi.lead", user="metabase"))
    assert names == again


def test_the_reference_of_a_person_joins_tables_and_is_not_the_number(crm: Database) -> None:
    rows = crm.rows(
        "select distinct c.subject_ref = l.subject_ref from gdpr_bi.customer c,"
        " gdpr_bi.lead l where c.id = 1 and l.id = 1",
        user="metabase",
    )
    assert rows == [(True,)]
    assert crm.rows(
        "select count(distinct subject_ref) from gdpr_bi.customer", user="metabase"
    ) == [(3,)]


def test_masks_follow_the_value(crm: Database) -> None:
    crm.rows(
        "update gdpr_clear.customer set email = 'zoe@new.org', birth_date ="
        " '2001-05-05', last_name = 'Zander' where id = 1",
        user="crm_app",
    )
    assert crm.rows(
        "select email, birth_date::text, last_name from gdpr_bi.customer where id = 1",
        user="metabase",
    ) == [("z***@***.org", "2001-01-01", "Z.")]
    crm.rows("update gdpr_clear.customer set birth_date = null where id = 1", user="crm_app")
    assert crm.rows("select birth_date from gdpr_bi.customer where id = 1", user="metabase") == [
        (None,)
    ]


def test_a_new_column_is_hidden_until_it_is_classified(crm: Database) -> None:
    crm.rows("alter table crm.customer add nickname text default 'Spatz'")
    apply(crm, POLICY)
    assert crm.rows("select distinct nickname from gdpr_bi.customer", user="metabase") == [(None,)]
    apply(crm, policy(**{"tables__crm.customer__columns__nickname": {"category": "other"}}))
    assert crm.rows("select distinct nickname from gdpr_bi.customer", user="metabase") == [
        ("Spatz",)
    ]


def test_columns_that_the_policy_does_not_name_are_null(crm: Database) -> None:
    assert crm.rows("select order_id, n, engraving from gdpr_bi.order_line", user="metabase") == []
    apply(crm, policy(**{"tables__crm.order_line__purposes": ["orders", "analytics"]}))
    assert set(
        crm.rows("select order_id, n, engraving from gdpr_bi.order_line", user="metabase")
    ) == {(None, None, None)}


def test_the_audience_sees_its_views_and_nothing_else(crm: Database) -> None:
    for name in (
        "crm.customer",
        "gdpr_clear.customer",
        "gdpr.audit_log",
        "gdpr.source",
        "gdpr.basis",
        "gdpr_internal.subject",
    ):
        with refused("42501"):
            crm.rows(f"select * from {name}", user="metabase")
    for user in ("crm_app", "portal_app", "auditor_login", "dpo_login"):
        with refused("42501"):
            crm.rows("select * from gdpr_bi.customer", user=user)
    for statement in (
        "update gdpr_bi.customer set city = 'X'",
        "delete from gdpr_bi.customer",
        "insert into gdpr_bi.customer (city) values ('X')",
    ):
        with refused("42501"):
            crm.rows(statement, user="metabase")


def test_the_gate_stands_before_the_audience_too(crm: Database) -> None:
    crm.rows(
        "select gdpr.object_to(%s, 'analytics')",
        [subject(crm, "crm.customer", 1)],
        user="dpo_login",
    )
    assert crm.rows("select id from gdpr_bi.customer order by id", user="metabase") == [(2,), (3,)]
    with refused("42501", "purpose_not_held"):
        metabase = crm.connect("metabase")
        metabase.execute("set gdpr.purpose = 'orders'")
        metabase.execute("select * from gdpr_bi.customer")


@pytest.mark.parametrize(
    ("kind", "mask", "value", "shown"),
    [
        ("text", "initial", "Ärger", "Ä."),
        ("text", "initial", "", "."),
        ("text", "initial", None, None),
        ("varchar(1)", "initial", "Ä", None),
        ("varchar(20)", "initial", "日本", "日."),
        ("text", "email", "anna@localhost", None),
        ("text", "email", "anna.ahrens", None),
        ("text", "email", "anna.ahrens@localhost", None),
        ("text", "email", "a@b.co.uk", "a***@***.uk"),
        ("varchar(5)", "email", "a@b.c", None),
        ("varchar(8)", "pseudonym", "x", None),
        ("char(4)", "initial", "ab", "a.  "),
        ("timestamptz", "year", "2020-07-08 09:10:11+00", None),
        ("timestamp", "year", "2020-07-08 09:10:11", "2020-01-01 00:00:00"),
        ("date", "year", "0044-03-15 BC", "0044-01-01 BC"),
        ("date", "year", "infinity", "infinity"),
        ("integer", "hide", "5", None),
        ("text", "hide", "x", None),
        ("jsonb", "hide", "{}", None),
    ],
)
@pytest.mark.parametrize("encrypt", [True, False])
def test_masks_fit_their_type(
    db: Database, kind: str, mask: str, value: str | None, shown: str | None, encrypt: bool
) -> None:
    """A mask never breaks a write or a read, however short the column, and never shows the value
    itself."""
    db.connect().execute(
        f"create table public.person (id integer primary key, v {kind}); grant all"
        " on public.person to crm_app".encode()
    )
    db.rows("insert into public.person values (0, %s)", [value])
    apply(
        db,
        one_table(
            "public.person",
            columns={
                "id": {"category": "key"},
                "v": {"category": "identity", "sensitive": True, "encrypt": encrypt, "mask": mask},
            },
        ),
    )
    db.rows("insert into gdpr_clear.person values (1, %s)", [value], user="crm_app")
    rows = db.rows("select v::text from gdpr_bi.person order by id", user="metabase")
    assert rows[0] == rows[1]
    if shown is not None:
        assert rows[1] == (shown.rstrip() if kind.startswith("char(") else shown,)
    elif value is not None and len(value) > 1:
        assert rows[1][0] is None or not any(
            part in rows[1][0] for part in (value, "localhost", "ahrens")
        )
