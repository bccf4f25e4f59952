"""Ciphertext, tickets, settings and digests that are copied, moved, altered or made up."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gdprdb import migrate
from tests.attacks.world import World, attempt, leaked, told
from tests.support import AS_SUPERUSER, INSTALLER, OWNER, Clone


def value(world: World, key: int, column: str = "email") -> tuple[int, str]:
    """Subject and ciphertext of a customer's column: what somebody kept from better days."""
    return world.run(
        "postgres", f"select gdpr_subject_id, {column} from crm.customer where id = {key}"
    )[0]


def test_reveal_of_a_restricted_person(world: World) -> None:
    error = attempt(world.login("crm_app"), "select gdpr.reveal(%s)", [value(world, 2)[1]])
    assert error is not None
    assert error.sqlstate == "42501"
    assert not leaked(told(error))


def test_reveal_for_a_purpose_withdrawn(world: World) -> None:
    app = world.login("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    error = attempt(app, "select gdpr.reveal(%s)", [value(world, 3)[1]])
    assert error is not None
    assert error.sqlstate == "42501"


def test_reveal_for_a_purpose_that_the_table_does_not_serve(world: World) -> None:
    """invoice is for orders only: its note is closed for marketing, whatever the person granted."""
    note = world.run("postgres", "select note from crm.invoice where customer_id = 1")[0][0]
    app = world.login("crm_app")
    app.execute("set gdpr.purpose = 'marketing'")
    assert app.execute("select * from gdpr_clear.invoice").fetchall() == []
    error = attempt(app, "select gdpr.reveal(%s)", [note])
    assert error is not None
    assert error.sqlstate == "42501"


@pytest.mark.parametrize("place", [0, 5, 8, 12, 16, 20, 40, -1])
def test_altered_ciphertext(world: World, place: int) -> None:
    """Every byte of the value is covered: version, subject, column, IV, ciphertext, MAC."""
    raw = bytearray(base64.b64decode(value(world, 1)[1][6:]))
    raw[place] ^= 1
    forged = "gdpr1:" + base64.b64encode(raw).decode()
    app = world.login("crm_app")
    error = attempt(app, "select gdpr.reveal(%s)", [forged])
    assert error is not None
    assert error.sqlstate in ("PR404", "42501")
    assert not leaked(told(error))


@pytest.mark.parametrize(
    "text", ["gdpr1:", "gdpr1:%%%", "gdpr1:AAAA", "gdpr1:" + "A" * 64, "gdpr1:AQ=="]
)
def test_made_up_ciphertext(world: World, text: str) -> None:
    app = world.login("crm_app")
    error = attempt(app, "select gdpr.reveal(%s)", [text])
    assert error is not None
    assert error.sqlstate in ("PR404", "42501"), told(error)
    for statement in (
        "insert into gdpr_clear.customer (email, last_name) values (%s, 'x')",
        "insert into crm.customer (email, last_name) values (%s, 'x')",
        "update crm.customer set phone = %s where id = 1",
        "update gdpr_clear.customer set phone = %s where id = 1",
    ):
        error = attempt(app, statement, [text])
        assert error is not None
        assert error.sqlstate == "PR405", told(error)


def test_ciphertext_of_a_victim_planted_by_insert(world: World) -> None:
    subject, stolen = value(world, 2)
    app = world.login("crm_app")
    for statement, parameters in (
        ("insert into crm.customer (email, last_name) values (%s, 'x') returning *", [stolen]),
        (
            (
                "insert into crm.customer (email, last_name, gdpr_subject_id) values (%s, 'x',"
                " %s) returning *"
            ),
            [stolen, subject],
        ),
        (
            (
                "insert into crm.customer (email, phone, last_name, gdpr_subject_id) values"
                " ('m@m.example', %s, 'x', %s) returning *"
            ),
            [value(world, 2, "phone")[1], subject],
        ),
        ("update crm.customer set email = %s where id = 1", [stolen]),
        ("update crm.customer set phone = email where id = 1", None),
        ("update crm.customer set last_name = %s where id = 1", [stolen[:40]]),
    ):
        attempt(app, statement, parameters)
    said = str(app.execute("table gdpr_clear.customer").fetchall())
    assert not leaked(said, ["hugo", "49711222222", "1982-02-12"])
    assert world.run(
        "postgres", "select count(*) from crm.customer where gdpr_subject_id = %s", [subject]
    ) == [(1,)]


def test_ciphertext_of_an_own_row_planted_for_another_person(world: World) -> None:
    """Values of visible persons cannot be moved either: who copies, writes plaintext."""
    app = world.login("crm_app")
    for statement in (
        (
            "update crm.customer as c set email = o.email from crm.customer as o where c.id ="
            " 3 and o.id = 1"
        ),
        (
            "update crm.customer as c set phone = o.phone from crm.customer as o where c.id ="
            " 3 and o.id = 1"
        ),
        (
            "insert into crm.customer (email, last_name, gdpr_subject_id) select email, 'x',"
            " 3 from crm.customer where id = 1"
        ),
        (
            "insert into crm.invoice (customer_id, note) select 3, note from crm.invoice"
            " where customer_id = 1"
        ),
    ):
        error = attempt(app, statement)
        assert error is not None
        assert error.sqlstate in ("PR405", "22001")


@pytest.mark.parametrize(
    "column",
    [
        "gdpr_subject_id",
        "gdpr_subject_ref",
        "gdpr_purposes",
        "gdpr_until",
        "gdpr_email_digest",
        "gdpr_email_mask",
    ],
)
def test_control_columns_are_not_written(world: World, column: str) -> None:
    app = world.login("crm_app")
    values = {
        "gdpr_subject_id": "2",
        "gdpr_subject_ref": "gen_random_uuid()",
        "gdpr_purposes": "-1",
        "gdpr_until": "'infinity'",
        "gdpr_email_digest": "gen_random_uuid()",
        "gdpr_email_mask": "'x'",
    }
    if column != "gdpr_until":  # it is infinite already
        error = attempt(app, f"update crm.customer set {column} = {values[column]}")
        assert error is not None
        assert error.sqlstate == "PR406"
    app.execute(
        (
            f"insert into crm.customer (email, last_name, {column}) values ('c@c.example',"
            f" 'c', {values[column]})"
        ).encode()
    )
    made = world.run(
        "postgres",
        """
        select gdpr_subject_id > 3, gdpr_purposes & (1::bigint << 1) = 0, gdpr_email_mask, s.ref =
          gdpr_subject_ref,
          gdpr_email_digest = (select i.digest from gdpr_internal.identifier as i where
            i.subject_id = s.id)
        from crm.customer as c join gdpr_internal.subject as s on s.id = c.gdpr_subject_id where
          city is null
    """,
    )
    assert made == [(True, True, made[0][2], True, True)]
    assert made[0][2] not in (None, "x")


def test_personal_data_in_the_kind_of_a_source(world: World) -> None:
    """The kind is kept in plain: anything but a known kind would be a value that erasure misses."""
    app = world.login("crm_app")
    app.execute('set gdpr.source = \'{"kind": "anna@annasecret.example"}\'')
    attempt(app, "insert into gdpr_clear.customer (email, last_name) values ('k@k.example', 'k')")
    kept = str(world.run("postgres", "select kind from gdpr_internal.source"))
    assert not leaked(kept)


@dataclass
class LockedWorld(World):
    """A house with its key outside.

    Attributes:
        key: what each session has to give.
    """

    key: str


@pytest.fixture
def locked(clone: Clone) -> Iterator[LockedWorld]:
    """A house whose key is given by each session, and the key."""
    with clone() as database:
        migrate.init(database.dsn(INSTALLER))
        if AS_SUPERUSER:
            database.rows(
                f"grant gdpr_admin, gdpr_dpo to {OWNER} with admin option", user="postgres"
            )
        database.rows("grant gdpr_auditor to auditor_login", user="postgres")
        world = LockedWorld(database, database.rows("select gdpr.create_key('session')")[0][0])
        owner = database.connect()
        owner.execute("create table public.person (id int primary key, email text, name text)")
        owner.execute("grant all on public.person to crm_app")
        owner.execute("insert into public.person values (1, 'anna@annasecret.example', 'x')")
        owner.execute("select gdpr.unlock(%s)", [world.key])
        owner.execute("""select count(*) from gdpr.apply('{
          "purposes": {"orders": {"basis": "contract"}},
          "roles": {"crm_app": {"audience": "clear", "purposes": ["orders"]}},
          "tables": {"public.person": {"subject": "self", "purposes": ["orders"], "columns": {
            "email": {"category": "contact", "identifier": "email", "encrypt":
              "searchable"}}}}}')""")
        yield world


def test_ticket_of_another_session(locked: LockedWorld) -> None:
    first, second = locked.login("crm_app"), locked.login("crm_app")
    error = attempt(second, "table gdpr_clear.person")
    assert error is not None
    assert error.sqlstate == "PR402"
    first.execute("select gdpr.unlock(%s)", [locked.key])
    assert "anna@" in str(first.execute("table gdpr_clear.person").fetchall())
    ticket = first.execute("select current_setting('gdpr.unlocked')").fetchone()
    assert ticket is not None
    assert locked.key not in ticket[0]
    raw = base64.b64decode(ticket[0])
    for forged in (
        raw,
        raw[:80],
        raw[80:],
        raw[::-1],
        b"",
        raw[:80] + bytes(32),
        bytes(112),
        raw[:-1] + bytes([raw[-1] ^ 1]),
    ):
        second.execute(
            "select set_config('gdpr.unlocked', %s, false)", [base64.b64encode(forged).decode()]
        )
        for statement in (
            "table gdpr_clear.person",
            "select gdpr.digest('email', 'x')",
            "select gdpr.reveal((select email from public.person))",
        ):
            error = attempt(second, statement)
            assert error is not None
            assert error.sqlstate == "PR402", told(error)
    first.execute("reset gdpr.unlocked")
    error = attempt(first, "table gdpr_clear.person")
    assert error is not None
    assert error.sqlstate == "PR402"


def test_wrong_key_and_what_it_tells(locked: LockedWorld) -> None:
    app = locked.login("crm_app")
    key = locked.key
    for wrong in ("", "0" * 64, key[:-1], key.upper() + "x", None):
        error = attempt(app, "select gdpr.unlock(%s)", [wrong])
        assert error is not None
        assert error.sqlstate == "PR403"
        assert key[:16] not in told(error)
    for user in ("metabase", "auditor_login", "outsider"):
        attempt(locked.login(user), "select gdpr.unlock(%s)", [key])


def test_key_in_plans_notices_and_contexts(locked: LockedWorld) -> None:
    key = locked.key
    said: list[str] = []
    app = locked.login("crm_app")
    app.add_notice_handler(
        lambda d: said.append(f"{d.message_primary} {d.message_detail} {d.context}")
    )
    for statement in (
        "set client_min_messages = debug5",
        "set debug_print_plan = on",
        "set debug_print_rewritten = on",
        "set plan_cache_mode = force_custom_plan",
        "set log_parameter_max_length_on_error = -1",
    ):
        app.execute(statement.encode())
    for _ in range(2):
        app.execute("select gdpr.unlock($1)".replace("$1", "%s"), [key])
        app.execute(
            "insert into gdpr_clear.person values (2 + (random() * 1e6)::int, 'vera' ||"
            " '@verasecret.example', 'v')"
        )
        app.execute(
            "update gdpr_clear.person set email = 'hugo' || '@hugosecret.example' where id <> 1"
        )
        app.execute("select * from gdpr_clear.person").fetchall()
        app.execute("select gdpr.reveal(email) from public.person").fetchall()
        app.execute("delete from gdpr_clear.person where id <> 1")
    text = "\n".join(said)
    kek = b"".join(
        hmac.new(key.encode(), label, hashlib.sha256).digest()
        for label in (b"gdprdb/1/encrypt", b"gdprdb/1/authenticate")
    )
    numbers = " ".join(str(b if b < 128 else b - 256) for b in kek[:8])
    told_key = [line for line in said if numbers in line or kek[:8].hex() in line]
    assert "PLANNEDSTMT" in text
    assert told_key == []
    plain = " ".join(str(b) for b in b"annasecret")
    assert plain not in text
    assert not leaked(text, ["anna@annasecret.example"])


def test_auditor_reads_records_while_the_key_is_locked(locked: LockedWorld) -> None:
    assert attempt(locked.login("auditor_login"), "table gdpr.audit_log") is None
    assert attempt(locked.login("auditor_login"), "table gdpr.source") is None
