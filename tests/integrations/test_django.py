"""Django's own applications, unmodified, over a protected schema: only search_path differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gdprdb.server import PORT
from tests.support import Clone, Database

POLICY = {
    "purposes": {"accounts": {"basis": "contract"}},
    "roles": {"crm_app": {"audience": "clear", "purposes": ["accounts"]}},
    "tables": {
        "public.auth_user": {
            "subject": "self",
            "match_on": ["email"],
            "purposes": ["accounts"],
            "columns": {
                "username": {"category": "online", "encrypt": "searchable"},
                "email": {"category": "contact", "identifier": "email", "encrypt": "searchable"},
                "first_name": {"category": "identity", "sensitive": True},
                "last_name": {"category": "identity", "encrypt": True},
                "last_login": {"category": "online"},
            },
        },
        "public.django_admin_log": {
            "subject": {"via": "user_id"},
            "purposes": ["accounts"],
            "columns": {"object_repr": {"category": "other", "encrypt": True}},
        },
    },
}


@pytest.fixture(scope="module")
def database(clone: Clone, installed_template: str) -> Iterator[Database]:
    """A database of a Django project, migrated and then protected."""
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections
    from django.test.utils import setup_test_environment, teardown_test_environment

    with clone(installed_template) as copy:

        def login(user: str, search_path: str) -> dict[str, Any]:
            return {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": copy.name,
                "USER": user,
                "HOST": str(copy.cluster.socket_dir),
                "PORT": str(PORT),
                "OPTIONS": {"options": f"-c search_path={search_path}"},
            }

        settings.configure(
            SECRET_KEY="of the tests",
            USE_TZ=True,
            ROOT_URLCONF="tests.integrations.django_urls",
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            ALLOWED_HOSTS=["testserver"],
            # what Django's own tests choose: the work of a password is not what is tested
            PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
            LOGIN_REDIRECT_URL="/admin/",
            DATABASES={
                "default": login("crm_app", "gdpr_clear,public"),
                "owner": login("db_owner", "public"),
            },
            INSTALLED_APPS=[
                "django.contrib.admin",
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django.contrib.messages",
                "django.contrib.sessions",
            ],
            MIDDLEWARE=[
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware",
            ],
            TEMPLATES=[
                {
                    "BACKEND": "django.template.backends.django.DjangoTemplates",
                    "APP_DIRS": True,
                    "OPTIONS": {
                        "context_processors": [
                            "django.template.context_processors.request",
                            "django.contrib.auth.context_processors.auth",
                            "django.contrib.messages.context_processors.messages",
                        ]
                    },
                }
            ],
        )
        django.setup()
        setup_test_environment()
        from django.contrib.auth.models import User

        call_command("migrate", database="owner", verbosity=0)
        User.objects.db_manager("owner").create_superuser(
            "root", "root@example.com", "Correct-horse-1", last_name="Before"
        )
        copy.rows("grant select, insert, update, delete on all tables in schema public to crm_app")
        copy.rows("grant usage on all sequences in schema public to crm_app")
        copy.rows("select from gdpr.apply(%s)", [json.dumps(POLICY)])
        yield copy
        connections.close_all()
        teardown_test_environment()


def test_a_visitor_signs_up_and_an_officer_of_the_shop_edits_the_user(database: Database) -> None:
    """Sign up, log in; admin: list, search, edit, history, delete."""
    from django.contrib.auth.models import User
    from django.test import Client

    visitor = Client()
    password = "A-long-pass-phrase-7"
    answer = visitor.post("/up/", {"username": "Zoe", "password1": password, "password2": password})
    assert (answer.status_code, answer.headers.get("Location")) == (302, "/in/")
    assert visitor.post("/in/", {"username": "Zoe", "password": "wrong"}).status_code == 200
    answer = visitor.post("/in/", {"username": "Zoe", "password": password})
    assert (answer.status_code, answer.headers.get("Location")) == (302, "/admin/")
    zoe = User.objects.get(username="Zoe")
    assert zoe.last_login is not None

    staff = Client()
    answer = staff.post("/in/", {"username": "root", "password": "Correct-horse-1"})
    assert answer.status_code == 302
    assert b"2 users" in staff.get("/admin/auth/user/").content
    page = f"/admin/auth/user/{zoe.pk}/change/"
    form = staff.get(page).context["adminform"].form
    values = {k: v for k, v in form.initial.items() if v is not None and not isinstance(v, list)}
    joined = values.pop("date_joined")
    values.update(
        first_name="Zoë",
        last_name="Zimmermann",
        email="zoe@example.com",
        date_joined_0=joined.strftime("%Y-%m-%d"),
        date_joined_1=joined.strftime("%H:%M:%S"),
        password=zoe.password,
    )
    values.pop("last_login", None)
    assert staff.post(page, values).status_code == 302
    zoe.refresh_from_db()
    assert (zoe.first_name, zoe.last_name, zoe.email) == ("Zoë", "Zimmermann", "zoe@example.com")

    found = staff.get("/admin/auth/user/", {"q": "zimmer"})
    assert b"1 user\n" in found.content
    assert b"zoe@example.com" in found.content
    assert b"Zoe" in staff.get(f"/admin/auth/user/{zoe.pk}/history/").content
    ((email, name),) = database.rows(
        "select email, last_name from public.auth_user where id = %s", [zoe.pk], user="crm_app"
    )
    assert email.startswith("gdpr1:")
    assert name.startswith("gdpr1:")

    answer = staff.post(f"/admin/auth/user/{zoe.pk}/delete/", {"post": "yes"})
    assert answer.status_code == 302
    assert not User.objects.filter(pk=zoe.pk).exists()
    assert User.objects.get(username="root").last_name == "Before"


@pytest.mark.usefixtures("database")
def test_what_an_orm_asks_of_a_table() -> None:
    """Bulk, cursors, locks, unique violations, aggregates, upserts of the ORM itself."""
    from django.contrib.auth.models import User
    from django.db import IntegrityError, transaction

    made = User.objects.bulk_create(
        User(username=f"b{n}", email=f"b{n}@example.com", last_name=f"N{n % 3}") for n in range(300)
    )
    assert len({user.pk for user in made}) == 300
    with transaction.atomic():
        names = [user.last_name for user in User.objects.order_by("pk").iterator(chunk_size=50)]
    assert names.count("N1") == 100
    with transaction.atomic():
        user = User.objects.select_for_update().get(username="b7")
        user.last_name = "Locked"
        user.save()
    assert User.objects.filter(last_name="Locked").count() == 1
    assert User.objects.filter(username__in=["b7", "b8", "none"]).count() == 2
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create(username="b8")
    changed, created = User.objects.update_or_create(
        username="b9", defaults={"last_name": "Upserted"}
    )
    assert (changed.last_name, created) == ("Upserted", False)
    assert User.objects.filter(username__startswith="b").delete()[0] == 300
