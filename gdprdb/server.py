"""A private PostgreSQL server for demos, tests and trying things out.

Nobody should have to install a server to see gdprdb work: `gdprdb.binaries`
finds a PostgreSQL, `Cluster` makes a data directory and runs it behind a Unix
socket that only its owner can reach: no TCP port, no password to choose.

    with Cluster() as cluster:
        psycopg.connect(cluster.dsn())

A `Cluster()` without a directory is temporary. It ends with the process that
started it, however that process ends: a small shell process holds one end of a
pipe whose other end is ours, and when that closes it stops the server and
removes the files. A `Cluster(directory)` persists: the server keeps running and
the data stays until `stop` and `remove`.

PostgreSQL refuses to run as root. Started by root, the server runs as the
account ``postgres``, or ``nobody`` where there is none.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from psycopg.conninfo import make_conninfo

from gdprdb.binaries import Binaries, find_binaries, inspect_binaries
from gdprdb.errors import GdprdbError

#: Number in the name of the socket; without TCP it is nothing else.
PORT = 5432

#: Longest path of a Unix socket that every system takes (macOS: 104, Linux: 108).
_SOCKET_PATH_BYTES = 100

#: Seconds to wait for the server to start or stop.
_PATIENCE = 60

#: A file system in memory, as Linux has it, and what must be free there to use it: a database
#: is copied twenty times faster than on a busy disk.
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2 * 1024**3

#: Settings of every cluster. The log must not become a place where personal data
#: collects, so neither failed statements nor their DETAIL are written to it.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "lc_messages": "C",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}

#: For data that may be lost with the machine: three to five times faster.
_THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

#: Where in a cluster's directory the programs are copied when its account cannot reach them.
_COPY = "postgresql"

#: Starts the server, says so, and waits: for the word "leave", or for the end of
#: its input, which comes when the process that started it is gone.
_KEEPER = """
pg_ctl=$1 cluster=$2 sockets=$3
clear_up() {
    trap '' INT TERM HUP
    "$pg_ctl" stop -s -w -m immediate -D "$cluster/data" >/dev/null 2>&1
    cd /
    rm -rf -- "$cluster" "$sockets"
    exit
}
# the trap does the work itself: one that only ended the reading would be lost before it began
trap clear_up INT TERM HUP
trap '' PIPE
"$pg_ctl" start -s -w -t "$4" -D "$cluster/data" -l "$cluster/log" </dev/null >/dev/null || exit 1
echo started
word=
read -r word
[ "$word" = leave ] && exit 0
clear_up
"""


class _Identity(TypedDict, total=False):
    """Arguments of subprocess that choose whom a program runs as."""

    user: int
    group: int
    extra_groups: Sequence[int]
    umask: int


class Cluster:
    """One PostgreSQL server with its data, for this user alone.

    Args:
        directory: where data, socket and log live. Without one the cluster is
            temporary and everything of it is gone after `stop`.
        binaries: the programs to use; by default those of `find_binaries`.
        settings: server settings on top of gdprdb's own, as in postgresql.conf.
        durable: with False the server skips what protects data against a crash
            of the machine, and lies in memory where that has room; for tests and demos.
        environment: variables for the server, on top of this process's own.

    The superuser is ``postgres``. `start` and `stop` may be repeated; as a
    context manager it starts on entry and stops on exit.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._account = _unprivileged_account()
        self._temporary = directory is None
        self._directory = directory.absolute() if directory else None
        self._binaries = binaries
        self._settings = {
            **_SETTINGS,
            **({} if durable else _THROWAWAY),
            **(settings or {}),
        }
        self._durable = durable
        self._variables = dict(environment or {})
        self._keeper: subprocess.Popen[bytes] | None = None
        self._left = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._left:
            self.stop()

    @property
    def directory(self) -> Path:
        """Where the cluster lives: ``data/``, the log and, mostly, the socket.

        Raises:
            GdprdbError: it is temporary and not started.
        """
        if self._directory is None:
            raise GdprdbError("the temporary server is not running")
        return self._directory

    @property
    def data(self) -> Path:
        """The data directory (PGDATA)."""
        return self.directory / "data"

    @property
    def socket_dir(self) -> Path:
        """The private directory of the socket: what libpq calls the host."""
        if _fits_a_socket(self.directory):
            return self.directory
        owner = self._account.pw_uid if self._account else os.getuid()
        name = sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return Path("/tmp") / f"gdprdb-{owner}-{name}"

    @property
    def binaries(self) -> Binaries:
        """The programs this cluster runs with, of the major version that made its data."""
        if self._binaries is None and self._directory is not None:
            self._binaries = inspect_binaries(self._directory / _COPY / "bin")
        if self._binaries is None:
            version = self._directory and self._directory / "data" / "PG_VERSION"
            made_with = int(version.read_text()) if version and version.exists() else None
            self._binaries = find_binaries(made_with)
        return self._binaries

    def dsn(self, dbname: str = "postgres", user: str | None = None) -> str:
        """A libpq connection string for a database of this cluster.

        Args:
            dbname: the database.
            user: the login; by default the superuser ``postgres``.
        """
        return make_conninfo(
            host=str(self.socket_dir), port=PORT, dbname=dbname, user=user or "postgres"
        )

    def is_running(self) -> bool:
        """Whether the server of this directory runs, whoever started it."""
        if self._directory is None or not (self.data / "PG_VERSION").exists():
            return False
        return self._run("pg_ctl", "status", "-D", self.data).returncode == 0

    def start(self) -> None:
        """Start the server, making its data directory the first time.

        Raises:
            GdprdbError: the server could not be made or did not start; the
                details are the end of its log.
        """
        if self.is_running():
            return
        with _operating_system_errors("the server could not be started"):
            self._prepare()
            try:
                if self._temporary:
                    self._start_with_keeper()
                else:
                    self._start()
            except BaseException:
                if self._temporary:
                    self._forget()
                raise

    def stop(self) -> None:
        """Stop the server; of a temporary cluster nothing remains.

        Raises:
            GdprdbError: it did not stop.
        """
        if self._keeper is not None:
            self._forget()
        elif self.is_running():
            done = self._run(
                "pg_ctl", "stop", "-s", "-w", "-t", _PATIENCE, "-m", "fast", "-D", self.data
            )
            if done.returncode:
                raise GdprdbError(
                    "the server did not stop", details=tuple(done.stderr.splitlines())
                )

    def leave_running(self) -> None:
        """Let a temporary cluster outlive this process, as if it had been given a directory."""
        if self._keeper is not None:
            self._dismiss_keeper(self._keeper, b"leave\n")
            self._temporary, self._left = False, True

    def remove(self) -> None:
        """Stop the server and delete the cluster with all its data."""
        self.stop()
        if self._directory is not None and _is_ours(self._directory):
            self._delete_files()

    # -- making ---------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the directory, the data and the configuration, as far as they lack."""
        if self._temporary:
            self._directory = Path(tempfile.mkdtemp(prefix="gdprdb-", dir=self._temporary_root()))
        elif not self.directory.exists():
            self.directory.mkdir(mode=0o700, parents=True)
        elif any(self.directory.iterdir()) and not _is_ours(self.directory):
            raise GdprdbError(
                f"{self.directory} holds other files",
                hint="Name a new or an empty directory for the server.",
            )
        self._give(self.directory)
        self.directory.chmod(0o700)
        if not self._may_enter(self.directory):
            raise GdprdbError(
                f"the account {self._owner_name()}, which runs the server, cannot reach "
                f"{self.directory}",
                hint="Name a directory below one that every user may enter, as /var/lib.",
            )
        self._borrow_binaries()
        if self.socket_dir != self.directory:
            self._make_socket_dir()
        self._write_settings()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()

    def _initialise(self) -> None:
        """Run initdb beside the final place, so that a half-made cluster is never taken for one."""
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-instructions"]
        if self.binaries.major >= 17:
            options += ["--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            options += ["--locale=C.UTF-8"]
        if not self._durable:
            options += ["--no-sync"]
        done = self._run("initdb", *options, "-D", unfinished)
        if done.returncode:
            raise GdprdbError(
                "initdb could not make a database cluster",
                details=tuple(done.stderr.splitlines()[-5:]),
            )
        with (unfinished / "postgresql.conf").open("a") as conf:
            conf.write("include '../gdprdb.conf'\n")
        unfinished.rename(self.data)

    def _write_settings(self) -> None:
        settings = {**self._settings, "unix_socket_directories": str(self.socket_dir)}
        lines = [f"{name} = {_quoted(value)}" for name, value in settings.items()]
        conf = self.directory / "gdprdb.conf"
        conf.write_text("\n".join(["# Written by gdprdb at every start.", *lines, ""]))
        self._give(conf)

    def _borrow_binaries(self) -> None:
        """Copy the programs to where the server's account can read them, if it cannot.

        A virtual environment in root's home is closed to the account that must
        run the server.
        """
        if self._may_enter(self.binaries.bin_dir):
            return
        copy, unfinished = self.directory / _COPY, self.directory / f"{_COPY}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(self.binaries.bin_dir.parent, unfinished, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            self._give(path)
        unfinished.rename(copy)
        self._binaries = inspect_binaries(copy / "bin")

    def _make_socket_dir(self) -> None:
        """Make the directory in /tmp for a socket whose path would be too long, or refuse it."""
        path = self.socket_dir
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            self._give(path)
        found = path.lstat()
        owner = self._account.pw_uid if self._account else os.getuid()
        if found.st_uid != owner or found.st_mode & 0o7777777 != 0o40700:
            raise GdprdbError(f"{path} belongs to somebody else", hint="Remove it, and try again.")

    # -- running --------------------------------------------------------------

    def _start(self) -> None:
        done = self._run(
            "pg_ctl",
            "start",
            "-s",
            "-w",
            "-t",
            _PATIENCE,
            "-D",
            self.data,
            "-l",
            self.directory / "log",
        )
        if done.returncode:
            raise self._did_not_start()

    def _start_with_keeper(self) -> None:
        second = self.socket_dir if self.socket_dir != self.directory else ""
        arguments = [str(self.binaries.program("pg_ctl")), str(self.directory), str(second)]
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "gdprdb-keeper", *arguments, str(_PATIENCE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.directory,
            env={**_environment(), **self._variables},
            start_new_session=True,
            **self._identity(),
        )
        if self._keeper.stdout is None or self._keeper.stdout.readline() != b"started\n":
            raise self._did_not_start()

    def _dismiss_keeper(self, keeper: subprocess.Popen[bytes], word: bytes = b"") -> None:
        """Close the pipe, after a last word, and wait until the keeper has done its work."""
        self._keeper = None
        try:
            keeper.communicate(word, timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            raise GdprdbError("the server did not stop") from None

    def _did_not_start(self) -> GdprdbError:
        log = self.directory / "log"
        lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
        return GdprdbError("the server did not start", details=tuple(lines))

    def _forget(self) -> None:
        """Leave nothing of a temporary cluster, whether or not its keeper could clear up."""
        if self._keeper is not None:
            self._dismiss_keeper(self._keeper)
        self._delete_files()
        self._directory = None

    def _delete_files(self) -> None:
        if self.socket_dir != self.directory:
            shutil.rmtree(self.socket_dir, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- the account ----------------------------------------------------------

    def _identity(self) -> _Identity:
        """Arguments that make a subprocess run as the server's account."""
        if self._account is None:
            return {}
        return {
            "user": self._account.pw_uid,
            "group": self._account.pw_gid,
            "extra_groups": (),
            "umask": 0o077,
        }

    def _run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as the server's account."""
        return subprocess.run(
            [str(self.binaries.program(program)), *map(str, arguments)],
            check=False,
            cwd=self.directory,
            env={**_environment(), **self._variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **self._identity(),
        )

    def _may_enter(self, directory: Path) -> bool:
        """Whether the server's account can enter the directory and read it."""
        if self._account is None:
            return True
        done = subprocess.run(
            ["/bin/sh", "-c", 'cd "$1" && ls . >/dev/null', "sh", str(directory)],
            check=False,
            cwd="/",
            capture_output=True,
            **self._identity(),
        )
        return done.returncode == 0

    def _give(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)

    def _owner_name(self) -> str:
        return self._account.pw_name if self._account else pwd.getpwuid(os.getuid()).pw_name

    def _temporary_root(self) -> Path:
        """Where a temporary cluster lies: in memory if its data may be lost and there is room;
        else the usual directory for temporary files, unless it is closed to us or too deep."""
        root = Path(tempfile.gettempdir())
        if not self._durable and not os.environ.get("TMPDIR") and _has_room(_MEMORY):
            root = _MEMORY
        usable = self._may_enter(root) and _fits_a_socket(root / "gdprdb-12345678")
        return root if usable else Path("/tmp")


def default_directory() -> Path:
    """Where ``gdprdb server`` keeps its data: for root ``/var/lib/gdprdb``, which the
    server's account can reach; else ``gdprdb`` in the user's data directory (XDG)."""
    if os.geteuid() == 0:
        return Path("/var/lib/gdprdb")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "gdprdb"


def _unprivileged_account() -> pwd.struct_passwd | None:
    """The account to run a server as when started by root; None for everybody else."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise GdprdbError(
        "PostgreSQL does not run as root, and there is no account postgres or nobody",
        hint="Run gdprdb as an ordinary user.",
    )


def _environment() -> dict[str, str]:
    """Our environment without what would redirect PostgreSQL's programs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _has_room(directory: Path) -> bool:
    """Whether programs and a few databases find place in a file system in memory."""
    if not os.access(directory, os.W_OK):
        return False
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize > _ROOM_BYTES and not found.f_flag & os.ST_NOEXEC


def _quoted(value: str) -> str:
    """A value as postgresql.conf takes it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _fits_a_socket(directory: Path) -> bool:
    return len(os.fsencode(directory / f".s.PGSQL.{PORT}.lock")) <= _SOCKET_PATH_BYTES


def _is_ours(directory: Path) -> bool:
    return (directory / "gdprdb.conf").exists()


@contextlib.contextmanager
def _operating_system_errors(message: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise GdprdbError(message, details=(str(error),)) from error
