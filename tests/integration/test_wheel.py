"""The wheel, installed where the source tree is not: it holds everything that a run needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedtasks.config import load_party
from fedtasks.laptop.ports import free_ports
from fedtasks.laptop.process import Process
from fedtasks.link.client import GatewayClient
from tests.support import tools

ROOT = Path(__file__).resolve().parents[2]
DAGS = sorted(file.stem for file in (ROOT / "dags").glob("*.py"))
JOBS = sorted(file.stem for file in (ROOT / "spark_jobs").glob("*.py"))
SOURCES = ("fedtasks", "dags", "spark_jobs", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
WITHOUT_A_MODEL = {
    ("predict_secureboost", "predict"): "it needs the model `train_secureboost`, which another run trains"
}
"""What a first run cannot do."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel and what it depends on, and an empty folder to work in."""

    python: Path
    packages: Path
    folder: Path

    def run(self, *arguments: str) -> str:
        """Run Python there, and return what it printed."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FEDTASKS_PARTY")}
        environment = {**kept, "PYTHONNOUSERSITE": "1", "AIRFLOW_HOME": str(self.folder / "airflow")}
        argv = [str(self.python), *arguments]
        done = subprocess.run(argv, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fedtasks(self, *arguments: str) -> str:
        return self.run("-m", "fedtasks.cli", *arguments)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from a copy of what it is made of, and unpack it."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy(source, folder / name)
    with tarfile.open(built(folder, "sdist")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Build the wheel from the sdist, as whoever installs that does."""
    return built(sdist, "wheel")


def built(folder: Path, target: str) -> Path:
    argv = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder / "dist")]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Unpack the wheel into an environment that finds dependencies where this one does, but not the source tree."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Of a folder named so, no .pth file is read, so the editable installation of this environment does not count.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    work = folder / "work"
    work.mkdir()
    return Installed(folder / "venv" / "bin" / "python", packages, work)


def test_sdist_holds_no_more_than_a_wheel_is_made_of(sdist: Path) -> None:
    expected = {*SOURCES, "PKG-INFO"}
    assert {path.name for path in sdist.iterdir() if path.name != "dist"} == expected
    assert not list(sdist.rglob("*.so"))


def test_wheel_holds_examples_jobs_types_and_no_leftovers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for sort in ("dags", "spark_jobs"):
        expected = {f"fedtasks/examples/{sort}/{file.name}" for file in (ROOT / sort).glob("*.py")}
        assert {name for name in names if name.startswith(f"fedtasks/examples/{sort}/")} == expected
    assert "fedtasks/py.typed" in names
    assert "fedtasks/crypto/native/kernels.so" in names
    assert "fedtasks/airflow/pages/static/run_parts.js" in names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"fedtasks"}
    assert not [name for name in names if "__pycache__" in name]


def test_source_tree_is_out_of_reach(installed: Installed) -> None:
    found = installed.run(
        "-c", "import fedtasks, sys; print(fedtasks.__file__); print(*sys.path, sep='\\n')"
    ).splitlines()
    assert Path(found[0]) == installed.packages / "fedtasks" / "__init__.py"
    assert str(ROOT) not in found[1:]


def test_examples_are_listed_and_copied_but_never_over_a_file(installed: Installed) -> None:
    listed = json.loads(installed.fedtasks("dag", "examples", "--json"))
    assert [Path(file).stem for file in listed] == DAGS
    assert all(text.endswith(".") for text in listed.values())
    installed.fedtasks("dag", "examples", "copies")
    copies = installed.folder / "copies"
    for name in DAGS:
        assert (copies / f"{name}.py").read_bytes() == (ROOT / "dags" / f"{name}.py").read_bytes()
    (copies / f"{DAGS[0]}.py").unlink()
    with pytest.raises(AssertionError, match="the file is there already"):
        installed.fedtasks("dag", "examples", "copies")
    assert not (copies / f"{DAGS[0]}.py").exists()
    assert [Path(file).stem for file in json.loads(installed.fedtasks("spark", "jobs", "--json"))] == JOBS


@pytest.mark.parametrize("name", DAGS)
def test_shipped_dag_runs(installed: Installed, name: str) -> None:
    file = installed.packages / "fedtasks" / "examples" / "dags" / f"{name}.py"
    steps = json.loads(installed.fedtasks("dag", "test", str(file), "--json"))["steps"]
    assert steps
    for step in steps:
        assert step["left_out"] == WITHOUT_A_MODEL.get((name, step["step"]), "")


def test_gateway_runs_with_what_the_wheel_itself_asks_for(wheel: Path, tmp_path: Path) -> None:
    uv = tools.find("uv", str(ROOT / ".tools" / "bin" / "uv"))
    environment = tmp_path / "venv"
    for arguments in (["venv", str(environment)], ["pip", "install", "--python", str(environment), str(wheel)]):
        done = subprocess.run([uv, "--quiet", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (packages,) = (environment / "lib").glob("python*/site-packages")
    assert not {"airflow", "duckdb", "numpy", "pyarrow", "pyspark", "tensorflow"} & {
        path.name for path in packages.iterdir()
    }
    bare = Installed(environment / "bin" / "python", packages, tmp_path)
    for name, listen in (("bank", ["--listen", f"127.0.0.1:{free_ports(1)[0]}"]), ("shop", [])):
        bare.fedtasks("init", name, "--folder", name, *listen)
    bare.fedtasks("peer", "add", "shop/shop.card.yaml", "--yes", "--party", "bank/party.yaml")
    (tmp_path / "bank" / "keys" / "airflow.password").touch(mode=0o600)
    file = tmp_path / "bank" / "party.yaml"
    argv = [str(bare.python), "-m", "fedtasks.cli", "gateway", "--party", str(file)]
    with (
        Process(argv, log=tmp_path / "gateway.log", env={"PATH": os.environ["PATH"]}, cwd=tmp_path),
        GatewayClient.of(load_party(file)) as client,
    ):
        assert [peer.name for peer in client.peers().peers] == ["shop"]
        assert '"shop"' in bare.fedtasks("peer", "list", "--json", "--party", str(file))
    assert [Path(job).stem for job in json.loads(bare.fedtasks("spark", "jobs", "--json"))] == JOBS
