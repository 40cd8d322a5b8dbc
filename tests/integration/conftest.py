from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.psi_case import Case, Keys, numbers
from tests.integration.psi_halves import Halves, two_halves


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("psi")


@pytest.fixture(scope="module")
def keys(root: Path) -> Keys:
    return Keys(root)


@pytest.fixture(scope="module")
def halves(root: Path) -> Iterator[Halves]:
    with two_halves(root) as started:
        yield started


@pytest.fixture
def case(halves: Halves, root: Path, keys: Keys) -> Case:
    number = next(numbers)
    folder = root / f"case-{number}"
    folder.mkdir()
    return Case(halves, folder, keys, f"credit.2026-11-21.{number}")
