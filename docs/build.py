"""Writes the parts of the documentation that a machine knows better than people: ``make docs``.

Sessions are run, tables are tried, vectors are computed, the reference is read from
the database; all of it against a private server. Everything else in the pages is
written by hand and left alone.

    python docs/build.py                   # all pages
    python docs/build.py docs/keys.md      # only these
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docs.tools import reference, roles, sessions, vectors

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "bench" / "out"


def pages() -> list[Path]:
    """All pages of the documentation, the README first."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def build(path: Path) -> str:
    """The text of a page as it should be now.

    Args:
        path: one of `pages`.
    """
    if path.name == "reference.md":
        return reference.generate()
    page = path.read_text(encoding="utf-8")
    if "<!-- roles -->" in page:
        page = fill(page, "roles", roles.generate(sessions.files(page)["policy.toml"]))
    if "<!-- vectors -->" in page:
        page = fill(page, "vectors", f"```json\n{vectors.generate()}```\n")
    for place, file in (("bench", "latest.md"), ("reads", "reads.md"), ("rights", "rights.md")):
        measured = BENCH / file
        if f"<!-- {place} -->" in page and measured.exists():
            page = fill(page, place, measured.read_text(encoding="utf-8"))
    return sessions.run_page(page) if sessions.has_sessions(page) else page


def fill(page: str, name: str, text: str) -> str:
    """The page with other text between the comments ``name`` and ``/name``.

    Args:
        page: the page.
        name: of the place.
        text: what to put there.
    """
    place = re.compile(rf"(?s)(<!-- {name} -->\n).*?(<!-- /{name} -->)")
    return place.sub(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", page)


def main(names: list[str]) -> None:
    """Write the pages that are not as they should be.

    Args:
        names: paths of pages; none for all.
    """
    for path in [Path(name).resolve() for name in names] or [*pages(), ROOT / "docs/reference.md"]:
        text = build(path)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main(sys.argv[1:])
