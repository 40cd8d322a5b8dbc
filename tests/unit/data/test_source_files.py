from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedtasks.config import Dataset, FeatureType, Format
from fedtasks.data.source_files import arrow_errors, files_of, opened, values_of_path
from fedtasks.data.tables import list_parts
from fedtasks.errors import DataMissing, FedtasksError, FileForbidden, FileInvalid
from tests.support.other_user import NOBODY, needs_root


def dataset(path: Path) -> Dataset:
    return Dataset(name="people", uri=f"file://{path}", id="id", features={"x": FeatureType.NUMERIC}, format=Format.CSV)


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@needs_root
@pytest.mark.parametrize("closed", ["file", "folder", "folder above"])
def test_file_that_may_not_be_read_is_forbidden_and_not_missing(closed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "above" / "people"
        folder.mkdir(parents=True)
        (folder / "a.csv").write_text("id,x\na,1\n")
        for path in (Path(name), folder.parent, folder):
            path.chmod(0o755)
        {"file": folder / "a.csv", "folder": folder, "folder above": folder.parent}[closed].chmod(0)
        with another_user(), pytest.raises(FileForbidden) as caught:
            list_parts(dataset(folder))
        assert caught.value.where.startswith(f"file://{folder}")
        assert not caught.value.retryable
        assert "Airflow's tasks run as" in str(caught.value)


def test_file_that_has_gone_since_it_was_listed_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="not there any more"), opened(f"file://{tmp_path}/a.csv"):
        pass


def test_errors_of_a_store_are_not_taken_for_errors_of_the_file() -> None:
    class Away(OSError):
        pass

    for error in (Away("the store does not answer"), OSError(5, "Input/output error"), MemoryError()):
        with pytest.raises(type(error)), arrow_errors("file:///a", "not CSV"):
            raise error
    with pytest.raises(FileInvalid, match="not CSV"), arrow_errors("file:///a", "not CSV"):
        raise OSError("Couldn't deserialize thrift")


def test_path_says_values_as_hive_writes_them() -> None:
    found = values_of_path("hdfs://n:1/w/day=2026-11-21/land=%C3%96/x=__HIVE_DEFAULT_PARTITION__/a=b=c/000000_0=1")
    assert found == {"day": "2026-11-21", "land": "Ö", "x": None, "a": "b=c"}


def test_files_come_in_the_order_of_their_names_whatever_links_there_are(tmp_path: Path) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for name in ("in/b/2.csv", "in/a.csv", "out/3.csv"):
        (tmp_path / name).touch()
    (tmp_path / "in" / "c").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "d").symlink_to(tmp_path / "out")
    assert [uri.rpartition("/in/")[2] for uri in files_of(dataset(tmp_path / "in"))] == [
        *("a.csv", "b/2.csv", "c/3.csv", "d/3.csv")
    ]


def test_remedies_name_what_to_do_and_no_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(FedtasksError) as caught:
        files_of(dataset(tmp_path))
    assert "name its ending in the dataset's `endings`" in str(caught.value)
    assert not caught.value.retryable
