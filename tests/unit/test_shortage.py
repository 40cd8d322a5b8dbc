"""Whoever runs short of disk or memory is told so, whatever says it: a library, a limit, a signal, the kernel."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from fedtasks import shortage as subject
from fedtasks.errors import ConfigError, DiskFull, FedtasksError, OutOfMemory, PeerFailed
from fedtasks.shortage import KILLED, UNWRITTEN, allocate, end_of, kernel_kills, shortage, told_short

MB = 1 << 20


def raised(work: str) -> BaseException:
    try:
        exec(work, {"pa": pa, "np": np, "os": os, "errno": errno, "sqlite3": sqlite3, "duckdb": duckdb})
    except Exception as error:
        return error
    raise AssertionError(work)


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        ("with open('/dev/full', 'wb', 0) as f:\n f.write(b'x')", DiskFull),
        ("with pa.OSFile('/dev/full', 'wb') as f:\n f.write(bytes(1 << 20))", DiskFull),
        ("raise OSError(errno.EDQUOT, 'Disk quota exceeded', '/data/x')", DiskFull),
        ("raise OSError(errno.EFBIG, 'File too large')", DiskFull),
        ("raise duckdb.IOException('IO Error: write: No space left on device')", DiskFull),
        ("raise duckdb.OutOfMemoryException('failed to offload: max_temp_directory_size')", DiskFull),
        ("raise sqlite3.OperationalError('database or disk is full')", DiskFull),
        ("raise FileNotFoundError(2, 'No usable temporary directory found in [/tmp]')", DiskFull),
        ("np.empty(1 << 56)", OutOfMemory),
        ("pa.allocate_buffer(1 << 60)", OutOfMemory),
        ("raise OSError(errno.ENOMEM, 'Cannot allocate memory')", OutOfMemory),
        ("raise duckdb.OutOfMemoryException('Out of Memory Error: could not allocate block')", OutOfMemory),
        ("try:\n np.empty(1 << 56)\nexcept MemoryError as e:\n raise ValueError('no sums') from e", OutOfMemory),
        ("try:\n np.empty(1 << 56)\nexcept MemoryError:\n raise ValueError('no sums')", OutOfMemory),
        ("raise ValueError('No space left on device')", type(None)),
        ("open('/no/such/file')", type(None)),
        ("raise duckdb.IOException('no such file')", type(None)),
    ],
)
def test_shortage_is_told_whatever_says_it(work: str, kind: type) -> None:
    assert isinstance(shortage(raised(work)), kind)


def test_shortage_of_a_jvm_is_told_by_the_line_that_says_it() -> None:
    class Py4JJavaError(Exception):
        __module__ = "py4j.protocol"

    trace = "An error occurred while calling o1.collect.\n: java.lang.OutOfMemoryError: Java heap space\n\tat java.util"
    found = shortage(Py4JJavaError(trace))
    assert isinstance(found, OutOfMemory)
    assert "java.lang.OutOfMemoryError: Java heap space" in found.detail
    assert "spark.driver_memory" in str(found)
    lost = "Job aborted.\nCaused by: java.io.IOException: No space left on device\n\tat java.io"
    assert isinstance(shortage(Py4JJavaError(lost)), DiskFull)


def test_shortage_that_only_came_before_an_error_of_the_registry_is_not_its_cause() -> None:
    cause = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    told = ConfigError("the folder cannot be made")
    told.__cause__ = cause
    found = shortage(told)
    assert isinstance(found, DiskFull)
    assert found.where == "/data/x"
    other = PeerFailed("No space left on device")
    other.__context__ = cause
    assert shortage(other) is None


def test_told_short_raises_the_registrys_error_and_lets_others_pass(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match=f"are free below {tmp_path}") as found, told_short(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(found.value.__cause__, OSError)
    for error in (KeyError("x"), PeerFailed("x")):
        with pytest.raises(type(error)) as passed, told_short():
            raise error
        assert passed.value is error


@pytest.mark.parametrize(
    ("code", "kills", "kind"),
    [
        (0, 0, type(None)),
        (1, 0, type(None)),
        (128 + 15, 0, type(None)),
        (UNWRITTEN, 3, DiskFull),
        (128 + 7, 3, DiskFull),
        (KILLED, 3, type(None)),
        (KILLED, 2, OutOfMemory),
        (KILLED, None, type(None)),
    ],
)
def test_end_of_a_process_without_a_word_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, code: int, kills: int | None, kind: type
) -> None:
    monkeypatch.setattr(subject, "kernel_kills", lambda: 3)
    found = end_of(code, kills)
    assert isinstance(found, kind)
    assert found is None or not found.retryable


@pytest.mark.parametrize(
    ("group", "files", "kills", "limit"),
    [
        ("0::/jobs/one\n", {"jobs/one/memory.events": "low 0\noom 1\noom_kill 4\n"}, 4, ""),
        ("0::/jobs/one\n", {"memory.events": "oom_kill 5\n", "memory.max": "2000000000\n"}, 5, "may take 2.0 GB"),
        ("0::/\n", {"memory.events": "oom_kill 6\n", "memory.max": "max\n"}, 6, ""),
        (
            "4:memory:/jobs\n0::/\n",
            {
                "memory/jobs/memory.oom_control": "under_oom 0\noom_kill 7\n",
                "memory/memory.limit_in_bytes": f"{1 << 62}\n",
            },
            7,
            "",
        ),
    ],
    ids=["v2", "v2 in a container", "v2 without a limit", "v1"],
)
def test_kernel_kills_and_limits_are_those_of_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, files: dict[str, str], kills: int, limit: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup").write_text(group)
    monkeypatch.setattr(subject, "_GROUPS", tmp_path)
    monkeypatch.setattr(subject, "_OWN_GROUPS", tmp_path / "cgroup")
    assert kernel_kills() == kills
    assert limit in subject.memory_limits()
    assert bool(subject.memory_limits()) == bool(limit)


def test_kernel_kills_are_counted_on_this_machine() -> None:
    assert isinstance(kernel_kills(), int)


def test_allocate_makes_zeros_for_its_owner_alone(tmp_path: Path) -> None:
    allocate(tmp_path / "array", 3 * MB + 1)
    assert (tmp_path / "array").read_bytes() == bytes(3 * MB + 1)
    assert (tmp_path / "array").stat().st_mode & 0o777 == 0o600


def test_allocate_writes_zeros_where_no_room_can_be_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    allocate(tmp_path / "array", 3 * MB + 1)
    assert (tmp_path / "array").read_bytes() == bytes(3 * MB + 1)


# ------------------------------------------------------------------------------------------------- limits that are real
def limited(program: str, **limits: int) -> subprocess.CompletedProcess[str]:
    """Run a program under limits of the system."""

    def limit() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    argv = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=limit, env=dict(os.environ))


def test_array_beyond_a_limit_on_files_is_a_full_disk_and_names_the_limit() -> None:
    done = limited(
        """
        from fedtasks.encrypted.histograms import Scratch
        from fedtasks.shortage import told_short
        with Scratch() as scratch:
            scratch.array((4 << 20,), "u1")
        """,
        FSIZE=MB,
    )
    assert "DiskFull: DISK_FULL" in done.stderr, done.stderr


def test_memory_beyond_a_limit_names_the_limit() -> None:
    done = limited(
        """
        import numpy
        from fedtasks.shortage import told_short
        with told_short():
            numpy.ones(1 << 30)
        """,
        AS=4 << 30,
    )
    assert "OutOfMemory: OUT_OF_MEMORY" in done.stderr, done.stderr
    assert "its address space is limited to 4.3 GB" in done.stderr


def on_small_disk(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program whose folder for temporary files is a disk of four megabytes of its own."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a disk of their own")
    script = f'mount -t tmpfs -o size=4m tmpfs {folder} && exec "$0" -c "$1"'
    return subprocess.run(
        [unshare, "-Urm", "sh", "-c", script, sys.executable, textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def test_array_on_a_full_disk_is_refused_at_once_instead_of_ending_its_process_by_a_signal(tmp_path: Path) -> None:
    done = on_small_disk(
        tmp_path,
        """
        from fedtasks.encrypted.histograms import Scratch
        from fedtasks.errors import DiskFull
        with Scratch() as scratch:
            first = scratch.array((3 << 20,), "u1")
            first[:] = 1
            try:
                second = scratch.array((2 << 20,), "u1")
                second[:] = 1
            except DiskFull as error:
                print(error)
            assert first.all()
        """,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert "2.1 MB are needed for an array" in done.stdout
    assert "1.0 MB of 4.2 MB are free below" in done.stdout


def test_mapped_file_without_room_ends_a_process_by_the_signal_that_is_known_for_it(tmp_path: Path) -> None:
    done = on_small_disk(
        tmp_path,
        """
        import numpy, tempfile
        numpy.memmap(tempfile.gettempdir() + "/x", dtype="u1", mode="w+", shape=(8 << 20,))[:] = 1
        """,
    )
    assert isinstance(end_of(128 - done.returncode, 0), DiskFull)


def test_full_disk_is_told_by_no_public_text() -> None:
    error: FedtasksError = DiskFull("/srv/bank/loans", where="/srv/bank")
    assert "srv" not in error.public
