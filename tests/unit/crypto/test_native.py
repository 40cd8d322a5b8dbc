"""The C code has no access out of bounds and no undefined behaviour on all that the tests of its callers compute."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedtasks.crypto import native, ristretto, ristretto_backends
from fedtasks.crypto.native.compiler import compile_library, find_compiler

ROOT = Path(__file__).resolve().parents[3]
SANITIZERS = ("-g1", "-O1", "-fno-sanitize-recover=all", "-fsanitize=address,undefined")
CALLERS = ["test_modular.py", "test_ristretto.py", "test_hashing.py", "test_blind_rsa.py"]
# Kernels in Python, and other libraries to compare with, have nothing that a sanitizer could see.
CHOSEN = "not portable and not on_anything and not two_threads and not another_library"
# Many rows or long numbers, each beside a test of few rows that takes the same way through the code.
LENGTHY = "thousands_of or 8192 or 8500 or 3072 or any_batch_equal_direct_ones"

# A plugin of pytest: another library in the place of the installed one.
PLUGIN = """
from pathlib import Path

def pytest_configure():
    from fedtasks.crypto import native, ristretto
    native.LIBRARY = Path({library!r})
    assert native.load() is not None, "the sanitized library cannot be loaded"
"""

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("native") / "sanitized.so"
    compile_library(library, SANITIZERS)
    library.with_name("sanitized_library.py").write_text(PLUGIN.format(library=str(library)))
    return library


def run(sanitized: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps memory until its end
        "PYTHONPATH": str(sanitized.parent),
        "PYTHONMALLOC": "malloc",  # so that the ends of Python's objects are watched too
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def runtime(name: str) -> str:
    """Return where the compiler keeps a sanitizer's library."""
    compiler = find_compiler()
    assert compiler is not None
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "chosen",
    [f"{CHOSEN} and not ({LENGTHY})", pytest.param(f"{CHOSEN} and ({LENGTHY})", marks=pytest.mark.slow)],
    ids=["in short", "at length"],
)
def test_sanitizers_find_nothing_in_what_all_callers_compute(sanitized: Path, chosen: str) -> None:
    paths = [str(Path(__file__).with_name(name)) for name in CALLERS]
    options = ["-q", "-x", "--capture=no", "-p", "sanitized_library", "-p", "no:cacheprovider", "--timeout=0"]

    done = run(sanitized, "-m", "pytest", *options, "-m", "not slow", "-k", chosen, *paths)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_sanitizers_would_find_an_access_out_of_bounds(sanitized: Path) -> None:
    program = """
import numpy as np
import sanitized_library
from fedtasks.crypto import native, ristretto

sanitized_library.pytest_configure()
out, rows = np.empty((4, 16), np.uint64), np.zeros((1, 128), np.uint8)
native.call("fedtasks_openssl_from_bytes", out, rows, 128, 4, 16)
"""
    done = run(sanitized, "-c", program)

    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr


def test_group_of_the_ifma_kernel_computes_as_libsodium_where_its_instructions_are_emulated(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("its vectors are those of x86")
    library, compiler = tmp_path / "emulated.so", find_compiler()
    assert compiler is not None
    source = ROOT / "tests" / "support" / "emulated_ifma.c"
    options = ["-O0", "-mavx2", "-mbmi2", "-Wno-psabi", "-shared", "-fPIC", f"-I{Path(native.__file__).parent}"]
    subprocess.run([compiler, *options, "-o", str(library), str(source)], check=True, capture_output=True)
    emulated, sodium = ristretto_backends._Native(ctypes.CDLL(str(library)), "ifma"), ristretto_backends._Sodium()
    n = 37  # a block of 32, and a vector with lanes left over
    by, halves = ristretto.random_scalars(n), np.random.default_rng(1).integers(0, 256, (n, 64), dtype=np.uint8)
    points, base = ristretto.map_to_group(halves), ristretto.multiply_base(by[:1])
    calls: list[tuple[str, tuple[np.ndarray, ...]]] = [
        ("map_to_group", (halves,)),
        ("multiply", (points, by)),
        ("multiply", (points, by[:1])),
        ("multiply_base", (by,)),
        ("map_and_multiply", (halves, by)),
        ("add_multiples", (points, base, by)),
        ("map_and_add", (halves, ristretto.GENERATOR, by)),
        ("reduce", (halves,)),
        ("invert", (by,)),
    ]
    for name, arguments in calls:
        found = [np.empty((n, 32), dtype=np.uint8) for _ in range(2)]
        for backend, out in zip((emulated, sodium), found, strict=True):
            assert getattr(backend, name)(out, *arguments) is None, name
        assert found[0].tolist() == found[1].tolist(), name
    for rows in (n, 8 * n):  # by either plan of a weighted sum
        many, weights = np.tile(points, (rows // n, 1)), ristretto.random_scalars(rows)
        sum_of_all = np.empty((1, 32), dtype=np.uint8)
        assert emulated.weighted_sum(sum_of_all, many, weights) is None
        assert sum_of_all.tolist() == ristretto.weighted_sum(many, weights).tolist()
    points[20] = 255
    assert emulated.multiply(np.empty_like(points), points, by) == 20


def test_call_of_an_array_that_is_not_contiguous_is_refused() -> None:
    if native.load() is None:
        pytest.skip("the kernels were not built")
    with pytest.raises(ValueError, match="contiguous"):
        native.call("fedtasks_openssl_from_bytes", np.zeros((4, 4))[:, ::2], 0, 0, 0, 0)


def test_build_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))

    with pytest.raises(FileNotFoundError, match="no C compiler"):
        compile_library(tmp_path / "kernels.so")


def test_build_that_fails_leaves_the_library_as_it_was(tmp_path: Path) -> None:
    library = tmp_path / "kernels.so"
    library.write_bytes(b"before")

    with pytest.raises(subprocess.CalledProcessError) as failed:
        compile_library(library, ["-fno-such-flag"])

    assert "no-such-flag" in failed.value.stderr
    assert library.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.so"]
