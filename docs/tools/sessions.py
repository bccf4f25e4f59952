"""Sessions in the pages: every block ``console`` was run, and shows what came back.

A line ``$ command`` is run by the shell. After a command that starts psql, lines
with the prompt ``shop=>`` (``shop->`` goes on) are what it is given. All other
lines of the block are output: they are replaced by what running gives.

A block whose first line names a file, as in ``toml policy.toml``, is written to the
working directory before the sessions run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.tools.stage import DATABASE, DOCS, OWNER, stage
from gdprdb.server import PORT, Cluster

_BLOCK = re.compile(r"(?ms)^```console\n(.*?)^```$")
_FILE = re.compile(r"(?ms)^```\w+ ([\w.]+)\n(.*?)^```$")
_PROMPT = re.compile(rf"^{DATABASE}[=\-(*'][*!]?[>#] ")
_MARK = "-- end of statement --"

#: What differs from run to run: times, ciphertext, keys, and the widths that follow from them.
_VARYING = (
    (re.compile(r"gdpr1:[A-Za-z0-9+/=…]+"), "<ciphertext>"),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<key>"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d(:?\d\d)?)?"), "<time>"),
    (re.compile(r"-{2,}"), "--"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" $", re.MULTILINE), ""),
)


@dataclass(slots=True)
class Command:
    """One command of the shell, and what is typed into it.

    Attributes:
        lines: the command as the page has it.
        typed: statements for psql, each with the lines that show it.
    """

    lines: list[str]
    typed: list[list[str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What the shell runs."""
        return "\n".join(line[2:] for line in self.lines)


def same(one: str, other: str) -> bool:
    """Whether two pages are the same but for times, numbers and ciphertext."""
    return steady(one) == steady(other)


def steady(text: str) -> str:
    """A page without what differs from run to run.

    Args:
        text: the page.
    """
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def has_sessions(page: str) -> bool:
    """Whether a page has blocks that are run."""
    return _BLOCK.search(page) is not None


def files(page: str) -> dict[str, str]:
    """The files that a page shows in full: name to text."""
    return {match[1]: match[2] for match in _FILE.finditer(page)}


def run_page(page: str) -> str:
    """The page with the output of its sessions as it comes out now.

    Args:
        page: the text of a page. Its sessions run in order, on a server of their own.
    """
    with stage() as cluster, TemporaryDirectory() as directory:
        work = Path(directory)
        shutil.copy(DOCS / "shop.sql", work)
        for name, text in files(page).items():
            (work / name).write_text(text, encoding="utf-8")

        def run(match: re.Match[str]) -> str:
            # A server's own directory says nothing to a reader.
            output = "".join(_run_block(match[1], cluster, work))
            block = output.replace(str(cluster.socket_dir), "/run/postgresql")
            return match[0] if same(block, match[1]) else f"```console\n{block}```"

        return _BLOCK.sub(run, page)


def _run_block(block: str, cluster: Cluster, work: Path) -> Iterator[str]:
    for command in _commands(block):
        yield from (f"{line}\n" for line in command.lines)
        if command.typed:
            outputs = _psql(command, cluster, work)
            for typed, output in zip(command.typed, outputs, strict=True):
                yield from (f"{line}\n" for line in typed)
                yield output
        else:
            yield _shell(command.text, cluster, work)


def _commands(block: str) -> list[Command]:
    """The commands of a block, without the output that it shows."""
    found: list[Command] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(Command([line]))
        elif line.startswith("> ") and found and found[-1].lines[-1].endswith("\\"):
            found[-1].lines.append(line)
        elif _PROMPT.match(line):
            if line.startswith(f"{DATABASE}="):
                found[-1].typed.append([line])
            else:
                found[-1].typed[-1].append(line)
    return found


def _psql(command: Command, cluster: Cluster, work: Path) -> list[str]:
    """What psql says to each statement."""
    statements = ["\n".join(_PROMPT.sub("", line) for line in typed) for typed in command.typed]
    script = "".join(f"{statement}\n\\echo '{_MARK}'\n" for statement in statements)
    said = _shell(command.text, cluster, work, script)
    *parts, rest = said.split(f"{_MARK}\n")
    if len(parts) != len(statements):
        raise RuntimeError(f"{command.text} ended early: {rest}")
    # a blank line between a result and the next statement, as psql leaves it on a terminal
    return [f"{part.rstrip()}\n\n" for part in parts[:-1]] + [f"{parts[-1].rstrip()}\n"]


def _shell(command: str, cluster: Cluster, work: Path, typed: str = "") -> str:
    """What a command prints, on either stream."""
    programs = [str(Path(sys.executable).parent), str(cluster.binaries.bin_dir), os.environ["PATH"]]
    environment = {
        "PATH": os.pathsep.join(programs),
        "HOME": str(work),
        "LOGNAME": "anna",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "COLUMNS": "100",
        "PAGER": "",
        "PSQLRC": str(DOCS / "psqlrc"),
        "PGHOST": str(cluster.socket_dir),
        "PGPORT": str(PORT),
        "PGDATABASE": DATABASE,
        "PGUSER": OWNER,
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        check=False,
        input=typed,
        text=True,
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
