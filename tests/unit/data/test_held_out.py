"""Who is held out for the test: a property of people that both sides know alike, whatever the key of the tags."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.data.held_out import bound, count_draws, draws, is_held_out, own_secret, units_of, units_of_keys

IDS = [f"person-{number}" for number in range(3000)]


def test_units_are_hashes_of_ids_and_partitions() -> None:
    ids = pa.array(["á", "u1", "", None]).slice(1)
    for partition in ("", "2026-11-20"):
        prefix = b"fedtasks-unit\x00" + partition.encode() + b"\x00"
        expected = [hashlib.sha256(prefix + text).digest()[:8] for text in (b"u1", b"", b"")]
        found = units_of(ids, partition).to_pylist()
        assert found == [int.from_bytes(digest, "big", signed=True) for digest in expected]


def test_units_of_keys_and_of_ids_differ() -> None:
    keys = np.frombuffer(b"".join(f"{number:016d}".encode() for number in range(5)), np.uint8).reshape(5, 16)
    ids = pa.array([row.tobytes().decode() for row in keys])
    assert not set(units_of_keys(keys).to_pylist()) & set(units_of(ids).to_pylist())


def test_held_out_is_who_a_hash_of_seed_and_unit_says() -> None:
    units = units_of(pa.array(IDS)).to_numpy()
    found = is_held_out(units, seed=9, test_fraction=0.3)
    prefix = b"fedtasks-held-out" + (9).to_bytes(8, "big")
    for unit, held in zip(units.tolist(), found, strict=True):
        digest = hashlib.sha256(prefix + unit.to_bytes(8, "big", signed=True)).digest()
        assert held == (int.from_bytes(digest[:8], "big") / 2**64 < 0.3)
    assert 0.26 < found.mean() < 0.34
    assert (found != is_held_out(units, seed=10, test_fraction=0.3)).any()
    assert not is_held_out(units, seed=9, test_fraction=0.0).any()


def test_held_out_for_a_small_share_are_held_out_for_a_larger_one() -> None:
    units = units_of(pa.array(IDS)).to_numpy()
    few, many = (is_held_out(units, seed=1, test_fraction=share) for share in (0.1, 0.4))
    assert many[few].all()
    assert few.sum() < many.sum()


@pytest.mark.parametrize(("n_rows", "share"), [(2, 0.25), (3, 0.01), (40, 0.25), (3000, 0.25), (3000, 0.9)])
def test_bound_gives_a_class_its_share_but_neither_none_nor_all(n_rows: int, share: float) -> None:
    found = draws(units_of(pa.array(IDS[:n_rows])).to_numpy(), 3, b"secret")
    parts = count_draws(found[: n_rows // 2]) + count_draws(found[n_rows // 2 :])

    below = int((found < np.uint64(bound(parts, share))).sum())

    assert 1 <= below <= n_rows - 1
    assert abs(below - n_rows * share) <= 1 + n_rows / 1000


def test_bound_of_one_row_follows_its_share() -> None:
    one = count_draws(draws(units_of(pa.array(["u"])).to_numpy(), 3))
    assert bound(one, 0.1) == 0
    assert bound(one, 0.9) > 0
    assert bound(np.zeros_like(one), 0.9) == 0


def test_bound_above_the_last_draws_is_a_draw_too() -> None:
    last = count_draws(np.array([2**64 - 2], dtype=np.uint64))
    assert np.uint64(bound(last, 0.9)) == np.uint64(2**64 - 1)


def test_secret_of_draws_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    storage = f"file://{tmp_path}/storage"
    first = own_secret(storage)
    assert len(first) == 32
    assert own_secret(f"{storage}/") == first
    assert (tmp_path / "storage" / "held-out.key").stat().st_mode & 0o077 == 0
    assert own_secret(f"file://{tmp_path}/other") != first
    units = units_of(pa.array(IDS)).to_numpy()
    assert (draws(units, 0, first) != draws(units, 0)).all()
