"""A protected database whose key is with the sessions, for tests of the key."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from tests.capabilities.crm import one_table
from tests.support import Database

PEOPLE = 25

POLICY = one_table(
    "public.person",
    columns={
        "id": {"category": "key"},
        "email": {"identifier": "email", "encrypt": "searchable", "mask": "email"},
        "name": {"category": "identity", "encrypt": True},
    },
)


@dataclass
class House:
    """A protected database and its key, which no session has yet."""

    db: Database
    key: str

    def login(self, key: str | None = None, user: str = "crm_app") -> psycopg.Connection:
        """A session that was given the key."""
        connection = self.db.connect(user)
        connection.execute("select gdpr.unlock(%s)", [key or self.key])
        return connection

    def ciphertext(self) -> list[tuple[object, ...]]:
        """What is stored, for comparison."""
        return self.db.rows(
            "select id, email, name, email_digest_stored from (select id, email, name,"
            " gdpr_email_digest as email_digest_stored from public.person) as p order by id",
            user="postgres",
        )


READ = "select count(*) from gdpr_clear.person where name = 'Name ' || id"


def states(db: Database) -> list[tuple[object, ...]]:
    """State and number of data keys of each key-encryption key."""
    return db.rows("select state, data_keys from gdpr.key_status order by id")
