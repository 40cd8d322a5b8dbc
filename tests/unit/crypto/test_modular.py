"""Every kernel computes what Python's integers say, on all operations of the interface."""

from __future__ import annotations

import functools
import math
import random
from concurrent.futures import ThreadPoolExecutor

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto.kernels import VARIABLE, available_kernels, get_kernel, using
from fedtasks.crypto.modular import CrtRing, Ring, SquareRing
from fedtasks.crypto.threads import in_slices, n_threads
from fedtasks.errors import ConfigError, ProtocolViolated

KERNELS = available_kernels()
# Multiples of the limbs of every kernel and lengths that are none, so that the number of limbs is odd and even.
WIDTHS = (1024, 1025, 1536, 2048, 2049, 3072, 4093)
ROOT_WIDTHS = (1024, 1033)
MILLION = 1_000_000


LIMB = 1 << 52


@functools.cache
def modulus(bits: int, lowest: int | None = None) -> int:
    """Return an odd number of so many bits, with a known factor; its lowest limb of 52 bits may be given."""
    found = random.Random(bits).getrandbits(bits - 4) * 16 | 1 << (bits - 1) | 15
    return found if lowest is None else found // LIMB * LIMB | lowest


@functools.cache
def primes(bits: int) -> tuple[int, int]:
    source = random.Random(bits)
    p, q = (int(gmpy2.next_prime(source.getrandbits(half) | 3 << (half - 2))) for half in (bits // 2, -(-bits // 2)))
    return p, q


def rows(numbers: list[int], width: int) -> np.ndarray:
    return np.frombuffer(b"".join(each.to_bytes(width) for each in numbers), dtype=np.uint8).reshape(-1, width)


def enter(ring: Ring, numbers: list[int]) -> np.ndarray:
    return ring.enter(rows(numbers, ring.width))


def leave(ring: Ring, residues: np.ndarray) -> list[int]:
    return [int.from_bytes(row.tobytes()) for row in ring.leave(residues)]


def operands(n: int, count: int, seed: int = 0) -> list[int]:
    source = random.Random(seed)
    edges = [0, 1, 2, n - 1, n - 2, n >> 1, (1 << (n.bit_length() - 1)) - 1]
    return (edges + [source.randrange(n) for _ in range(count)])[:count]


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


MODULI = [
    *((Ring, bits, None) for bits in WIDTHS),
    *((SquareRing, bits, None) for bits in ROOT_WIDTHS),
    *((kind, 1024, lowest) for kind in (Ring, SquareRing) for lowest in (1, LIMB - 1)),
]


@pytest.fixture(params=MODULI, ids=lambda each: f"{each[0].__name__} {each[1]} {each[2] or ''}".strip())
def ring(request: pytest.FixtureRequest, kernel: str) -> Ring:
    kind, bits, lowest = request.param
    found = kind(modulus(bits, lowest), kernel)
    assert isinstance(found, Ring)
    return found


def test_rows_come_back_as_they_went(ring: Ring) -> None:
    numbers = operands(ring.n, 30)

    assert leave(ring, enter(ring, numbers)) == numbers


def test_multiply_equals_python(ring: Ring) -> None:
    a, b = operands(ring.n, 41), operands(ring.n, 41)[::-1]

    assert leave(ring, ring.multiply(enter(ring, a), enter(ring, b))) == [
        x * y % ring.n for x, y in zip(a, b, strict=True)
    ]
    assert leave(ring, ring.multiply(enter(ring, a), ring.number(b[5]))) == [x * b[5] % ring.n for x in a]


def test_add_equals_python_however_often(ring: Ring) -> None:
    a, b = operands(ring.n, 41), operands(ring.n, 41)[::-1]
    total = enter(ring, a)
    for _ in range(5):
        total = ring.add(total, enter(ring, b))
        total = ring.add(total, total)

    assert leave(ring, total) == [(32 * x + 62 * y) % ring.n for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("bits", [1024, 1036, 4096, 8192, 8316])
@pytest.mark.parametrize("low", [-1, 1, 3 << 51 | 1])
def test_extreme_moduli_and_operands_overflow_nothing(kernel: str, bits: int, low: int) -> None:
    # Limbs of all ones make every sum of products as large as it can be, limbs of zeros every carry rare.
    ring = Ring((1 << bits) - 1 if low == -1 else (1 << (bits - 1)) + low, kernel)
    n = ring.n
    numbers = [0, 1, n - 1, n - 2, n // 3, (1 << (bits - 1)) - 1, ((1 << bits) - 1) // 0xF & n // 2, n // 2]
    residues = enter(ring, numbers)

    assert leave(ring, ring.multiply(residues, residues[::-1])) == [
        x * y % n for x, y in zip(numbers, numbers[::-1], strict=True)
    ]
    assert leave(ring, ring.power(residues, 13)) == [pow(x, 13, n) for x in numbers]
    assert leave(ring, ring.add(residues, residues)) == [2 * x % n for x in numbers]


@pytest.mark.parametrize("bits", [1024, 1028, 4096])
@pytest.mark.parametrize("low", [-1, 1, 3 << 51 | 1])
def test_extreme_roots_and_operands_overflow_nothing(kernel: str, bits: int, low: int) -> None:
    ring = SquareRing((1 << bits) - 1 if low == -1 else (1 << (bits - 1)) + low, kernel)
    n, root = ring.n, ring.root
    numbers = [0, 1, root - 1, root, root + 1, n - root - 1, n - root, n - root + 1, n - 1, n // root * 2, n // 3]
    residues = enter(ring, numbers)

    assert leave(ring, residues) == numbers
    assert leave(ring, ring.multiply(residues, residues[::-1])) == [
        x * y % n for x, y in zip(numbers, numbers[::-1], strict=True)
    ]
    assert leave(ring, ring.power(residues, 13)) == [pow(x, 13, n) for x in numbers]
    assert leave(ring, ring.secret_power(residues, 77, 8)) == [pow(x, 77, n) for x in numbers]
    total = ring.add(residues, residues[::-1])
    assert leave(ring, ring.add(total, total)) == [2 * (x + y) % n for x, y in zip(numbers, numbers[::-1], strict=True)]


@pytest.mark.parametrize("bits", [1024, 1033])
def test_one_plus_a_multiple_of_the_root_equals_python(kernel: str, bits: int) -> None:
    ring = SquareRing(modulus(bits), kernel)
    source = random.Random(bits)
    short = [0, 1, -1, *(source.randrange(-(1 << 80), 1 << 80) for _ in range(14))]
    for width, numbers in ((11, short), (-(-bits // 8), [*short, ring.root - 1, 1 - ring.root])):
        negative = np.array([number < 0 for number in numbers])
        residues = ring.one_plus(rows([abs(number) for number in numbers], width), negative)

        assert leave(ring, residues) == [(1 + number * ring.root) % ring.n for number in numbers]
        assert leave(ring, ring.multiply(residues, residues)) == [
            (1 + 2 * number * ring.root) % ring.n for number in numbers
        ]


@pytest.mark.parametrize("bits", [1, 64, 225])
def test_fixed_base_modulo_a_square_equals_python(kernel: str, bits: int) -> None:
    p, q = primes(2048)
    source = random.Random(bits)
    exponents = [0, 1, (1 << bits) - 1, *(source.getrandbits(bits) for _ in range(18))]
    for root in (p, p * q):
        ring = SquareRing(root, kernel)
        base = ring.n // 3

        powers = ring.fixed_base(base, bits).power(rows(exponents, -(-bits // 8)))

        assert leave(ring, powers) == [pow(base, each, ring.n) for each in exponents]


@pytest.mark.parametrize("source_bits", [1024, 2048])
def test_convert_between_squares_equals_python(kernel: str, source_bits: int) -> None:
    p, q = primes(2048)
    whole, part = SquareRing(p * q, kernel), SquareRing(p, kernel)
    source, target = (part, whole) if source_bits == 1024 else (whole, part)
    factor = q * q * 12345
    numbers = operands(source.n, 21)

    found = leave(target, target.convert(enter(source, numbers), source, factor))

    assert found == [number * factor % target.n for number in numbers]


def test_public_power_equals_python(ring: Ring) -> None:
    numbers = operands(ring.n, 19)
    residues = enter(ring, numbers)

    for exponent in (0, 1, 2, 3, 65537, 0b1011001110001):
        assert leave(ring, ring.power(residues, exponent)) == [pow(x, exponent, ring.n) for x in numbers]


def test_secret_power_equals_python_whatever_its_length(ring: Ring) -> None:
    numbers = operands(ring.n, 11)
    residues = enter(ring, numbers)

    for exponent in (0, 1, 31, 32, (1 << 160) - 1, 1 << 159, 3**100):
        powers = [pow(x, exponent, ring.n) for x in numbers]
        assert leave(ring, ring.secret_power(residues, exponent, 160)) == powers


def test_secret_power_longer_than_announced_is_refused(kernel: str) -> None:
    ring = Ring(modulus(1024), kernel)

    with pytest.raises(ValueError, match="more than 7 bits"):
        ring.secret_power(ring.ones, 128, 7)


@pytest.mark.parametrize("n_rows", [0, 1, 2, 3, 7, 8, 9, 16, 33])
def test_invert_equals_python(kernel: str, n_rows: int) -> None:
    ring = Ring(math.prod(primes(1100)), kernel)
    numbers = operands(ring.n, n_rows + 1)[1:]

    assert leave(ring, ring.invert(enter(ring, numbers))) == [pow(x, -1, ring.n) for x in numbers]


@pytest.mark.parametrize("place", [0, 4, 8])
def test_invert_of_a_number_with_a_common_factor_is_refused(kernel: str, place: int) -> None:
    p, q = primes(1100)
    ring = Ring(p * q, kernel)
    numbers = operands(ring.n, 10)[1:]
    numbers[place] = 12 * p

    with pytest.raises(ZeroDivisionError):
        ring.invert(enter(ring, numbers))


@pytest.mark.parametrize("n_rows", [0, 1, 7, 9, 700])
def test_segmented_product_equals_python(kernel: str, n_rows: int) -> None:
    ring = Ring(modulus(1536), kernel)
    numbers = operands(ring.n, n_rows + 1, seed=1)[1:]
    source = random.Random(2)
    # One segment holds most rows, some none, and some rows belong to none.
    segments = np.array([source.choice([-1, 0, 2, 2, 2, 2, 2, 2, 3, 40]) for _ in numbers], dtype=np.int32)
    expected = [1] * 50
    for number, segment in zip(numbers, segments.tolist(), strict=True):
        if segment >= 0:
            expected[segment] = expected[segment] * number % ring.n

    assert leave(ring, ring.segmented_product(enter(ring, numbers), segments, 50)) == expected


@pytest.mark.parametrize("segments", [[0, 5], [-2, 0], [0]])
def test_segmented_product_with_a_wrong_segment_is_refused(kernel: str, segments: list[int]) -> None:
    ring = Ring(modulus(1024), kernel)

    with pytest.raises(ValueError, match="segment"):
        ring.segmented_product(enter(ring, [1, 2]), np.array(segments), 5)


@pytest.mark.parametrize("n_rows", [1, 9, 700])
def test_products_may_name_a_row_more_than_once(kernel: str, n_rows: int) -> None:
    ring = Ring(modulus(1024), kernel)
    numbers = operands(ring.n, n_rows + 1, seed=3)[1:]
    source = random.Random(4)
    segments = [[source.randrange(n_rows) for _ in range(length)] for length in (0, 1, 5, 600, 0, 255, 257)]
    order = np.array([row for segment in segments for row in segment])
    starts = np.cumsum([0, *map(len, segments)])
    expected = [math.prod(numbers[row] for row in segment) % ring.n for segment in segments]

    assert leave(ring, ring.products(enter(ring, numbers), order, starts)) == expected


@pytest.mark.parametrize("lowest", [None, 1, LIMB - 1])
@pytest.mark.parametrize("n_rows", [1, 9, 700])
def test_products_of_factors_equal_python(kernel: str, n_rows: int, lowest: int | None) -> None:
    ring = SquareRing(modulus(1024, lowest), kernel)
    numbers = [each for each in operands(ring.n, 2 * n_rows + 9, seed=3) if math.gcd(each, ring.n) == 1][:n_rows]
    n_rows = len(numbers)
    source = random.Random(4)
    lengths = [0, 1, 5, 600, 0, 255, 256, 257, *([3] * 20), 513]
    segments = [[source.randrange(n_rows) for _ in range(length)] for length in lengths]
    order = np.array([row for segment in segments for row in segment])
    starts = np.cumsum([0, *map(len, segments)])
    expected = [functools.reduce(lambda a, b: a * b % ring.n, map(numbers.__getitem__, each), 1) for each in segments]

    assert leave(ring, ring.factor_products(ring.enter_factors(rows(numbers, ring.width)), order, starts)) == expected


@pytest.mark.parametrize("wrong", [0, 15])
def test_factor_without_inverse_is_refused_naming_its_row(kernel: str, wrong: int) -> None:
    ring = SquareRing(15 * (modulus(1024) // 15 | 1), kernel)

    with pytest.raises(ProtocolViolated, match="row 2 of 4 has no inverse"):
        ring.enter_factors(rows([1, 2, wrong, 4], ring.width))


@pytest.mark.parametrize(
    ("order", "starts"), [([0, 2], [0, 2]), ([-1], [0, 1]), ([0, 1], [0, 3]), ([0, 1], [1, 0]), ([0, 1], [-1, 2])]
)
def test_products_of_rows_that_are_not_there_are_refused(kernel: str, order: list[int], starts: list[int]) -> None:
    ring = Ring(modulus(1024), kernel)

    with pytest.raises(ValueError, match=r"row|segments"):
        ring.products(enter(ring, [1, 2]), np.array(order), np.array(starts))


@pytest.mark.parametrize("bits", [1, 5, 8, 63, 333])
def test_fixed_base_equals_python(kernel: str, bits: int) -> None:
    ring = Ring(modulus(1536), kernel)
    base, source = ring.n // 3, random.Random(bits)
    exponents = [0, 1, (1 << bits) - 1, *(source.getrandbits(bits) for _ in range(14))]

    powers = ring.fixed_base(base, bits).power(rows(exponents, -(-bits // 8)))

    assert leave(ring, powers) == [pow(base, each, ring.n) for each in exponents]


def test_fixed_base_with_too_long_an_exponent_is_refused(kernel: str) -> None:
    table = Ring(modulus(1024), kernel).fixed_base(3, 12)

    with pytest.raises(ValueError, match="more than 12 bits"):
        table.power(rows([1 << 12], 2))
    with pytest.raises(ValueError, match="2 bytes"):
        table.power(rows([1], 1))


@pytest.mark.parametrize("bits", [1024, 1031, 2048, 3072])
def test_crt_power_equals_python(kernel: str, bits: int) -> None:
    p, q = primes(bits)
    ring = CrtRing(p, q, kernel=kernel)
    numbers = [*operands(ring.n, 9), p, q * 5]
    exponent = random.Random(bits).getrandbits(bits)

    powers = ring.crt_power(enter(ring, numbers), (exponent % (p - 1), exponent % (q - 1)))

    assert leave(ring, powers) == [pow(x, exponent, ring.n) for x in numbers]


def test_crt_power_of_factors_of_unequal_length_equals_python(kernel: str) -> None:
    p, q = primes(1100)[0], primes(2900)[1]
    ring = CrtRing(p, q, kernel=kernel)
    numbers = operands(ring.n, 9)

    powers = ring.crt_power(enter(ring, numbers), (65537, 65537))

    assert leave(ring, powers) == [pow(x, 65537, ring.n) for x in numbers]


def test_random_residues_are_below_the_modulus_and_differ(ring: Ring) -> None:
    numbers = leave(ring, ring.random(40))

    assert len(set(numbers)) == 40
    assert max(numbers) < ring.n
    assert max(numbers).bit_length() > ring.n.bit_length() - 12


def test_enter_of_a_number_above_the_modulus_names_its_row(ring: Ring) -> None:
    for number in (ring.n, (1 << (8 * ring.width)) - 1):
        with pytest.raises(ProtocolViolated, match="row 2 of 3"):
            enter(ring, [1, ring.n - 1, number])


@pytest.mark.parametrize("shape", [(3, 127), (3, 129), (128,)])
def test_enter_of_another_width_is_refused(kernel: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolViolated, match="128 bytes"):
        Ring(modulus(1024), kernel).enter(np.zeros(shape, dtype=np.uint8))


def test_residues_of_another_ring_are_refused_by_every_operation(kernel: str) -> None:
    ring, other = Ring(modulus(1024), kernel), Ring(modulus(2048), kernel)
    own, foreign = ring.random(3), other.random(3)

    for residues in (foreign, own.astype(np.int64), own[0]):
        for operation in (
            lambda found: ring.leave(found),
            lambda found: ring.multiply(found, own),
            lambda found: ring.multiply(own, found),
            lambda found: ring.add(own, found),
            lambda found: ring.power(found, 3),
            lambda found: ring.secret_power(found, 3, 2),
            lambda found: ring.invert(found),
            lambda found: ring.product(found),
            lambda found: other.convert(found, ring),
        ):
            with pytest.raises(ValueError, match="not residues of this ring"):
                operation(residues)


@pytest.mark.parametrize("n_rows", [2, 4])
def test_operands_of_unequal_length_are_refused(kernel: str, n_rows: int) -> None:
    ring = Ring(modulus(1024), kernel)

    with pytest.raises(ValueError, match=f"{n_rows} rows for 3"):
        ring.multiply(ring.random(3), ring.random(n_rows))
    with pytest.raises(ValueError, match=f"{n_rows} rows for 3"):
        ring.add(ring.random(3), ring.random(n_rows))


def test_rows_picked_out_of_a_batch_need_not_lie_side_by_side(kernel: str) -> None:
    ring = Ring(modulus(1024), kernel)
    numbers = operands(ring.n, 20)
    residues = enter(ring, numbers)

    assert leave(ring, ring.multiply(residues[::-2], residues[::2])) == [
        x * y % ring.n for x, y in zip(numbers[::-2], numbers[::2], strict=True)
    ]


@pytest.mark.parametrize("n", [-3, 0, 1, 2, 1 << 1024])
def test_modulus_that_is_even_or_none_is_refused(kernel: str, n: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        Ring(n, kernel)


def test_batches_of_many_rows_are_computed_in_threads(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    ring = Ring(modulus(1024), kernel)
    numbers = operands(ring.n, 500)

    squares = ring.multiply(enter(ring, numbers), enter(ring, numbers))

    assert leave(ring, squares) == [x * x % ring.n for x in numbers]


def test_slices_cover_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    for n_rows in (0, 1, 63, 64, 127, 128, 129, 1000):
        seen = np.zeros(n_rows, dtype=int)

        def count(part: slice, seen: np.ndarray = seen) -> None:
            seen[part] += 1

        in_slices(n_rows, count)
        assert (seen == 1).all()


def test_an_error_in_a_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def fail(part: slice) -> None:
        if part.start:
            raise ValueError("of the second slice")

    with pytest.raises(ValueError, match="second slice"):
        in_slices(1000, fail)


def test_threads_are_as_many_as_cores_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert n_threads() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert n_threads() == 7


def test_kernel_is_the_fastest_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert get_kernel().name == KERNELS[0]
    monkeypatch.setenv(VARIABLE, "portable")
    assert get_kernel().name == "portable"
    assert KERNELS[-1] == "portable"


def test_kernel_that_does_not_exist_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "abacus")

    with pytest.raises(ConfigError, match="'abacus' does not run here"):
        get_kernel()


def test_kernel_in_use_is_used_by_this_thread_alone() -> None:
    with using("portable"), ThreadPoolExecutor(1) as pool:
        assert Ring(modulus(1024)).kernel == "portable"
        assert pool.submit(lambda: Ring(modulus(1024)).kernel).result() == KERNELS[0]
    assert Ring(modulus(1024)).kernel == KERNELS[0]
    with pytest.raises(ConfigError), using("abacus"):
        pass


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bits=st.integers(1024, 4096))
def test_kernels_agree_with_python_on_anything(data: st.DataObject, bits: int) -> None:
    n = data.draw(st.integers(1 << (bits - 1), (1 << bits) - 1)) | 1
    numbers = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    exponent = data.draw(st.integers(0, 1 << 40))
    for name in KERNELS:
        ring = Ring(n, name)
        residues = enter(ring, numbers)
        powers = [pow(x, exponent, n) for x in numbers]
        assert leave(ring, ring.power(residues, exponent)) == powers
        assert leave(ring, ring.secret_power(residues, exponent, 41)) == powers
        assert leave(ring, ring.multiply(residues, residues[::-1].copy())) == [
            x * y % n for x, y in zip(numbers, numbers[::-1], strict=True)
        ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_agree_with_python_on_a_million_random_cases() -> None:
    source = random.Random(7)
    done = 0
    while done < MILLION:
        bits = source.randrange(1024, 4097)
        n = source.getrandbits(bits) | 1 << (bits - 1) | 1
        # Short exponents for most rows; a few of full length, which take Python a second.
        count, length = (4, bits) if source.random() < 0.02 else (2048, source.randrange(1, 7))
        exponent = source.getrandbits(length)
        numbers = [source.randrange(n) for _ in range(count)]
        raw, expected = rows(numbers, -(-bits // 8)), [pow(x, exponent, n) for x in numbers]
        answer = rows(expected, -(-bits // 8))
        for name in KERNELS:
            ring = Ring(n, name)
            residues = ring.enter(raw)
            assert np.array_equal(ring.leave(ring.power(residues, exponent)), answer), (name, n, exponent)
            assert np.array_equal(ring.leave(ring.secret_power(residues, exponent, length)), answer), (name, n)
        done += count
