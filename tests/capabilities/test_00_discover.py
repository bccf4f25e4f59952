"""Station 00: what is there already: persons, their rows and their columns are found, and nothing
else."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import psycopg

from tests.capabilities.crm import apply, plan, refused
from tests.support import OWNER, Database

Found = dict[tuple[str, str | None], dict[str, Any]]


def discover(db: Database, sample: int = 1000, *, user: str = OWNER) -> Found:
    """The lines of gdpr.discover(), by table and column."""
    with psycopg.connect(db.dsn(user), autocommit=True) as connection:
        cursor = connection.execute("select * from gdpr.discover(%s)", [sample])
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
    return {(row["table_name"], row["column_name"]): row for row in rows}


def kinds(found: Found, table: str, *, low: bool = False) -> dict[str, str]:
    """Column by column what is proposed: the special category, the identifier or the category."""
    return {
        column: row["special"] or row["identifier"] or row["category"]
        for (name, column), row in found.items()
        if name == table
        and column is not None
        and row["category"] not in (None, "key", "other")
        and (low or row["confidence"] != "low")
    }


# ---------------------------------------------------------------- the usual application


def test_a_shop_is_understood(unchanged: Database) -> None:
    found = discover(unchanged)
    places = {table: row["category"] for (table, column), row in found.items() if column is None}
    assert places == {
        "crm.customer": "persons",
        "crm.lead": "persons",
        "crm.order": "rows",
        "crm.order_line": "rows",
    }
    assert found["crm.customer", None]["definition"]["match_on"] == ["email"]
    assert found["crm.order", None]["definition"]["subject"] == {"via": "customer_id"}
    assert found["crm.order_line", None]["definition"]["subject"] == {"via": "order_id"}
    birth = found["crm.customer", "birth_date"]
    assert (birth["encrypt"], birth["mask"], birth["definition"]["age"]) == ("yes", "year", True)
    assert found["crm.order", "note"]["definition"]["review"]
    # what is not recognised is said, and stays hidden
    engraving = found["crm.order_line", "engraving"]
    assert (engraving["confidence"], engraving["definition"]) == ("low", None)


def test_the_draft_is_a_policy(shop: Database) -> None:
    (draft,) = shop.rows("select gdpr.draft_policy()")[0]
    assert apply(shop, draft)
    assert plan(shop, draft) == []
    assert discover(shop) == {}
    assert shop.rows(
        "select count(*) from crm.customer where email like 'gdpr1:%'", user="postgres"
    ) == [(3,)]


# ---------------------------------------------------------------- languages

#: In each language: a table of persons, its columns, and what they are.
LANGUAGES: dict[str, dict[str, str]] = {
    'de."Mitarbeiter"': {
        "Vorname": "identity",
        "Nachname": "identity",
        "Geburtsdatum": "demographic",
        "E-Mail-Adresse": "email",
        "Handynummer": "phone",
        "Straße": "contact",
        "PLZ": "contact",
        "Steuer-ID": "text",
        "Kontonummer": "financial",
        "Konfession": "religious_or_philosophical_belief",
        "Schwerbehinderung": "health",
        "Gewerkschaftsmitglied": "trade_union_membership",
        "Bemerkungen": "free_text",
        "Kennwort": "credential",
    },
    "fr.adherents": {
        "prenom": "identity",
        "nom_de_famille": "identity",
        "date_de_naissance": "demographic",
        "courriel": "email",
        "telephone_portable": "phone",
        "adresse_postale": "contact",
        "numero_securite_sociale": "text",
        "orientation_sexuelle": "sexual_orientation",
        "situation_familiale": "demographic",
        "remarques": "free_text",
        "mot_de_passe": "credential",
    },
    "es.empleados": {
        "nombre": "identity",
        "apellidos": "identity",
        "fecha_nacimiento": "demographic",
        "correo_electronico": "email",
        "movil": "phone",
        "domicilio": "contact",
        "dni": "text",
        "afiliacion_sindical": "trade_union_membership",
        "discapacidad": "health",
        "observaciones": "free_text",
        "contraseña": "credential",
    },
    "it.pazienti": {
        "nome": "identity",
        "cognome": "identity",
        "data_di_nascita": "demographic",
        "posta_elettronica": "email",
        "cellulare": "phone",
        "indirizzo": "contact",
        "codice_fiscale": "text",
        "gruppo_sanguigno": "health",
        "diagnosi": "health",
        "osservazioni": "free_text",
    },
    "nl.klanten": {
        "voornaam": "identity",
        "achternaam": "identity",
        "geboortedatum": "demographic",
        "emailadres": "email",
        "telefoonnummer": "phone",
        "woonplaats": "contact",
        "burgerservicenummer": "text",
        "geloofsovertuiging": "religious_or_philosophical_belief",
        "opmerkingen": "free_text",
        "wachtwoord": "credential",
    },
    "pt.clientes": {
        "primeiro_nome": "identity",
        "sobrenome": "identity",
        "data_nascimento": "demographic",
        "endereço_email": "email",
        "telemóvel": "phone",
        "morada": "contact",
        "cpf": "text",
        "raça": "racial_or_ethnic_origin",
        "observações": "free_text",
        "senha": "credential",
    },
    "pl.pracownicy": {
        "imię": "identity",
        "nazwisko": "identity",
        "data_urodzenia": "demographic",
        "adres_email": "email",
        "numer_telefonu": "phone",
        "ulica": "contact",
        "pesel": "text",
        "wyznanie": "religious_or_philosophical_belief",
        "uwagi": "free_text",
        "hasło": "credential",
    },
    'ja."顧客"': {
        "氏名": "identity",
        "フリガナ": "identity",
        "生年月日": "demographic",
        "メールアドレス": "email",
        "電話番号": "phone",
        "住所": "contact",
        "個人番号": "text",
        "宗教": "religious_or_philosophical_belief",
        "備考": "free_text",
        "パスワード": "credential",
    },
    "ro.shain": {
        "shimei": "identity",
        "seinengappi": "demographic",
        "meeru": "email",
        "denwa_bangou": "phone",
        "jusho": "contact",
        "mynumber": "text",
        "bikou": "free_text",
    },
    'en."HRStaff"': {
        "FirstName": "identity",
        "surName": "identity",
        "DOB": "demographic",
        "EMail": "email",
        "MobilePhone": "phone",
        "homeAddress": "contact",
        "nationalInsuranceNumber": "text",
        "TradeUnionMember": "trade_union_membership",
        "ethnicity": "racial_or_ethnic_origin",
        "politicalOpinion": "political_opinion",
        "fingerprintTemplate": "biometric",
        "dnaProfile": "genetic",
        "sexLife": "sex_life",
        "passwordHash": "credential",
    },
}


def create(connection: psycopg.Connection, table: str, columns: dict[str, str]) -> None:
    """A table without rows, of text and dates."""
    schema = table.partition(".")[0]
    named = ", ".join(
        f'"{name}" {"date" if kind == "demographic" and "tua" not in name else "text"}'
        for name, kind in columns.items()
    )
    connection.execute(f"create schema if not exists {schema}".encode())
    connection.execute(
        f"create table {table} (id bigint generated always as identity primary key,"
        f" {named})".encode()
    )


def test_names_in_ten_languages(db: Database) -> None:
    with db.connect() as owner:
        for table, columns in LANGUAGES.items():
            create(owner, table, columns)
    found = discover(db)
    for table, columns in LANGUAGES.items():
        name = table.replace('"', "")
        assert found[name, None]["category"] == "persons", name
        assert kinds(found, name) == columns, name
    for (_, column), row in found.items():
        if column is not None and row["special"] is not None:
            assert (row["encrypt"], row["mask"]) == ("yes", "hide")
        if row["category"] == "credential":
            assert row["encrypt"] != "searchable"
    (draft,) = db.rows("select gdpr.draft_policy()")[0]
    assert len(draft["tables"]) == len(LANGUAGES)
    assert plan(db, draft)


def test_comments_tell_what_names_do_not(db: Database) -> None:
    db.rows("create table people (id int primary key, a text, b text, c text, first_name text)")
    db.rows("comment on column people.a is 'E-Mail des Kunden'")
    db.rows("comment on column people.b is 'date of birth, YYYY-MM-DD'")
    db.rows("comment on column people.c is 'shoe size'")
    found = discover(db)
    assert kinds(found, "public.people") == {
        "a": "email",
        "b": "demographic",
        "first_name": "identity",
    }
    assert found["public.people", "a"]["reason"].startswith("comment says")


# ---------------------------------------------------------------- values

#: Numbers that exist in documentation, with right check digits, and what they are.
NUMBERS = {
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
        "FR1420041010050500013M02606",
    ],
    "steuer_id": ["86095742719", "47036892816", "65929970489"],
    "nir": ["255081416802538", "2 55 08 14 168 025 38"],
    "dni": ["12345678Z", "X1234567L", "00000000-T"],
    "codice_fiscale": ["RSSMRA85T10A562S"],
    "bsn": ["111222333", "123456782"],
    "nif": ["123456789"],
    "cpf": ["111.444.777-35", "52998224725"],
    "pesel": ["44051401359", "02070803628"],
    "my_number": ["123456789018"],
    "card": ["4111 1111 1111 1111", "5500005555555559", "340000000000009"],
    "nino": ["AB123456C", "AB 12 34 56 C"],
    "ssn": ["123-45-6789"],
}


def test_numbers_with_check_digits(same: Database) -> None:
    def looks(value: str) -> set[str]:
        return set(same.rows("select gdpr_policy.numbers_like(%s)", [value], user="postgres")[0][0])

    for kind, values in NUMBERS.items():
        for value in values:
            assert kind in looks(value), (kind, value)
            # one digit altered is another number
            place = max(i for i, c in enumerate(value) if c.isdigit())
            other = value[:place] + str((int(value[place]) + 1) % 10) + value[place + 1 :]
            if kind not in ("nino", "ssn"):
                assert kind not in looks(other), (kind, other)
    for nothing in ("", "-", "x" * 40, "'; drop table x", "日本", "1" * 30, "DE" + "9" * 32, " 1 "):
        looks(nothing)


def test_values_win_over_names(db: Database) -> None:
    """Columns that are called a, b, c are known by what is in them; columns that only sound
    personal are not."""
    rolls = random.Random(5)
    rows = [
        (
            f"user{n}@mail.example",
            rolls.choice(NUMBERS["iban"]),
            f"+49 711 {rolls.randint(10000, 99999)}",
            f"10.{rolls.randint(0, 255)}.0.{n}",
            "$2b$12$" + "".join(rolls.choices("abcdefABCDEF0123", k=53)),
            "weekly" if n % 2 else "monthly",
            "yes",
            f"She called again on day {n} and asked about her order, write to x{n}@mail.example",
            f"Blue {n}",
        )
        for n in range(60)
    ]
    with db.connect() as owner:
        owner.execute(
            "create table account (id int generated always as identity primary key, a text, b text,"
            " c text, d text, e text, mail text, phone text, f text, g text)"
        )
        with owner.cursor() as cursor:
            cursor.executemany(
                "insert into account (a, b, c, d, e, mail, phone, f, g)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                rows,
            )
    found = discover(db)
    assert kinds(found, "public.account") == {
        "a": "email",
        "c": "phone",
        "d": "online",
        "e": "credential",
        "f": "free_text",
    }
    assert found["public.account", "a"]["reason"] == "60 of 60 sampled values are e-mail addresses"
    for column, kind in (("mail", "e-mail addresses"), ("phone", "telephone numbers")):
        assert found["public.account", column]["confidence"] == "low"
        assert f"says {kind}, but only 0 of 60" in found["public.account", column]["reason"]
    # few different values with check digits are no proof
    assert found["public.account", "b"]["category"] is None


def test_things_are_not_persons(db: Database) -> None:
    """Products, orders, countries, settings, logs: none of it is proposed."""
    with db.connect() as owner:
        owner.execute(
            """
            create table app_user (id int primary key, email text, first_name text, last_name text);
            create table product (
              id int primary key, name text not null, description text, sku text, ean bigint,
              created_by int references app_user, price numeric, weight numeric, title text
            );
            create table category (id int primary key, name text,
              parent_id int references category);
            create table country (code char(2) primary key, name text, phone_prefix text,
              region text);
            create table mail_template (
              id int primary key, name text, email_subject text, body text, mail_type text
            );
            create table purchase (
              id int primary key, order_number text, reference bigint, status text,
              product_id int references product, user_id int not null references app_user
            );
            create table setting (key text primary key, value text, description text);
            create table race (id int primary key, race_time interval, track_condition text,
              state text);
            create table migration (version text primary key, applied_at timestamptz,
              checksum text);
            insert into app_user select n,
              n || '@example.com', 'A', 'B' from generate_series(1, 50) n;
            insert into product (id, name, description, sku, ean, price)
              select n, 'Espresso Machine ' || n, 'A machine that makes coffee, number ' || n,
                '2024-' || lpad((n * 7919)::text, 8, '0'), 4006381333931 + n, n
              from generate_series(1, 300) as n;
            insert into purchase
              select n, '2026-' || lpad((n * 104729)::text, 9, '0'), 10000000000 + n * 99991,
                'open', n, 1 + n % 50
              from generate_series(1, 300) as n;
            insert into country
              select chr(65 + n / 26) || chr(65 + n % 26), 'Land ' || n, '+' || n, 'Europe'
              from generate_series(1, 200) as n;
            """
        )
    found = discover(db)
    assert {table for table, _ in found} == {"public.app_user", "public.purchase"}
    assert kinds(found, "public.purchase", low=True) == {}
    assert found["public.purchase", None]["definition"]["subject"] == {"via": "user_id"}


def test_whose_row_it_is(db: Database) -> None:
    """Of several links the one to the person whom the row is about; copies of names do not make a
    row a person."""
    with db.connect() as owner:
        owner.execute(
            """
            create table staff (id int primary key, first_name text, last_name text, email text);
            create table patient (
              id int primary key, first_name text, last_name text, birth_date date,
              created_by int not null references staff
            );
            create table patient_profile (
              patient_id int primary key references patient, email text, full_name text, gender text
            );
            create table visit (
              id int primary key, doctor_agent_id int not null references staff,
              patient_id int not null references patient, diagnosis text
            );
            create table shipment (
              id int primary key, patient_id int not null references patient,
              delivery_first_name text, delivery_last_name text, delivery_street text
            );
            create table visit_file (id int primary key, visit_id int references visit, note text);
            create table page (id int primary key, updated_by int references staff, path text);
            create table company (id int primary key, name text, email text, phone text);
            create table access_log (at timestamptz, ip inet, path text);
            create table student (
              id int primary key, national_id text, diagnosis text, token text,
              staff_id int references staff
            );
            create table journal (at timestamptz, line text, device_token text);
            insert into journal select now(), 'login of u' || n || '@example.org'
            from generate_series(1, 9) as n;
            """
        )
    found = discover(db)
    # which of two it is, only people know: the other way is named
    assert (
        "it refers to public.staff, too, through staff_id"
        in found["public.student", None]["reason"]
    )
    assert "refers to" not in found["public.patient", None]["reason"]
    assert found["public.student", "token"]["category"] == "credential"
    assert found["public.journal", "line"]["category"] == "free_text"
    links = {
        table: (row["category"], (row["definition"] or {}).get("subject"), row["confidence"])
        for (table, column), row in found.items()
        if column is None
    }
    assert links == {
        "public.staff": ("persons", "self", "high"),
        "public.patient": ("persons", "self", "high"),
        "public.patient_profile": ("rows", {"via": "patient_id"}, "high"),
        "public.visit": ("rows", {"via": "patient_id"}, "high"),
        "public.shipment": ("rows", {"via": "patient_id"}, "high"),
        "public.visit_file": ("rows", {"via": "visit_id"}, "medium"),
        "public.company": ("persons", "self", "low"),
        "public.access_log": (None, None, "low"),
        "public.student": ("persons", "self", "high"),
        "public.journal": (None, None, "low"),
    }
    (draft,) = db.rows("select gdpr.draft_policy()")[0]
    assert not {"public.company", "public.access_log", "public.page"} & set(draft["tables"])
    assert plan(db, draft)


def test_what_cannot_be_encrypted_is_not_proposed_so(db: Database) -> None:
    """Keys, checks, unique pairs, views, enums, domains, arrays: apply() takes the draft all the
    same."""
    with db.connect() as owner:
        owner.execute(
            """
            create type sex as enum ('f', 'm', 'x');
            create domain address as text check (value like '%@%');
            create table member (
              email text primary key,
              mobile text check (mobile like '+%'),
              tax_id text unique,
              tenant int, iban text, unique (tenant, iban),
              gender sex,
              work_email address,
              other_emails text[],
              religion text, unique (tenant, religion),
              api_token text unique,
              last_ip inet,
              preferences json,
              "E-Mail" text generated always as (lower(api_token)) stored,
              birth_date date,
              first_name text
            );
            create view young as select birth_date from member;
            create table part (id int, email text, first_name text, last_name text,
              primary key (id))
              partition by range (id);
            create table part_1 partition of part for values from (1) to (1000);
            create table base (email text, full_name text);
            create table derived () inherits (base);
            """
        )
    found = discover(db)
    member = {c: row for (t, c), row in found.items() if t == "public.member" and c}
    assert member["email"]["encrypt"] == "no"
    assert "is part of the primary key" in member["email"]["reason"]
    assert member["tax_id"]["encrypt"] == "searchable"
    assert member["mobile"]["encrypt"] == "yes"
    for column in ("iban", "birth_date", "api_token"):
        assert member[column]["encrypt"] == "no", column
        assert member[column]["sensitive"]
        assert member[column]["mask"] in ("hide", "year", "email")
    assert "cannot be protected as a special category" in member["religion"]["reason"]
    assert found["public.base", None]["confidence"] == "low"
    assert "inheritance" in found["public.base", None]["reason"]
    assert ("public.part_1", None) not in found
    (draft,) = db.rows("select gdpr.draft_policy()")[0]
    assert set(draft["tables"]) == {"public.member", "public.part"}
    apply(db, draft)
    assert plan(db, draft) == []


# ---------------------------------------------------------------- what Mallory tries


SECRET = "secret.person@mail.example"


def test_no_value_leaves(db: Database) -> None:
    """Not in what is returned, nor in the text of statements, nor in errors."""
    db.rows("create table lead (id int primary key, email text, note text, phone numeric)")
    db.rows(
        "insert into lead select n, %s, 'call ' || %s || ' about contract ' || n, 1234567 + n"
        " from generate_series(1, 40) as n",
        [SECRET, SECRET],
    )
    with db.connect() as owner:
        owner.execute("set client_min_messages = 'debug5'")
        notices: list[str] = []
        owner.add_notice_handler(lambda said: notices.append(str(said.message_primary)))
        owner.execute("set debug_print_plan = on")
        returned = json.dumps(owner.execute("select * from gdpr.discover()").fetchall())
        assert SECRET not in returned
        assert "1234568" not in returned
        assert SECRET not in " ".join(notices)
        owner.execute("set client_min_messages = 'notice'")
    with db.connect("postgres") as superuser:
        assert superuser.execute(
            "select count(*) from pg_stat_activity where query like %s and pid <> pg_backend_pid()",
            [f"%{SECRET}%"],
        ).fetchall() == [(0,)]


def test_it_reads_only_and_only_what_the_caller_may(db: Database) -> None:
    with db.connect() as owner:
        owner.execute(
            """
            create schema theirs;
            create table theirs.person (id int primary key, email text, first_name text);
            insert into theirs.person select n,
              n || '@example.com', 'A' from generate_series(1, 9) n;
            create table theirs.half (id int primary key, a text, b text, first_name text,
              last_name text);
            insert into theirs.half select n, n || '@example.com', n || '@example.com', 'A', 'B'
              from generate_series(1, 9) n;
            """
        )
        owner.execute("grant gdpr_admin to metabase")
        owner.execute("grant select (id, a, first_name, last_name) on theirs.half to metabase")
        owner.execute("grant usage on schema theirs to metabase")
    try:
        found = discover(db, user="metabase")
    finally:
        # groups belong to the server
        db.rows("revoke gdpr_admin from metabase")
    assert {table for table, _ in found} == {"theirs.half"}
    assert found["theirs.half", "a"]["identifier"] == "email"
    assert found["theirs.half", "b"]["category"] is None
    with db.connect(autocommit=False) as owner:
        owner.execute("set transaction read only")
        assert owner.execute("select count(*) from gdpr.discover()").fetchall() != [(0,)]
    for user in ("crm_app", "dpo_login", "auditor_login"):
        with refused("42501"):
            db.rows("select * from gdpr.discover()", user=user)
    for sample in (-1, 100_001, None):
        with refused("PR004", "invalid_argument"):
            db.rows("select * from gdpr.discover(%s)", [sample])


def test_planted_code_does_not_run(db: Database) -> None:
    """A row policy, a type, a column's name, a table's name: whatever an owner puts there does not
    run with the rights of the administrator who looks."""
    with db.connect("postgres") as superuser:
        superuser.execute("create role peeper login")
        try:
            superuser.execute("create schema m authorization peeper")
            superuser.execute("set role peeper")
            superuser.execute(
                """
                create function m.steal() returns boolean language plpgsql as $$
                begin raise exception 'planted code runs as %', current_user; end $$;
                create table m.person (id int primary key, email text, first_name text,
                  last_name text);
                alter table m.person enable row level security;
                create policy p on m.person using (m.steal());
                create domain m.email as text;
                create function m.cast_it(m.email) returns text language sql
                  as 'select m.steal()::text';
                create table m."x'; drop table y; --" (
                  id int primary key, "a'; select m.steal(); --" text, "b"" || m.steal() || '" text,
                  first_name text, last_name text, email m.email
                );
                insert into m."x'; drop table y; --" values (1, 'a@b.example', 'b', 'c', 'd', 'e');
                create function m.left(text, integer) returns text language sql
                  as 'select m.steal()::text';
                grant usage on schema m to public;
                grant select on all tables in schema m to public;
                """
            )
            superuser.execute("reset role")
            with db.connect(options="-c search_path=m,public") as owner:
                rows = owner.execute(
                    "select table_name, column_name, reason from gdpr.discover()"
                ).fetchall()
            assert {table for table, *_ in rows} == {"m.person", "m.x'; drop table y; --"}
            (reason,) = [r for t, c, r in rows if t == "m.person" and c is None]
            assert "not readable" in reason
        finally:
            superuser.execute("reset role")
            superuser.execute("drop owned by peeper cascade")
            superuser.execute("drop role peeper")


def test_a_locked_table_is_not_waited_for(db: Database) -> None:
    db.rows("create table person (id int primary key, email text, first_name text, last_name text)")
    with db.connect(autocommit=False) as other:
        other.execute("lock table person in access exclusive mode")
        began = time.monotonic()
        found = discover(db)
        assert time.monotonic() - began < 10
        assert "55P03" in found["public.person", None]["reason"]
        assert kinds(found, "public.person")["email"] == "email"


def test_a_large_table_costs_what_a_small_one_does(db: Database) -> None:
    db.rows("create table person (id int, email text, first_name text, last_name text)")
    db.rows(
        "insert into person select n, n || '@example.com', 'A' || n, 'B' || n"
        " from generate_series(1, 200000) as n"
    )
    with db.connect() as owner:
        owner.execute("select * from gdpr.discover(300)")
        before = owner.execute("select pg_stat_get_tuples_returned('person'::regclass)")
        (read_before,) = before.fetchone() or (0,)
        found = discover(db, 300)
        (read_after,) = owner.execute(
            "select pg_stat_get_tuples_returned('person'::regclass)"
        ).fetchone() or (0,)
    assert read_after - read_before < 40_000
    assert found["public.person", "email"]["confidence"] == "high"
