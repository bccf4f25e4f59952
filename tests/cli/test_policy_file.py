"""Reading policy files, and pointing at the line where a problem lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdprdb import policy
from gdprdb.errors import GdprdbError

TEXT = """\
# who may do what
[purposes.orders]
basis = "contract"

[tables."public.customer"]
subject = "self"
purposes = ["orders"]
[tables."public.customer".columns]
email = { category = "contact" }
"last name" = { mask = "initial" }
[tables."sales.Order"]
subject.via = "customer_id"
"""


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["purposes", "orders"], 2),
        (["purposes", "orders", "basis"], 3),
        (["tables", "public.customer"], 5),
        (["tables", "public.customer", "purposes"], 7),
        (["tables", "public.customer", "columns", "email"], 9),
        (["tables", "public.customer", "columns", "last name"], 10),
        (["tables", "public.customer", "columns", "email", "category"], 9),
        (["tables", "sales.Order", "subject", "via"], 12),
        (["tables", "public.customer", "mode"], 5),
        (["roles", "nobody"], None),
    ],
)
def test_locate(names: list[str], line: int | None) -> None:
    assert policy.locate(TEXT, names) == line


@given(st.text(max_size=200), st.lists(st.text(max_size=10), max_size=4))
def test_locate_never_fails(text: str, names: list[str]) -> None:
    line = policy.locate(text, names)
    assert line is None or 1 <= line <= len(text.splitlines())


def test_a_file_that_is_no_toml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[purposes.orders]\nbasis = contract\n")
    with pytest.raises(GdprdbError, match="line 2"):
        policy.load(path)


def test_a_file_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes("# Übersicht\n".encode("latin-1"))
    with pytest.raises(GdprdbError, match="UTF-8"):
        policy.load(path)
