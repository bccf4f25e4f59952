"""Roles with eyes that are too small: every statement they can think of, and what comes back.

The app works for its purposes, BI reads redacted views, the portal nothing, the auditor evidence.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.attacks.world import ENCRYPTED, HIDDEN, World, attempt, leaked, told

#: What the app may not see while Hugo is restricted.
HUGO = [
    secret
    for secret in (*ENCRYPTED, *HIDDEN)
    if "hugo" in secret.lower() or "222222" in secret or secret == "1982-02-12"
]


def answers(connection: psycopg.Connection, script: str) -> str:
    """Everything a session is told while it runs statements one by one: rows, notices, errors."""
    said: list[str] = []
    connection.add_notice_handler(
        lambda d: said.append(
            f"{d.message_primary} {d.message_detail} {d.message_hint} {d.context}"
        )
    )
    for statement in filter(None, (part.strip() for part in script.split(";;"))):
        try:
            if statement.startswith("copy"):
                with connection.cursor().copy(statement.encode()) as copy:
                    said.append(b"".join(bytes(part) for part in copy).decode())
                continue
            cursor = connection.execute(statement.encode())
            while True:
                if cursor.description:
                    said.append(str(cursor.fetchall()))
                if not cursor.nextset():
                    break
        except psycopg.Error as error:
            said.append(told(error))
    return "\n".join(said)


LEAK = """
create function pg_temp.leak(anyelement) returns boolean language plpgsql cost 0.0000001 as
  $f$ begin raise notice 'leak: %', $1; return true; end $f$ ;;
create function pg_temp.same(text, text) returns boolean language plpgsql cost 0.0000001 as
  $f$ begin raise notice 'leak: % %', $1, $2; return true; end $f$ ;;
"""

APP = {
    "cheap function in where": LEAK
    + """
        select id from gdpr_clear.customer where pg_temp.leak(email) and pg_temp.leak(last_name) ;;
        select id from crm.customer where pg_temp.leak(last_name) ;;
        select id from crm.customer as c where pg_temp.leak(c) ;;
        select id from gdpr_clear.customer as c where pg_temp.leak(c) ;;
        select id from gdpr_clear.invoice where pg_temp.leak(note) ;;
        select c.id from gdpr_clear.customer as c join gdpr_clear.invoice as i on
          pg_temp.leak(i.note) ;;
        select count(*) filter (where pg_temp.leak(email)) from gdpr_clear.customer ;;
        select id from gdpr_clear.customer order by pg_temp.leak(email)
    """,
    "division by zero": """
        select 1 / (length(email) - length(email)) from gdpr_clear.customer where id = 2 ;;
        select id from gdpr_clear.customer where 1 / (id - 2) = 5 ;;
        select id from crm.customer where last_name::integer = 1 and id = 2 ;;
        select id from gdpr_clear.customer where email::integer = 1 and id = 2 ;;
        select email::date from gdpr_clear.customer where id = 2
    """,
    "row security off": """
        set row_security = off ;;
        table crm.customer ;;
        table gdpr_clear.customer ;;
        copy crm.customer to stdout ;;
        update crm.customer set city = 'x' returning * ;;
        delete from crm.customer returning *
    """,
    "plans": """
        set client_min_messages = log ;;
        set debug_print_plan = on ;; set debug_print_parse = on ;; set debug_print_rewritten = on ;;
        table gdpr_clear.customer ;;
        update gdpr_clear.customer set city = city || '!' where id = 2 ;;
        explain (analyze, verbose, buffers, settings) select * from gdpr_clear.customer ;;
        explain (verbose) select * from gdpr_clear.customer where email_digest =
          gdpr.digest('email', 'hugo') ;;
        select gdpr.reveal(email) from crm.customer
    """,
    "changes of hidden rows": """
        update crm.customer set city = 'x' where id = 2 returning * ;;
        update gdpr_clear.customer set city = 'x' where id = 2 returning * ;;
        delete from crm.customer where id = 2 returning * ;;
        update crm.invoice set note = note from crm.customer as c where c.id = 2 returning c.*,
          invoice.* ;;
        update crm.customer as c set city = c.city from crm.invoice as i where i.customer_id = 2
          returning i.* ;;
        delete from crm.invoice using crm.customer as c where c.id = 2 returning c.* ;;
        insert into crm.customer as c (id, email, last_name) values (2, 'x@x.example', 'x')
          on conflict (id) do update set city = c.city returning * ;;
        insert into crm.customer as c (email, last_name) values ('hugo@hugosecret.example'||'', 'x')
          on conflict (gdpr_email_digest) do update set last_name = excluded.last_name returning
            c.last_name ;;
        merge into crm.customer as c using (values (2)) as v (id) on c.id = v.id when matched then
          update set city = c.last_name ;;
        select * from crm.customer where id = 2 for update ;;
        truncate crm.customer ;;
        copy crm.customer to stdout
    """,
    "children of hidden rows": """
        insert into crm.invoice (customer_id, total, note) values (2, 1, 'x') returning * ;;
        insert into gdpr_clear.invoice (customer_id, total, note) values (2, 1, 'x') returning * ;;
        update gdpr_clear.invoice set customer_id = 2 where customer_id = 1 returning * ;;
        update crm.invoice set customer_id = 1 where customer_id = 2 returning *
    """,
    "purposes": """
        set gdpr.purpose = 'analytics' ;; table gdpr_clear.customer ;;
        set gdpr.purpose = 'compliance' ;; table gdpr_clear.customer ;;
        set gdpr.purpose = 'maintenance' ;; table gdpr_clear.customer ;;
        set gdpr.purpose = 'nonsense' ;; table crm.customer ;;
        set gdpr.purpose = 'marketing' ;; table gdpr_clear.customer ;;
        select gdpr.set_context('x', 'compliance') ;;
        select gdpr.set_context('x', 'orders', '{"kind": "nonsense"}')
    """,
    "identities": """
        set role gdpr_worker ;; set role gdpr_keyholder ;; set role gdpr_owner ;; set role gdpr_dpo
          ;;
        set session authorization postgres ;; set session authorization dpo_login ;;
        select set_config('role', 'gdpr_worker', false) ;; select set_config('is_superuser', 'on',
          false) ;;
        select set_config('session_authorization', 'postgres', false) ;;
        table gdpr_clear.customer ;;
        reassign owned by crm_app to dpo_login ;; drop owned by crm_app cascade ;;
        table gdpr_clear.customer
    """,
    "inside of the machine": """
        select gdpr_internal.keyring() ;; select * from gdpr_internal.opened_key ;;
        select gdpr_internal.reveal('x', 'gdpr_dpo', 'compliance') ;;
        select gdpr_policy.purpose_mask('gdpr_worker', '') ;; select gdpr_policy.still_allowed(2,
          -1) ;;
        select gdpr_internal.open_value('\\x00', 2, 1, 'gdpr1:') ;;
        select gdpr_generated.spread_gate('{2}') ;; select gdpr_generated.protect_1() ;;
        select gdpr.erase(2) ;; select gdpr.subject_of('crm.customer', '2') ;; select
          gdpr.find_subject('email', 'x') ;;
        select gdpr.create_key() ;; select gdpr.policy() ;; table gdpr.audit_log ;; table
          gdpr.source ;;
        select lastval() ;; select currval('gdpr_internal.subject_id_seq') ;;
        create operator pg_temp.+ (function = gdpr_internal.canonical, leftarg = text, rightarg =
          text) ;;
        create aggregate pg_temp.a (text) (sfunc = gdpr_internal.canonical, stype = text) ;;
        create temp view v as select gdpr_internal.keyring() ;;
        create function pg_temp.k() returns bytea begin atomic select
          (gdpr_internal.keyring()).kek; end
    """,
    "statistics": """
        analyze crm.customer ;; table pg_stats ;; table pg_stats_ext ;;
        create statistics s on last_name, city from crm.customer ;;
        select * from pg_stat_activity ;;
        explain select * from gdpr_clear.customer where last_name = 'x'
    """,
    "cursors": """
        begin ;; declare c cursor for table gdpr_clear.customer ;; fetch 1 from c ;;
        set local gdpr.purpose = 'nonsense' ;; fetch all from c ;; rollback ;;
        prepare p as select * from gdpr_clear.customer ;; execute p ;; set plan_cache_mode =
          force_generic_plan ;; execute p ;;
        declare h cursor with hold for table crm.customer ;; fetch all from h
    """,
    "values that do not fit": """
        insert into gdpr_clear.customer (email, last_name, birth_date) values ('z@z.example', 'x',
          '1982-99-99') ;;
        update gdpr_clear.customer set email = repeat('x', 200) where id = 1 ;;
        update crm.customer set birth_date = 'nonsense' ;;
        update crm.customer set email = null ;;
        update crm.customer set id = 1 ;;
        insert into crm.customer (id, email, last_name) values (2, 'y@y.example', 'y') ;;
        insert into crm.customer (id, email) values (9, 'y@y.example') ;;
        insert into crm.invoice (id, customer_id, total, note) values (2, 1, 99999999999, 'x')
    """,
    "settings that are not what they should be": """
        set gdpr.source = 'no json' ;; insert into gdpr_clear.customer (email, last_name) values
          ('s1@x.example', 'x') ;;
        set gdpr.source = '[1]' ;; insert into gdpr_clear.customer (email, last_name) values
          ('s2@x.example', 'x') ;;
        set gdpr.source = '"a"' ;; insert into gdpr_clear.customer (email, last_name) values
          ('s3@x.example', 'x') ;;
        set gdpr.unlocked = 'AAAA' ;; table gdpr_clear.customer ;; set gdpr.unlocked = '%%%' ;;
          table gdpr_clear.customer
    """,
}


@pytest.mark.parametrize("name", APP)
def test_app_sees_nothing_of_a_restricted_person(world: World, name: str) -> None:
    attempt(world.login("db_owner"), "analyze crm.customer")
    # what the app says itself is no leak
    said = answers(world.login("crm_app"), APP[name]).replace("'hugo@hugosecret.example'||''", "")
    secret = world.run(
        "postgres", "select encode(material, 'hex') from gdpr_internal.key_encryption_key"
    )[0][0]
    assert not leaked(said, [*HUGO, secret, "gdpr_keyholder privileges"])


@pytest.mark.parametrize("name", APP)
def test_hidden_rows_survive_the_app(world: World, name: str) -> None:
    query = (
        "select c::text from crm.customer as c where id = 2 union all select i::text from"
        " crm.invoice as i where customer_id = 2 order by 1"
    )
    before = world.run("postgres", query)
    answers(world.login("crm_app"), APP[name])
    assert world.run("postgres", query) == before


BI = {
    **{name: script.replace("gdpr_clear.", "gdpr_bi.") for name, script in APP.items()},
    "clear views": (
        "table gdpr_clear.customer ;; table gdpr_clear.invoice ;; table crm.customer ;;"
        " select gdpr.reveal('x') ;; select gdpr.digest('email', 'x')"
    ),
    "masked columns": LEAK
    + """
        select id from gdpr_bi.customer where pg_temp.leak(email) and pg_temp.leak(last_name) and
          pg_temp.leak(phone) ;;
        select c from gdpr_bi.customer as c where pg_temp.leak(c) ;;
        select * from gdpr_bi.customer where last_name like 'A%' ;;
        select tableoid, ctid from gdpr_bi.customer ;;
        select gdpr_email_digest from gdpr_bi.customer ;;
        explain (analyze, verbose) select * from gdpr_bi.customer where pg_temp.leak(last_name) ;;
        set client_min_messages = log ;; set debug_print_plan = on ;; select * from gdpr_bi.customer
    """,
}


@pytest.mark.parametrize("user", ["metabase", "portal_app", "outsider", "auditor_login"])
@pytest.mark.parametrize("name", BI)
def test_other_audiences_see_no_plaintext(world: World, user: str, name: str) -> None:
    attempt(world.login("db_owner"), "analyze crm.customer")
    world.run(
        "db_owner",
        (
            "grant select, insert, update, delete on crm.customer, crm.invoice to metabase,"
            " portal_app, auditor_login"
        ),
    )
    said = answers(world.login(user), BI[name]).replace("'hugo@hugosecret.example'||''", "")
    secret = world.run(
        "postgres", "select encode(material, 'hex') from gdpr_internal.key_encryption_key"
    )[0][0]
    assert not leaked(said, [*ENCRYPTED, *HIDDEN, secret])


def test_auditor_reads_no_payload(world: World) -> None:
    answers(
        world.login("crm_app"),
        """
        update gdpr_clear.customer set email = 'new@annasecret.example', last_name = 'Annanew'
          where id = 1 ;;
        set gdpr.source = '{"kind": "web_form", "ip": "annas-note-secret"}' ;;
        insert into gdpr_clear.customer (email, last_name) values ('fourth@x.example', 'x')
    """,
    )
    dpo = answers(world.login("dpo_login"), "table gdpr.audit_log ;; table gdpr.source")
    assert leaked(dpo, ["anna@annasecret.example", "Annaname", "annas-note-secret"])
    auditor = answers(
        world.login("auditor_login"),
        """
        table gdpr.audit_log ;; table gdpr.source ;; table gdpr.consent ;; table gdpr.basis ;;
          table gdpr.blocklist ;;
        select gdpr.reveal('x') ;; table gdpr_internal.audit_record ;;
    """
        + LEAK
        + (
            "select id from gdpr.audit_log as a where pg_temp.leak(a) and pg_temp.leak(old)"
            " ;; select id from gdpr.source as s where pg_temp.leak(details)"
        ),
    )
    assert not leaked(auditor, [*ENCRYPTED, *HIDDEN, "gdpr1:"])
    assert "UPDATE" in auditor
