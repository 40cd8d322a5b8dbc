"""Sums of pairs through encryption, packing and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto.packing import Slots
from fedtasks.crypto.paillier import generate_key
from fedtasks.errors import ProtocolViolated

KEYS = {bits: generate_key(bits) for bits in (2048, 3072)}


@settings(max_examples=25, deadline=None)
@given(data=st.data(), bits=st.sampled_from(sorted(KEYS)), n_rows=st.integers(1, 60), n_sums=st.integers(1, 80))
def test_sums_of_pairs_come_back(data: st.DataObject, bits: int, n_rows: int, n_sums: int) -> None:
    key = KEYS[bits]
    public = key.public
    slots = Slots.of(n_rows, bits)
    most = 1 << slots.precision
    extreme = st.one_of(st.sampled_from([-most, -1, 0, 1, most]), st.integers(-most, most))
    first = np.array(data.draw(st.lists(extreme, min_size=n_rows, max_size=n_rows)))
    second = np.array(data.draw(st.lists(extreme.map(abs), min_size=n_rows, max_size=n_rows)))
    segments = np.array(data.draw(st.lists(st.integers(0, n_sums - 1), min_size=n_rows, max_size=n_rows)))
    sums = public.ring.segmented_product(slots.encode(public, first, second), segments, n_sums)
    packed = slots.pack(public, sums)
    assert len(packed) == -(-n_sums // slots.per_plaintext)
    found = slots.unpack(key, packed, n_sums)
    for values, expected in zip(found, (first, second), strict=True):
        exact = np.zeros(n_sums, dtype=np.int64)
        np.add.at(exact, segments, expected)
        np.testing.assert_array_equal(values, exact)


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("n_rows", [1, 2, 255, 256, 60_000, 131_072, 2**20, 10**7, 2**29])
def test_no_sum_of_so_many_rows_leaves_its_slot(n_rows: int, bits: int) -> None:
    slots = Slots.of(n_rows, bits)
    largest = n_rows << slots.precision
    assert largest <= 1 << (8 * slots.part_bytes - 1)
    assert largest < 2**53
    assert slots.precision >= 20
    assert slots.bits * slots.per_plaintext < bits


def test_sums_are_whole_at_their_bounds() -> None:
    key = KEYS[2048]
    slots = Slots(part_bytes=5, precision=39, per_plaintext=25)
    first = np.array([-(2**39), 2**39 - 1, -(2**39)] * 9)
    second = np.array([2**40 - 1, 2**40 - 1, 0] * 9)
    found = slots.unpack(key, slots.pack(key.public, slots.encode(key.public, first, second)), 27)
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[1], second)


def test_more_rows_than_sums_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        Slots.of(2**40, 2048)


def test_a_plaintext_that_is_no_sum_is_refused() -> None:
    key = KEYS[2048]
    slots = Slots.of(10, 2048)
    large = np.full((1, 255), 255, np.uint8)
    with pytest.raises(ProtocolViolated):
        slots.unpack(key, key.public.plain(large), 1)
