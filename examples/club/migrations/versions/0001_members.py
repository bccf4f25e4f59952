"""Members, their courses, and what both may be used for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "member",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("email", sa.String(length=120), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("born", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
        info={
            "gdpr": {
                "subject": "self",
                "match_on": ["email"],
                "purposes": ["membership", "newsletter"],
            }
        },
    )
    op.create_table(
        "course",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("remark", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["member_id"],
            ["member.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        info={"gdpr": {"subject": {"via": "member_id"}, "purposes": ["membership"]}},
    )
    op.create_index(op.f("ix_course_member_id"), "course", ["member_id"], unique=False)
    op.execute("grant select, insert, update, delete on member, course to club_app")
    op.gdpr_apply(
        {
            "purposes": {
                "membership": {"basis": "contract"},
                "newsletter": {"basis": "consent", "valid_for": "2 years"},
            },
            "roles": {
                "club_app": {
                    "audience": "clear",
                    "purposes": ["membership", "newsletter"],
                    "may": ["consent"],
                },
                "club_board": {"audience": "bi", "purposes": ["membership"]},
            },
            "tables": {
                "public.member": {
                    "subject": "self",
                    "match_on": ["email"],
                    "purposes": ["membership", "newsletter"],
                    "columns": {
                        "id": {"category": "key"},
                        "email": {
                            "category": "contact",
                            "identifier": "email",
                            "encrypt": "searchable",
                            "mask": "email",
                        },
                        "name": {"category": "identity", "mask": "initial"},
                        "born": {"category": "demographic", "encrypt": True, "mask": "year"},
                    },
                },
                "public.course": {
                    "subject": {"via": "member_id"},
                    "purposes": ["membership"],
                    "columns": {
                        "id": {"category": "key"},
                        "member_id": {"category": "key"},
                        "title": {"category": "other"},
                        "remark": {"category": "other", "encrypt": True},
                    },
                },
            },
        },
    )


def downgrade() -> None:
    op.gdpr_apply(
        {"roles": {}, "tables": {}, "purposes": {}, "settings": {}},
        unprotect=["public.course", "public.member"],
    )
    op.drop_index(op.f("ix_course_member_id"), table_name="course")
    op.drop_table("course")
    op.drop_table("member")
