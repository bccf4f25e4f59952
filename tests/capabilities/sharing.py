"""Recipients of the capability tests, and words to share with them."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.capabilities.crm import subject
from tests.support import Database

#: In the EEA, with a mailbox; in a country that nothing covers, with clauses and without a mailbox.
RECIPIENTS = """
select gdpr.record_recipient(
  'Parcel AG', 'processor', 'DE', p_contract => 'AV-7', p_address => 'privacy@parcel.example', p_language => 'de');
select gdpr.record_recipient('Call Centre Inc', 'processor', 'IN', 'standard_clauses', 'AV-8');
"""


def disclose(dpo: psycopg.Connection, persons: list[int], **arguments: Any) -> dict[str, Any]:
    """Record a disclosure of contact data for orders to Parcel AG, unless told otherwise.

    Args:
        dpo: a connection that may.
        persons: their numbers.
        arguments: of gdpr.record_disclosure(), without ``p_``.
    """
    given = {
        "recipient": "Parcel AG",
        "subjects": persons,
        "purpose": "orders",
        "categories": ["contact"],
        **arguments,
    }
    named = ", ".join(f"p_{name} => %({name})s" for name in given)
    row = dpo.execute(f"select gdpr.record_disclosure({named})", given).fetchone()
    assert row is not None
    return dict(row[0])


def persons(crm: Database) -> list[int]:
    """The numbers of the three customers."""
    return [subject(crm, "crm.customer", key) for key in (1, 2, 3)]
