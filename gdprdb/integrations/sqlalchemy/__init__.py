"""SQLAlchemy models that say what they hold, and engines that obey the policy.

    class Customer(Base):
        __tablename__ = "customer"
        __table_args__ = {"info": {"gdpr": {"purposes": ["orders"], "match_on": ["email"]}}}

        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(
            Personal(), info={"gdpr": {"identifier": "email", "encrypt": "searchable"}}
        )

    protect(engine)
    with acting(Context(actor="anna", purpose="orders")), Session(engine) as session:
        session.scalars(select(Customer).where(Customer.email == "dora@example.com"))

See docs/sqlalchemy.md.
"""

from __future__ import annotations

from gdprdb.integrations.sqlalchemy.context import Context, acting, set_context
from gdprdb.integrations.sqlalchemy.engine import protect
from gdprdb.integrations.sqlalchemy.metadata import policy_from_metadata
from gdprdb.integrations.sqlalchemy.personal import Personal, digest
from gdprdb.integrations.sqlalchemy.refusals import (
    BlockedError,
    BrokenValueError,
    KeyUnavailableError,
    NoBasisError,
    NotPermittedError,
    RefusalError,
    RestrictedError,
    RowChangedError,
)

__all__ = [
    "BlockedError",
    "BrokenValueError",
    "Context",
    "KeyUnavailableError",
    "NoBasisError",
    "NotPermittedError",
    "Personal",
    "RefusalError",
    "RestrictedError",
    "RowChangedError",
    "acting",
    "digest",
    "policy_from_metadata",
    "protect",
    "set_context",
]
