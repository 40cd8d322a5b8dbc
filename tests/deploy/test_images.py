"""What images are made of, without making any: the linter, the lock file, and what the Dockerfile says."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support import tools

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
DOCKERFILES = [DOCKERFILE, ROOT / "tests" / "support" / "compose" / "postgres.Dockerfile"]
IMAGES = {"gateway", "airflow", "trainer", "demo", "spark"}
HEAVY = {"apache-airflow", "tensorflow-cpu", "pyspark", "duckdb", "pyarrow", "numpy", "pandas"}


def stages() -> dict[str, str]:
    """Return what the Dockerfile says of each stage, by its name."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def locked_for(extras: set[str]) -> set[str]:
    """Return the names of all packages that the lock file has for fedtasks with these extras."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    packages = {package["name"]: package for package in lock["package"]}
    found: set[str] = set()
    todo = [("fedtasks", frozenset(extras))]
    while todo:
        name, wanted = todo.pop()
        package = packages[name]
        needs = list(package.get("dependencies", ()))
        for extra in wanted:
            needs += package.get("optional-dependencies", {}).get(extra, ())
        for need in needs:
            if need["name"] not in found or need["name"] == "fedtasks":
                found.add(need["name"])
                todo.append((need["name"], frozenset(need.get("extra", ()))))
    return found


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_linter_finds_nothing(file: Path) -> None:
    done = subprocess.run([tools.find("hadolint"), str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_are_well_formed() -> None:
    for script in (ROOT / "docker").glob("*.sh"):
        shell = script.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
        subprocess.run([shell, "-n", str(script)], check=True)


def test_a_gateways_image_has_nothing_heavy() -> None:
    assert not locked_for(set()) & HEAVY
    assert {"grpcio", "sqlalchemy", "psycopg2-binary"} <= locked_for(set())
    # The same search finds them where they are.
    assert {"apache-airflow", "asyncpg", "pyarrow"} <= locked_for({"airflow", "data"})


def test_every_image_runs_as_nobody_in_particular_and_says_whether_it_is_well() -> None:
    found = stages()
    assert found.keys() >= IMAGES
    for name in IMAGES:
        user = re.findall(r"^USER (.+)$", found[name], flags=re.MULTILINE)
        assert user[-1:] == ["10001:10001"], name
        assert "\nHEALTHCHECK " in found[name], name


def test_extras_of_images_are_extras_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"/build/install\.sh ((?:[a-z0-9]+ ?)+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    extras = {extra for line in named for extra in line.split()}
    assert extras
    assert extras <= project["optional-dependencies"].keys()


def test_what_is_copied_is_in_the_context() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    copied = [
        source.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    assert "fedtasks" in copied
    for source in copied:
        assert any(fnmatch.fnmatch(source, pattern) for pattern in sent), source
        assert (ROOT / source).exists(), source
