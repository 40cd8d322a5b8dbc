"""Ciphertexts as they arrive at either half."""

from __future__ import annotations

from collections.abc import Iterator

import gmpy2
import numpy as np
import pytest

from fedtasks.encrypted.cipher import PaillierOwner, PaillierSums
from fedtasks.errors import ProtocolViolated

KEY_BITS = 2048


@pytest.fixture(scope="module")
def owner() -> Iterator[PaillierOwner]:
    owner = PaillierOwner(100, KEY_BITS)
    yield owner
    owner.close()


@pytest.fixture(scope="module")
def sums(owner: PaillierOwner) -> PaillierSums:
    return PaillierSums.of(owner.key(), 100, KEY_BITS)


@pytest.fixture(scope="module")
def rows(owner: PaillierOwner) -> np.ndarray:
    return owner.encrypt(np.arange(50), np.arange(50))


WITHOUT_INVERSE = ["0", "n", "n (n - 1)", "p", "a multiple of p", "a power of q"]


def without_inverse(owner: PaillierOwner, kind: str) -> np.ndarray:
    private = owner._private
    p, q = private.p, private.q
    numbers = {
        "0": 0,
        "n": p * q,
        "n (n - 1)": p * q * (p * q - 1),
        "p": p,
        "a multiple of p": 1234567 * p,
        "a power of q": q**3 % (p * q) ** 2,
    }
    assert gmpy2.gcd(numbers[kind], p * q) != 1
    return np.frombuffer(numbers[kind].to_bytes(private.public.width, "big"), np.uint8)


@pytest.mark.parametrize("place", [0, 31, 49])
@pytest.mark.parametrize("kind", WITHOUT_INVERSE)
def test_gradient_that_no_mask_would_hide_is_refused_naming_its_row(
    owner: PaillierOwner, sums: PaillierSums, rows: np.ndarray, kind: str, place: int
) -> None:
    sums.enter_rows(rows)
    changed = rows.copy()
    changed[place] = without_inverse(owner, kind)
    with pytest.raises(ProtocolViolated, match=f"row {place} of 50 has no inverse"):
        sums.enter_rows(changed)


def test_gradients_whose_factors_together_make_up_the_key_are_refused(
    owner: PaillierOwner, sums: PaillierSums, rows: np.ndarray
) -> None:
    changed = rows.copy()
    changed[7], changed[20] = without_inverse(owner, "p"), without_inverse(owner, "a power of q")
    with pytest.raises(ProtocolViolated, match="row 7 of 50"):
        sums.enter_rows(changed)


@pytest.mark.parametrize("kind", WITHOUT_INVERSE)
def test_sum_without_inverse_is_refused_naming_its_row(
    owner: PaillierOwner, sums: PaillierSums, rows: np.ndarray, kind: str
) -> None:
    sealed = sums.seal(sums.enter(rows), 100)
    first, second = owner.decrypt(sealed, 50, 100)
    assert (first.tolist(), second.tolist()) == (list(range(50)), list(range(50)))
    sealed[1] = without_inverse(owner, kind)
    with pytest.raises(ProtocolViolated, match=f"row 1 of {len(sealed)} has no inverse"):
        owner.decrypt(sealed, 50, 100)


def test_no_ciphertexts_are_taken(sums: PaillierSums, rows: np.ndarray) -> None:
    assert len(sums.enter_rows(rows[:0])) == 0


def test_plain_pairs_are_added_to_sums(owner: PaillierOwner, sums: PaillierSums, rows: np.ndarray) -> None:
    first, second = np.arange(-25, 25), np.arange(50)[::-1]
    found = owner.decrypt(sums.seal(sums.add_plain(sums.enter(rows), first, second), 100), 50, 100)
    np.testing.assert_array_equal(found[0], np.arange(50) + first)
    np.testing.assert_array_equal(found[1], np.arange(50) + second)
