"""Alembic: the policy is migrated with its tables; what protects them is not dropped."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import MigrationScript

from gdprdb.errors import RefusedError
from gdprdb.integrations.alembic import (
    Filters,
    GdprApplyOp,
    GdprProtectOp,
    GdprRetypeOp,
    GdprUnprotectOp,
)
from gdprdb.integrations.sqlalchemy import Personal, policy_from_metadata
from tests.capabilities.crm import apply, original
from tests.integrations.models import Base, club, gdpr
from tests.integrations.sites import url
from tests.support import OWNER, Clone, Database


@pytest.fixture(scope="module")
def crm(clone: Clone, crm_template: str) -> Iterator[Owned]:
    """A protected application that nobody changes."""
    with clone(crm_template) as database, owning(database) as owned:
        yield owned


@pytest.fixture(scope="module")
def open_template(clone: Clone, installed_template: str) -> Iterator[str]:
    """Name of a database with the club's tables, not protected yet, and a member."""
    with clone(installed_template) as database:
        with owning(database) as owned:
            club.create_all(owned.engine)
        database.rows(
            "insert into member (email, name) values ('anna@example.com', 'Ahrens');"
            "insert into booking (member_id, note) values (1, 'window seat');"
            "grant select on member, booking to crm_app"
        )
        yield database.name


@pytest.fixture(scope="module")
def protected_template(clone: Clone, open_template: str) -> Iterator[str]:
    """Name of a database with the club's tables under the policy of its models."""
    with clone(open_template) as database:
        apply(database, policy_from_metadata(club))
        yield database.name


@pytest.fixture
def unprotected(clone: Clone, open_template: str) -> Iterator[Owned]:
    """The club before its policy."""
    with clone(open_template) as database, owning(database) as owned:
        yield owned


@pytest.fixture
def protected(clone: Clone, protected_template: str) -> Iterator[Owned]:
    """The club under its policy."""
    with clone(protected_template) as database, owning(database) as owned:
        yield owned


@contextmanager
def owning(database: Database) -> Iterator[Owned]:
    """A database of a test, and one connection of the tables' owner: gdpr.apply() is slow once."""
    engine = sa.create_engine(url(database, "db_owner"), pool_size=1, max_overflow=0)
    try:
        yield Owned(database, engine)
    finally:
        engine.dispose()


@dataclass
class Owned:
    """A database as its migrations see it."""

    database: Database
    engine: sa.Engine

    @contextmanager
    def migrating(self, *, filtered: bool = True) -> Iterator[MigrationContext]:
        """A migration, in one transaction."""
        with self.engine.begin() as connection:
            options = Filters(connection).options() if filtered else {"include_name": no_schemas}
            yield MigrationContext.configure(connection, opts={"include_schemas": True, **options})

    def run(self, body: str) -> None:
        """Run the body of a migration."""
        with self.migrating() as context, Operations.context(context) as operations:
            exec(f"def migrate():\n{body}\nmigrate()", {"op": operations, "sa": sa})

    def produced(self, metadata: sa.MetaData, **how: Any) -> MigrationScript:
        """What autogenerate makes of the difference between models and database."""
        with self.migrating(**how) as context:
            return produce_migrations(context, metadata)

    def proposed(self, metadata: sa.MetaData, **how: Any) -> list[tuple[Any, ...]]:
        """The changes that autogenerate proposes."""
        script = self.produced(metadata, **how)
        assert script.upgrade_ops is not None
        return list(script.upgrade_ops.as_diffs())

    def in_force(self) -> dict[str, Any]:
        """The policy that applies."""
        with self.engine.begin() as connection:
            policy = connection.scalar(sa.text("select gdpr.policy()"))
            assert isinstance(policy, dict)
            return policy

    def rows(self, statement: str, *, user: str = OWNER) -> list[tuple[Any, ...]]:
        """What a login reads."""
        return self.database.rows(statement, user=user)


def no_schemas(name: str | None, kind: str, _parents: object) -> bool:
    """The one filter without which Alembic ends in an error: these schemas are closed to it."""
    return kind != "schema" or not (name or "").startswith("gdpr")


def source(script: MigrationScript) -> tuple[str, str]:
    """The bodies of upgrade() and downgrade() as they stand in the migration file."""
    assert script.upgrade_ops is not None
    assert script.downgrade_ops is not None
    render = Filters.render_item
    first, second = (
        render_python_code(ops, render_item=lambda *a: render(FILTERS, *a))
        for ops in (script.upgrade_ops, script.downgrade_ops)
    )
    return first, second


FILTERS = object.__new__(Filters)


def changed(change: Callable[[sa.MetaData], object], models: sa.MetaData = club) -> sa.MetaData:
    """A copy of models after a change."""
    metadata = sa.MetaData(schema=models.schema, info=models.info)
    for table in models.sorted_tables:
        copied = table.to_metadata(metadata)
        copied.info = copy.deepcopy(table.info)
    change(metadata)
    return metadata


# ---------------------------------------------------------------- the filters


def test_a_protected_database_is_as_its_models_say(crm: Owned) -> None:
    assert crm.proposed(Base.metadata) == []


def test_without_filters_alembic_would_drop_what_protects(crm: Owned) -> None:
    """What the filters are for: the test before this one could fail."""
    changes = crm.proposed(Base.metadata, filtered=False)
    kinds = {change[0] for change in changes if isinstance(change, tuple)}
    assert {"remove_column", "remove_index", "remove_constraint", "add_constraint"} <= kinds


def test_models_without_a_word_about_policy_are_left_in_peace(crm: Owned) -> None:
    plain = sa.MetaData(schema="crm")
    for table in Base.metadata.sorted_tables:
        copied = table.to_metadata(plain)
        copied.info = {}
        for column in copied.columns:
            column.info = {}
            column.type = getattr(column.type, "inner", column.type)
    assert crm.proposed(plain) == []


def test_the_applications_own_changes_are_still_seen(crm: Owned) -> None:
    def change(metadata: sa.MetaData) -> None:
        lead = metadata.tables["crm.lead"]
        lead.append_column(sa.Column("remark", sa.Text))
        sa.Index("lead_score", lead.c.score)

    kinds = [change[0] for change in crm.proposed(changed(change, Base.metadata))]
    assert kinds == ["add_column", "add_index"]


def test_beside_alembic_utils(clone: Clone, crm_template: str) -> None:
    with clone(crm_template) as crm:
        crm.rows(
            "create function crm.nothing() returns integer language sql return 0;"
            "create function crm.touch() returns trigger language plpgsql as"
            " 'begin return new; end';"
            "create trigger touched before update on crm.customer"
            " for each row execute function crm.touch();"
        )
        done = subprocess.run(
            [sys.executable, "-m", "tests.integrations.beside_alembic_utils", crm.dsn()],
            capture_output=True,
            text=True,
            check=True,
        )
    said = json.loads(done.stdout)
    assert "DropOp PGFunction: crm.nothing()" in said["filtered"]
    assert not any("gdpr" in change for change in said["filtered"])
    for kind in ("PGTrigger", "PGPolicy", "PGGrantTable"):
        assert any(kind in change and "gdpr" in change for change in said["unfiltered"])


# ---------------------------------------------------------------- the policy in a migration


def test_upgrade_protects_and_downgrade_restores(unprotected: Owned) -> None:
    before = original(unprotected.database, "public")
    upgrade, downgrade = source(unprotected.produced(club))
    assert upgrade.count("op.") == 1
    unprotected.run(upgrade)
    assert unprotected.proposed(club) == []
    unprotected.run(downgrade)
    assert original(unprotected.database, "public") == before
    assert unprotected.in_force()["tables"] == {}


def test_a_changed_word_and_a_new_table_change_the_policy(protected: Owned) -> None:
    def change(metadata: sa.MetaData) -> None:
        columns = metadata.tables["member"].c
        columns.city.info = gdpr(category="contact", mask="hide", sensitive=True)
        columns.name.info = gdpr(category="identity", encrypt=True)
        sa.Table(
            "guest",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("name", Personal(sa.String(80)), info=gdpr(category="other", encrypt=True)),
            info=gdpr(purposes=["stay"]),
        )

    before = protected.in_force()
    upgrade, downgrade = source(protected.produced(changed(change)))
    assert upgrade.index("op.create_table('guest'") < upgrade.index("op.gdpr_apply(")
    assert "sa.Column('name', sa.String(length=80)" in upgrade
    assert "unprotect=['public.guest', 'public.member']" in downgrade
    protected.run(upgrade)
    tables = protected.in_force()["tables"]
    columns = tables["public.member"]["columns"]
    assert (columns["city"]["mask"], columns["name"]["encrypt"]) == ("hide", True)
    assert "public.guest" in tables
    protected.run(downgrade)
    assert protected.in_force() == before
    read = "select m.name, b.note from gdpr_clear.member as m, gdpr_clear.booking as b"
    assert protected.rows(read, user="crm_app") == [("Ahrens", "window seat")]


def test_a_policy_that_would_be_refused_is_refused_at_once(crm: Owned) -> None:
    def change(metadata: sa.MetaData) -> None:
        metadata.tables["crm.lead"].info = gdpr(purposes=["unheard_of"])

    with pytest.raises(RefusedError, match="the policy of the models is refused") as caught:
        crm.produced(changed(change, Base.metadata))
    assert any("unheard_of" in detail for detail in caught.value.details)


def test_a_table_left_out_of_the_models_stays_protected(crm: Owned) -> None:
    def change(metadata: sa.MetaData) -> None:
        metadata.tables["crm.lead"].info = {}
        for column in metadata.tables["crm.lead"].columns:
            column.info = {}

    assert crm.proposed(changed(change, Base.metadata)) == []


def test_a_database_without_gdprdb_is_given_the_policy(empty_db: Database) -> None:
    with owning(empty_db) as owned:
        kinds = [change[0] for change in owned.proposed(club)]
    assert kinds == ["add_table", "add_index", "add_table", "gdpr_apply"]


# ---------------------------------------------------------------- operations written by hand


def test_one_table_is_protected_and_unprotected(protected: Owned) -> None:
    protected.rows('create table "Lost & Found" (id integer primary key, name text)')
    before = protected.in_force()
    section = {"purposes": ["stay"], "columns": {"name": {"category": "identity"}}}
    protected.run(f"    op.gdpr_protect('Lost & Found', {section!r})")
    now = protected.in_force()["tables"]
    assert now.keys() - before["tables"].keys() == {'public."Lost & Found"'}
    protected.run("    op.gdpr_unprotect('public.Lost & Found')")
    assert protected.in_force() == before


@pytest.mark.parametrize(
    ("operation", "back"),
    [
        (GdprProtectOp("club.member", {}), GdprUnprotectOp),
        (GdprUnprotectOp("club.member", {}), GdprProtectOp),
        (GdprApplyOp({}, previous={}), GdprApplyOp),
    ],
)
def test_operations_have_their_opposite(
    operation: MigrateOperation, back: type[MigrateOperation]
) -> None:
    there = operation.reverse()
    assert type(there) is back
    again = there.reverse()
    assert (type(again), vars(again)) == (type(operation), vars(operation))


@pytest.mark.parametrize(
    "operation",
    [
        GdprApplyOp({}),
        GdprUnprotectOp("club.member"),
        GdprRetypeOp("club.member", "email", "text"),
    ],
)
def test_what_is_not_known_cannot_be_restored(operation: MigrateOperation) -> None:
    with pytest.raises(NotImplementedError, match="not known"):
        operation.reverse()


def test_a_migration_without_a_database_is_a_script(protected: Owned) -> None:
    script = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": script}
    )
    words = r"100 %: it's :done, at 12:30, with a::b and c:\d"
    policy = {"purposes": {"stay": {"basis": "contract", "description": words}}}
    with Operations.context(context) as operations:
        operations.invoke(GdprApplyOp(policy, unprotect=["public.member"]))
    protected.rows(script.getvalue())
    now = protected.in_force()
    assert (now["tables"], now["purposes"]["stay"]["description"]) == ({}, words)


# ---------------------------------------------------------------- reshape


def test_a_protected_table_is_changed_between_reshape_and_apply(protected: Owned) -> None:
    def change(metadata: sa.MetaData) -> None:
        table = metadata.tables["member"]
        table.append_column(sa.Column("nickname", sa.Text, info=gdpr(category="identity")))
        table.c.city.type = sa.String(80)

    metadata = changed(change)
    upgrade, downgrade = source(protected.produced(metadata))
    for body in (upgrade, downgrade):
        assert "with op.gdpr_reshape('public.member'):\n        op." in body
    protected.run(upgrade)
    assert protected.proposed(metadata) == []
    read = "select email, nickname from gdpr_clear.member where id = 1"
    assert protected.rows(read, user="crm_app") == [("anna@example.com", None)]


def test_a_block_may_end_with_another_policy(protected: Owned) -> None:
    policy = policy_from_metadata(club)
    del policy["tables"]["public.member"]["columns"]["city"]
    protected.run(
        f"    with op.gdpr_reshape('public.member', policy={policy!r}):\n"
        "        op.drop_column('member', 'city')",
    )
    assert "city" not in protected.in_force()["tables"]["public.member"]["columns"]


def test_a_block_follows_a_renamed_column_and_back(protected: Owned) -> None:
    protected.run(
        "    with op.gdpr_reshape('public.member'):\n"
        "        op.alter_column('member', 'email', new_column_name='mail')\n"
        "        op.rename_table('member', 'person')",
    )
    read = "select mail from gdpr_clear.person where id = 1"
    assert protected.rows(read, user="crm_app") == [("anna@example.com",)]
    definition = protected.in_force()["tables"]["public.person"]
    assert definition["match_on"] == ["mail"]
    protected.run(
        "    with op.gdpr_reshape('public.person'):\n"
        "        op.rename_table('person', 'member')\n"
        "        op.alter_column('member', 'mail', new_column_name='email')",
    )
    assert protected.proposed(club) == []


def test_an_encrypted_column_is_retyped_and_back(protected: Owned) -> None:
    there = GdprRetypeOp("public.member", "email", "varchar(200)", previous="varchar(120)")
    assert there.reverse().to_diff_tuple() == (
        "gdpr_retype",
        "public.member",
        "email",
        "varchar(120)",
    )
    protected.run(
        "    with op.gdpr_reshape('public.member'):\n"
        "        op.gdpr_retype('public.member', 'email', 'varchar(222)')",
    )
    kinds = "select type from gdpr.protected_column where column_name = 'email'"
    assert ("character varying(222)",) in protected.rows(kinds)
    short = "op.gdpr_retype('public.member', 'email', 'varchar(14)%s)"
    protected.rows("grant update on member to crm_app")
    # longer by three blanks than the type: cut only where the migration says so
    protected.rows(
        "update gdpr_clear.member set email = 'a@example.com   ' where id = 1", user="crm_app"
    )
    for lossy, state in (("'", "22023"), ("', lossy=True", None)):
        body = f"    with op.gdpr_reshape('public.member'):\n        {short % lossy}"
        if state is None:
            protected.run(body)
        else:
            with pytest.raises(sa.exc.DBAPIError) as error:
                protected.run(body)
            assert getattr(error.value.orig, "sqlstate", None) == state
    assert ("character varying(14)",) in protected.rows(kinds)
    with pytest.raises(sa.exc.DBAPIError) as error:
        protected.run(
            "    with op.gdpr_reshape('public.member'):\n"
            "        op.alter_column('member', 'email', type_=sa.Text())",
        )
    assert getattr(error.value.orig, "sqlstate", None) == "PR414"


def test_a_block_that_is_refused_changes_nothing(protected: Owned) -> None:
    with pytest.raises(sa.exc.DBAPIError) as error:
        protected.run(
            "    with op.gdpr_reshape('public.member'):\n        op.drop_column('member', 'email')",
        )
    assert getattr(error.value.orig, "sqlstate", None) == "PR414"
    assert protected.proposed(club) == []


def test_a_block_in_a_script_is_sql(protected: Owned) -> None:
    script = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": script}
    )
    operations: Any  # gdpr_reshape is registered when the plugin is imported
    with Operations.context(context) as operations, operations.gdpr_reshape("public.member"):
        operations.add_column("member", sa.Column("nickname", sa.Text))
    protected.rows("begin;" + script.getvalue() + "commit")
    assert protected.rows(
        "select count(*) from pg_attribute where attname = 'nickname'"
        " and attrelid = 'public.member'::regclass"
    ) == [(1,)]
