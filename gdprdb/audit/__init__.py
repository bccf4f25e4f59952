"""Verification of the audit outside of the database, and what a third party needs for it.

The same as `gdpr.verify_audit()` computes in SQL, computed again from the records as they
are: who changed the functions of the database has not changed this.
"""
