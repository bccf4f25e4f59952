"""`Cluster`: a server that is there when needed and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gdprdb.binaries import find_binaries
from gdprdb.errors import GdprdbError
from gdprdb.server import Cluster

#: Starts a server, tells where it is, and waits. Signals do what they do at a terminal, even
#: where the test run was put in the background, which ignores some.
PARENT = """
import signal, time
from gdprdb.server import Cluster
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with Cluster(durable=False) as cluster:
    pid = (cluster.data / "postmaster.pid").read_text().splitlines()[0]
    print(pid, cluster.directory, flush=True)
    time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, directory: Path, seconds: float = 15) -> None:
    """Fail unless process and directory disappear in time."""
    deadline = time.monotonic() + seconds
    while is_alive(pid) or directory.exists():
        assert time.monotonic() < deadline, f"{pid} or {directory} is still there"
        time.sleep(0.05)


@pytest.fixture
def directory(reachable: Path) -> Iterator[Path]:
    """A place for a persistent cluster, which is gone afterwards."""
    yield reachable
    Cluster(reachable).remove()


def scalar(dsn: str, query: str) -> object:
    """The single value of a query."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_is_gone_after_the_block() -> None:
    with Cluster(durable=False) as cluster:
        directory, socket = cluster.directory, cluster.socket_dir
        pid = int((cluster.data / "postmaster.pid").read_text().splitlines()[0])
        assert cluster.is_running()
    assert not directory.exists()
    assert not socket.exists()
    assert not is_alive(pid)
    assert not cluster.is_running()


def test_can_be_started_again() -> None:
    cluster = Cluster(durable=False)
    for _ in range(2):
        with cluster:
            cluster.start()
            assert scalar(cluster.dsn(), "select 1") == 1


def test_is_private_and_utf8() -> None:
    with Cluster(durable=False) as cluster:
        assert stat.S_IMODE(cluster.socket_dir.stat().st_mode) == 0o700
        assert scalar(cluster.dsn(), "show listen_addresses") == ""
        assert scalar(cluster.dsn(), "show server_encoding") == "UTF8"
        assert scalar(cluster.dsn(), "select lower('ÄÖÜ')") == "äöü"
        assert scalar(cluster.dsn(), "select upper(normalize('e\u0301', NFKC))") == "É"


def test_the_log_holds_no_statement_and_no_value() -> None:
    with Cluster(durable=False) as cluster, psycopg.connect(cluster.dsn()) as connection:
        connection.execute("create table t (email text primary key)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("insert into t values ('ada@example.org'), ('ada@example.org')")
        log = (cluster.directory / "log").read_text()
        assert "duplicate key" in log
        assert "ada@example.org" not in log


def test_takes_settings() -> None:
    settings = {"work_mem": "7MB", "cluster_name": "it's"}
    with Cluster(durable=False, settings=settings) as cluster:
        assert scalar(cluster.dsn(), "show work_mem") == "7MB"
        assert scalar(cluster.dsn(), "show cluster_name") == "it's"
        assert scalar(cluster.dsn(), "show fsync") == "off"


def test_a_wrong_setting_is_an_error_with_the_log_and_leaves_nothing() -> None:
    cluster = Cluster(durable=False, settings={"work_mem": "much"})
    with pytest.raises(GdprdbError) as caught:
        cluster.start()
    assert any("work_mem" in line for line in caught.value.details)
    assert not cluster.is_running()
    with pytest.raises(GdprdbError, match="not running"):
        _ = cluster.directory


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_goes_with_the_process_that_started_it(by: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert is_alive(int(pid))
        parent.send_signal(by)
    wait_until_gone(int(pid), Path(directory))


def test_a_control_c_at_the_terminal_reaches_the_parent_only() -> None:
    """The whole foreground process group is interrupted; the server is not in it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        process_group=0,
    )
    with parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert os.getpgid(int(pid)) != parent.pid
        os.killpg(parent.pid, signal.SIGINT)
    wait_until_gone(int(pid), Path(directory))


def test_goes_when_killed_while_starting() -> None:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as place:
        Path(place).chmod(0o777)
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": place},
        )
        deadline = time.monotonic() + 30
        while not list(Path(place).glob("gdprdb-*/data/postmaster.pid")):
            assert time.monotonic() < deadline
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        while list(Path(place).iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_its_keeper_clears_up_when_asked_to_end(by: signal.Signals) -> None:
    """As when the machine shuts down, or all processes of a user are ended."""
    # who runs the tests with nohup has hang-ups ignored, and a child inherits that for good
    before = signal.signal(by, signal.SIG_DFL)
    cluster = Cluster(durable=False)
    try:
        cluster.start()
    finally:
        signal.signal(by, before)
    with cluster:
        directory = cluster.directory
        pid = int((cluster.data / "postmaster.pid").read_text().splitlines()[0])
        (keeper,) = (
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if is_alive(int(path.name))
            and b"gdprdb-keeper" in (path / "cmdline").read_bytes()
            and os.fsencode(directory) in (path / "cmdline").read_bytes()
        )
        os.kill(keeper, by)
        wait_until_gone(pid, directory)


def test_can_be_left_running() -> None:
    with Cluster(durable=False) as cluster:
        cluster.leave_running()
        directory = cluster.directory
    same = Cluster(directory)
    try:
        assert same.is_running()
        assert scalar(same.dsn(), "select 1") == 1
    finally:
        same.remove()
    assert not directory.exists()


def test_a_directory_persists(directory: Path) -> None:
    with Cluster(directory, durable=False) as cluster, psycopg.connect(cluster.dsn()) as connection:
        connection.execute("create table kept as select 42 as value")
    assert directory.exists()
    assert not Cluster(directory).is_running()
    with Cluster(directory) as cluster:
        assert scalar(cluster.dsn(), "select value from kept") == 42
        assert scalar(cluster.dsn(), "show fsync") == "on"


def test_a_long_path_gets_a_short_private_socket_directory(directory: Path) -> None:
    deep = directory / ("d" * 80)
    with Cluster(deep, durable=False) as cluster:
        assert cluster.socket_dir.parent == Path("/tmp")
        assert stat.S_IMODE(cluster.socket_dir.stat().st_mode) == 0o700
        assert scalar(cluster.dsn(), "select 1") == 1
    cluster.remove()
    assert not cluster.socket_dir.exists()


def test_a_planted_socket_directory_is_refused(directory: Path) -> None:
    deep = directory / ("d" * 80)
    planted = Cluster(deep).socket_dir
    planted.mkdir(mode=0o777)
    try:
        with pytest.raises(GdprdbError, match="somebody else"):
            Cluster(deep, durable=False).start()
    finally:
        planted.rmdir()


def test_a_directory_with_other_files_is_left_alone(directory: Path) -> None:
    directory.mkdir()
    (directory / "thesis.tex").write_text("\\end{document}")
    with pytest.raises(GdprdbError, match="holds other files"):
        Cluster(directory).start()
    Cluster(directory).remove()
    assert (directory / "thesis.tex").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change the account")
def test_started_by_root_it_runs_as_somebody_else_who_may_not_read_the_programs(
    tmp_path: Path,
) -> None:
    programs = find_binaries()
    hidden = tmp_path / "closed" / "pg"
    hidden.mkdir(parents=True)
    for part in ("bin", "lib", "share"):
        (hidden / part).symlink_to(programs.bin_dir.parent / part)
    closed = hidden.parent
    closed.chmod(0o700)
    unreadable = type(programs)(hidden / "bin", programs.major, programs.version)
    cluster = Cluster(durable=False, binaries=unreadable)
    cluster.start()
    try:
        assert cluster.binaries.bin_dir.is_relative_to(cluster.directory)
        assert scalar(cluster.dsn(), "select 1") == 1
        assert cluster.data.stat().st_uid != 0
    finally:
        cluster.stop()
