from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto import ristretto
from fedtasks.crypto.kernels import available_kernels, using
from fedtasks.crypto.ristretto import ORDER
from fedtasks.errors import ProtocolViolated

# Where no native kernel of the group runs, libsodium computes, called by row from Python.
KERNELS = [name for name in available_kernels() if name != "openssl"]
NATIVE = [name for name in KERNELS if name != "portable"]
needs_native = pytest.mark.skipif(not NATIVE, reason="no native kernel of the group is built, or runs here")


def rows(text: str, width: int = 32) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(-1, width)


# RFC 9496 appendix A.1.
MULTIPLES = rows(
    """
    0000000000000000000000000000000000000000000000000000000000000000
    e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76
    6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919
    94741f5d5d52755ece4f23f044ee27d5d1ea1e2bd196b462166b16152a9d0259
    da80862773358b466ffadfe0b3293ab3d9fd53c5ea6c955358f568322daf6a57
    e882b131016b52c1d3337080187cf768423efccbb517bb495ab812c4160ff44e
    f64746d3c92b13050ed8d80236a7f0007c3b3f962f5ba793d19a601ebb1df403
    44f53520926ec81fbd5a387845beb7df85a96a24ece18738bdcfa6a7822a176d
    903293d8f2287ebe10e2374dc1a53e0bc887e592699f02d077d5263cdd55601c
    02622ace8f7303a31cafc63f8fc48fdc16e1c8c8d234b2f0d6685282a9076031
    20706fd788b2720a1ed2a5dad4952b01f413bcf0e7564de8cdc816689e2db95f
    bce83f8ba5dd2fa572864c24ba1810f9522bc6004afe95877ac73241cafdab42
    e4549ee16b9aa03099ca208c67adafcafa4c3f3e4e5303de6026e3ca8ff84460
    aa52e000df2e16f55fb1032fc33bc42742dad6bd5a8fc0be0167436c5948501f
    46376b80f409b29dc2b5f6f0c52591990896e5716f41477cd30085ab7f10301e
    e0c418f7c8d9c4cdd7395b93ea124f3ad99021bb681dfc3302a9d99a2e53e64e
    """
)

# RFC 9496 appendix A.2: non-canonical, negative, no square, x * y negative, y zero.
INVALID = rows(
    """
    00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
    ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
    f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
    edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
    0100000000000000000000000000000000000000000000000000000000000000
    01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
    ed57ffd8c914fb201471d1c3d245ce3c746fcbe63a3679d51b6a516ebebe0e20
    c34c4e1826e5d403b78e246e88aa051c36ccf0aafebffe137d148a2bf9104562
    c940e5a4404157cfb1628b108db051a8d439e1a421394ec4ebccb9ec92a8ac78
    47cfc5497c53dc8e61c91d17fd626ffb1c49e2bca94eed052281b510b1117a24
    f1c6165d33367351b0da8f6e4511010c68174a03b6581212c71c0e1d026c3c72
    87260f7a2f12495118360f02c26a470f450dadf34a413d21042b43b9d93e1309
    26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371
    4eac077a713c57b4f4397629a4145982c661f48044dd3f96427d40b147d9742f
    de6a7b00deadc788eb6b6c8d20c0ae96c2f2019078fa604fee5b87d6e989ad7b
    bcab477be20861e01e4a0e295284146a510150d9817763caf1a6f4b422d67042
    2a292df7e32cababbd9de088d1d1abec9fc0440f637ed2fba145094dc14bea08
    f4a9e534fc0d216c44b218fa0c42d99635a0127ee2e53c712f70609649fdff22
    8268436f8c4126196cf64b3c7ddbda90746a378625f9813dd9b8457077256731
    2810e5cbc2cc4d4eece54f61c6f69758e289aa7ab440b3cbeaa21995c2f4232b
    3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e
    a45fdc55c76448c049a1ab33f17023edfb2be3581e9c7aade8a6125215e04220
    d483fe813c6ba647ebbfd3ec41adca1c6130c2beeee9d9bf065c8d151c5f396e
    8a2e1d30050198c65a54483123960ccc38aef6848e1ec8f5f780e8523769ba32
    32888462f8b486c68ad7dd9610be5192bbeaf3b443951ac1a8118419d9fa097b
    227142501b9d4355ccba290404bde41575b037693cef1f438c47f8fbf35d1165
    5c37cc491da847cfeb9281d407efc41e15144c876e0170b499a96a22ed31e01e
    445425117cb8c90edcbc7c1cc0e74f747f2c1efa5630a967c64f287792a48a4b
    ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
    """
)

# RFC 9496 appendix A.3: both halves of the uniform bytes, and the element.
MAPPED = rows(
    """
    5d1be09e3d0c82fc538112490e35701979d99e06ca3e2b5b54bffe8b4dc772c1
    4d98b696a1bbfb5ca32c436cc61c16563790306c79eaca7705668b47dffe5bb6
    3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46

    f116b34b8f17ceb56e8732a60d913dd10cce47a6d53bee9204be8b44f6678b27
    0102a56902e2488c46120e9276cfe54638286b9e4b3cdb470b542d46c2068d38
    f26e5b6f7d362d2d2a94c5d0e7602cb4773c95a2e5c31a64f133189fa76ed61b

    8422e1bbdaab52938b81fd602effb6f89110e1e57208ad12d9ad767e2e25510c
    27140775f9337088b982d83d7fcf0b2fa1edffe51952cbe7365e95c86eaf325c
    006ccd2a9e6867e6a2c5cea83d3302cc9de128dd2a9a57dd8ee7b9d7ffe02826

    ac22415129b61427bf464e17baee8db65940c233b98afce8d17c57beeb7876c2
    150d15af1cb1fb824bbd14955f2b57d08d388aab431a391cfc33d5bafb5dbbaf
    f8f0c87cf237953c5890aec3998169005dae3eca1fbb04548c635953c817f92a

    165d697a1ef3d5cf3c38565beefcf88c0f282b8e7dbd28544c483432f1cec767
    5debea8ebb4e5fe7d6f6e5db15f15587ac4d4d4a1de7191e0c1ca6664abcc413
    ae81e7dedf20a497e10c304a765c1767a42d6e06029758d2d7e8ef7cc4c41179

    a836e6c9a9ca9f1e8d486273ad56a78c70cf18f0ce10abb1c7172ddd605d7fd2
    979854f47ae1ccf204a33102095b4200e5befc0465accc263175485f0e17ea5c
    e2705652ff9f5e44d3e841bf1c251cf7dddb77d140870d1ab2ed64f1a9ce8628

    edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
    1200000000000000000000000000000000000000000000000000000000000000
    304282791023b73128d277bdcb5c7746ef2eac08dde9f2983379cb8e5ef0517f

    edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
    ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
    304282791023b73128d277bdcb5c7746ef2eac08dde9f2983379cb8e5ef0517f

    0000000000000000000000000000000000000000000000000000000000000080
    ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
    304282791023b73128d277bdcb5c7746ef2eac08dde9f2983379cb8e5ef0517f

    0000000000000000000000000000000000000000000000000000000000000000
    1200000000000000000000000000000000000000000000000000000000000080
    304282791023b73128d277bdcb5c7746ef2eac08dde9f2983379cb8e5ef0517f
    """,
    width=96,
)

EDGES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 2**251, 2**252, 2**252 + 1, ORDER - 1, ORDER - 2, ORDER // 2, ORDER // 2 + 1]
# All digits of a window alike, and the carries between the words of a scalar.
EDGES += [int(digit * 63, 16) % ORDER for digit in "1789af"] + [2**64 - 1, 2**64, 2**128 - 1, 2**192 - 1, 2**251 - 1]

numbers = st.one_of(st.integers(0, ORDER - 1), st.sampled_from(EDGES), st.integers(0, 20))


@pytest.fixture(params=KERNELS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


def random_rows(n: int, width: int = 32) -> np.ndarray:
    return np.frombuffer(secrets.token_bytes(n * width), dtype=np.uint8).reshape(n, width)


def elements(n: int) -> np.ndarray:
    with using("portable"):
        return ristretto.map_to_group(random_rows(n, 64))


def slow_sum(points: np.ndarray, weights: list[int]) -> list[list[int]]:
    with using("portable"):
        counted = [row for row, weight in enumerate(weights) if weight]
        parts = ristretto.multiply(points[counted], ristretto.scalars([weights[row] for row in counted]))
        return ristretto.total(parts).tolist()


def test_multiples_of_the_generator_match_rfc9496(backend: str) -> None:
    by, generators = ristretto.scalars(list(range(1, 16))), np.repeat(MULTIPLES[1:2], 15, axis=0)
    assert ristretto.multiply_base(by).tolist() == MULTIPLES[1:].tolist()
    assert ristretto.multiply(generators, by).tolist() == MULTIPLES[1:].tolist()
    assert ristretto.multiply(MULTIPLES[1:], ristretto.scalars([1])).tolist() == MULTIPLES[1:].tolist()
    whole = ristretto.multiply_base(ristretto.scalars([sum(range(16))]))
    assert ristretto.weighted_sum(generators, by).tolist() == whole.tolist()
    assert ristretto.total(MULTIPLES).tolist() == whole.tolist()


@pytest.mark.parametrize("encoding", [*INVALID, MULTIPLES[0]], ids=lambda row: row.tobytes().hex()[:12])
def test_invalid_encoding_of_rfc9496_is_refused_in_every_lane(backend: str, encoding: np.ndarray) -> None:
    one = ristretto.scalars([1])
    for place in (0, 3, 7, 8, 15, 16):
        given_rows = np.repeat(MULTIPLES[1:2], 17, axis=0)
        given_rows[place] = encoding
        with pytest.raises(ProtocolViolated, match=f"row {place} of 17 "):
            ristretto.multiply(given_rows, one)
        for weights in (np.repeat(one, 17, axis=0), np.zeros((17, 32), dtype=np.uint8)):
            with pytest.raises(ProtocolViolated, match=f"row {place} of 17 "):
                ristretto.weighted_sum(given_rows, weights)


def test_uniform_bytes_of_rfc9496_are_mapped_to_its_elements(backend: str) -> None:
    uniform, expected = MAPPED[:, :64], MAPPED[:, 64:]
    assert ristretto.map_to_group(uniform).tolist() == expected.tolist()
    assert ristretto.map_and_multiply(uniform, ristretto.scalars([1])).tolist() == expected.tolist()


@pytest.mark.parametrize("position", ["first", "later"])
def test_first_bad_row_is_named(backend: str, position: str) -> None:
    found = elements(600)
    bad = [100, 555] if position == "first" else [401, 402, 599]
    found[bad] = 255
    with pytest.raises(ProtocolViolated, match=f"row {bad[0]} of 600 "):
        ristretto.multiply(found, ristretto.scalars([5]))
    with pytest.raises(ProtocolViolated, match=f"row {bad[0]} of 600 "):
        ristretto.weighted_sum(found, ristretto.random_scalars(600))


def test_zero_makes_no_product(backend: str) -> None:
    by = ristretto.scalars([4, 0, 5])
    with pytest.raises(ProtocolViolated, match="row 1 of 3"):
        ristretto.multiply(elements(3), by)
    with pytest.raises(ProtocolViolated, match="row 1 of 3"):
        ristretto.map_and_multiply(random_rows(3, 64), by)
    with pytest.raises(ValueError, match="a scalar is zero"):
        ristretto.multiply_base(by)
    with pytest.raises(ZeroDivisionError, match="scalar 1 of 3 is zero"):
        ristretto.inverted(by)


def test_weights_and_scalars_must_be_as_many_as_elements(backend: str) -> None:
    with pytest.raises(ValueError, match="2 weights for 3 elements"):
        ristretto.weighted_sum(elements(3), ristretto.random_scalars(2))
    for call in (ristretto.multiply, ristretto.map_and_multiply):
        with pytest.raises(ValueError, match="2 scalars for 3 elements"):
            call(random_rows(3, 64 if call is ristretto.map_and_multiply else 32), ristretto.random_scalars(2))


def test_rows_of_another_width_are_refused(backend: str) -> None:
    half, one = np.zeros((2, 16), np.uint8), ristretto.scalars([1])
    for call in (
        lambda: ristretto.weighted_sum(half, half),
        lambda: ristretto.multiply(one, half[:1]),
        lambda: ristretto.multiply_base(half),
        lambda: ristretto.inverted(half),
        lambda: ristretto.map_to_group(one),
        lambda: ristretto.map_and_multiply(one, one),
        lambda: ristretto.reduced_scalars(one),
    ):
        with pytest.raises(ProtocolViolated, match=r"rows of \d\d bytes"):
            call()


def test_multiples_of_one_element_are_added(backend: str) -> None:
    uniform, by = random_rows(21, 64), ristretto.random_scalars(21)
    points, base = ristretto.map_to_group(uniform), elements(1)
    multiples = ristretto.multiply(np.repeat(base, 21, axis=0), by)
    sums = [ristretto.total(np.stack(pair)).tolist()[0] for pair in zip(points, multiples, strict=True)]
    assert ristretto.add_multiples(points, base, by).tolist() == sums
    back = ristretto.add_multiples(np.array(sums, dtype=np.uint8), base, ristretto.negated(by))
    assert back.tolist() == points.tolist()


def test_hashes_and_multiples_are_added_at_once(backend: str) -> None:
    messages, by = [f"{number}".encode() for number in range(19)], ristretto.random_scalars(19)
    for base in (ristretto.GENERATOR, elements(1)):
        expected = ristretto.add_multiples(ristretto.hash_to_group(messages, b"domain"), base, by)
        assert ristretto.hash_and_add(messages, b"domain", base, by).tolist() == expected.tolist()


def test_edge_multiples_are_added_as_numbers_are(backend: str) -> None:
    three, by = ristretto.multiply_base(ristretto.scalars([3])), [each for each in EDGES if each != ORDER - 3]
    found = ristretto.add_multiples(np.repeat(three, len(by), axis=0), ristretto.GENERATOR, ristretto.scalars(by))
    assert found.tolist() == ristretto.multiply_base(ristretto.scalars([(3 + each) % ORDER for each in by])).tolist()


def test_sum_that_is_the_identity_or_no_element_names_the_row(backend: str) -> None:
    points, by = elements(18), ristretto.random_scalars(18)
    points[17] = ristretto.multiply(ristretto.GENERATOR, ristretto.negated(by[17:]))
    with pytest.raises(ProtocolViolated, match="row 17 of 18 "):
        ristretto.add_multiples(points, ristretto.GENERATOR, by)
    for bad in INVALID[:4]:
        points[5] = bad
        with pytest.raises(ProtocolViolated, match="row 5 of 18 "):
            ristretto.add_multiples(points, ristretto.GENERATOR, by)


def test_base_that_is_no_element_is_refused(backend: str) -> None:
    with pytest.raises(ProtocolViolated):
        ristretto.add_multiples(elements(2), INVALID[:1], ristretto.random_scalars(2))
    for bases, scalars in ((2, 3), (1, 2)):
        with pytest.raises(ValueError, match="for 3 elements"):
            ristretto.add_multiples(elements(3), elements(bases), ristretto.random_scalars(scalars))


@pytest.mark.parametrize("n", range(18))
def test_every_short_batch_is_its_rows(backend: str, n: int) -> None:
    uniform, by = random_rows(n, 64), ristretto.random_scalars(n)
    points = ristretto.map_to_group(uniform)
    products = ristretto.multiply(points, by)
    assert points.shape == products.shape == (n, 32)
    for row in range(n):
        one = slice(row, row + 1)
        assert ristretto.map_to_group(uniform[one]).tolist() == points[one].tolist()
        assert ristretto.multiply(points[one], by[one]).tolist() == products[one].tolist()
    assert ristretto.map_and_multiply(uniform, by).tolist() == products.tolist()
    assert ristretto.weighted_sum(points, by).tolist() == ristretto.total(products).tolist()
    assert ristretto.multiply(points, ristretto.scalars([1])).tolist() == points.tolist()


def test_sum_of_nothing_and_of_opposites_is_the_identity(backend: str) -> None:
    assert ristretto.weighted_sum(elements(0), ristretto.random_scalars(0)).tolist() == [[0] * 32]
    one = elements(1)
    opposites = ristretto.weighted_sum(np.repeat(one, 2, axis=0), ristretto.scalars([5, ORDER - 5]))
    assert opposites.tolist() == [[0] * 32]


@pytest.mark.parametrize("n", [1, 9, 223, 224, 300, 8192, 8193, 8500])
def test_weighted_sum_of_multiples_of_the_generator_is_one_multiple(
    monkeypatch: pytest.MonkeyPatch, backend: str, n: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that all rows are one slice
    n = min(n, 300) if backend == "sodium" else n  # where the length changes nothing
    factors = [secrets.randbelow(ORDER - 1) + 1 for _ in range(n)]
    weights = [secrets.randbelow(ORDER) for _ in range(n)]
    points = ristretto.multiply_base(ristretto.scalars(factors))
    whole = sum(a * b for a, b in zip(factors, weights, strict=True)) % ORDER
    expected = ristretto.multiply_base(ristretto.scalars([whole]))
    assert ristretto.weighted_sum(points, ristretto.scalars(weights)).tolist() == expected.tolist()


@needs_native
@pytest.mark.parametrize("kernel", NATIVE)
def test_bad_row_far_behind_in_a_weighted_sum_is_named(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = np.repeat(elements(1), 8300, axis=0)
    found[8250] = 255
    with using(kernel), pytest.raises(ProtocolViolated, match="row 8250 of 8300 "):
        ristretto.weighted_sum(found, ristretto.random_scalars(8300))


@pytest.mark.parametrize("weight", [1, 5, ORDER - 1])
@pytest.mark.parametrize("n", [40, 300])
def test_weighted_sum_of_one_point_repeated_is_its_multiple(backend: str, n: int, weight: int) -> None:
    point = elements(1)
    found = ristretto.weighted_sum(np.repeat(point, n, axis=0), ristretto.scalars([weight] * n))
    assert found.tolist() == ristretto.multiply(point, ristretto.scalars([n * weight % ORDER])).tolist()


@settings(max_examples=40, deadline=None)
@given(weights=st.lists(numbers, max_size=40), shift=st.integers(0, 3))
def test_weighted_sum_equals_libsodiums(weights: list[int], shift: int) -> None:
    points = elements(len(weights))
    if shift:  # some repeat
        points = points[np.arange(len(weights)) // (shift + 1)]
    for name in KERNELS:
        with using(name):
            found = ristretto.weighted_sum(points, ristretto.scalars(weights)).tolist()
        assert found == slow_sum(points, weights)


@needs_native
@pytest.mark.parametrize("kernel", NATIVE)
def test_thousands_of_random_rows_equal_libsodiums(kernel: str) -> None:
    n = 3001
    uniform, by = (
        random_rows(n, 64),
        random_rows(n),
    )  # of which a scalar may exceed the order, or have its highest bit set
    found: dict[str, list[np.ndarray]] = {}
    for name in (kernel, "portable"):
        with using(name):
            points = ristretto.map_to_group(uniform)
            found[name] = [
                points,
                ristretto.multiply(points, by),
                ristretto.map_and_multiply(uniform, by),
                ristretto.multiply(points, by[:1]),
                ristretto.map_and_multiply(uniform, by[:1]),
                ristretto.multiply_base(by),
                ristretto.add_multiples(points, points[:1], by),
                ristretto.hash_and_add([b"x", b"y"], b"domain", ristretto.GENERATOR, by[:2]),
                ristretto.reduced_scalars(uniform),
                ristretto.inverted(ristretto.reduced_scalars(uniform)),
            ]
    for native, reference in zip(found[kernel], found["portable"], strict=True):
        assert np.array_equal(native, reference)


@needs_native
@settings(max_examples=60, deadline=None)
@given(by=st.lists(numbers.filter(bool), min_size=1, max_size=20), discrete_logarithm=numbers.filter(bool))
def test_products_equal_libsodiums(by: list[int], discrete_logarithm: int) -> None:
    points = np.repeat(ristretto.multiply_base(ristretto.scalars([discrete_logarithm])), len(by), axis=0)
    factors = ristretto.scalars(by)
    with using("portable"):
        reference = ristretto.multiply(points, factors), ristretto.multiply_base(factors)
    for name in NATIVE:
        with using(name):
            native = ristretto.multiply(points, factors), ristretto.multiply_base(factors)
        assert [each.tolist() for each in native] == [each.tolist() for each in reference]


def test_edge_scalars_multiply_as_numbers_do(backend: str) -> None:
    by = ristretto.scalars(EDGES)
    point = elements(1)
    back = ristretto.multiply(ristretto.multiply(np.repeat(point, len(EDGES), axis=0), by), ristretto.inverted(by))
    assert back.tolist() == point.tolist() * len(EDGES)
    negative = ristretto.multiply(point, ristretto.scalars([ORDER - 1]))
    assert ristretto.total(np.concatenate([point, negative])).tolist() == [[0] * 32]


@needs_native
@settings(max_examples=200, deadline=None)
@given(encoding=st.binary(min_size=32, max_size=32), high=st.sampled_from([0, 127]))
def test_all_backends_accept_the_same_encodings(encoding: bytes, high: int) -> None:
    given_rows = np.frombuffer(encoding, np.uint8).reshape(1, 32).copy()
    given_rows[0, 0] &= 254
    given_rows[0, 31] &= 127 | high
    outcomes = []
    for name in KERNELS:
        with using(name):
            try:
                outcomes.append(ristretto.multiply(given_rows, ristretto.scalars([3])).tolist())
            except ProtocolViolated as error:
                outcomes.append(error.detail)
    assert outcomes == outcomes[:1] * len(KERNELS)


@needs_native
@settings(max_examples=100, deadline=None)
@given(uniform=st.binary(min_size=64, max_size=64), fill=st.sampled_from([None, 0, 255]), half=st.sampled_from([0, 32]))
def test_all_backends_map_the_same(uniform: bytes, fill: int | None, half: int) -> None:
    given_rows = np.frombuffer(uniform, np.uint8).reshape(1, 64).copy()
    if fill is not None:
        given_rows[0, half + 1 : half + 31] = fill
    found = []
    for name in KERNELS:
        with using(name):
            found.append((ristretto.map_to_group(given_rows).tolist(), ristretto.reduced_scalars(given_rows).tolist()))
    assert found == found[:1] * len(KERNELS)


@settings(max_examples=40, deadline=None)
@given(
    wide=st.lists(st.integers(0, 2**512 - 1) | st.sampled_from([0, ORDER, ORDER - 1, 2**512 - 1, 2**256]), min_size=1)
)
def test_scalars_are_reduced_and_inverted_as_numbers(wide: list[int]) -> None:
    raw = np.frombuffer(b"".join(number.to_bytes(64, "little") for number in wide), np.uint8).reshape(-1, 64)
    expected = [number % ORDER for number in wide]
    invertible = [number for number in expected if number]
    for name in KERNELS:
        with using(name):
            assert ristretto.reduced_scalars(raw).tolist() == ristretto.scalars(expected).tolist()
            inverses = ristretto.inverted(ristretto.scalars(invertible))
        assert inverses.tolist() == ristretto.scalars([pow(number, -1, ORDER) for number in invertible]).tolist()


def test_random_scalars_are_below_the_order_and_differ(backend: str) -> None:
    found = [int.from_bytes(row.tobytes(), "little") for row in ristretto.random_scalars(200)]
    assert len(set(found)) == 200
    assert 0 < min(found) < max(found) < ORDER
    assert max(found) > ORDER // 2
    assert ristretto.random_scalars(0).shape == (0, 32)


def test_hash_and_multiply_is_both_in_turn(backend: str) -> None:
    messages, by = [b"alice", b"bob", b""], ristretto.random_scalars(3)
    products = ristretto.multiply(ristretto.hash_to_group(messages, b"domain"), by)
    assert ristretto.hash_and_multiply(messages, b"domain", by).tolist() == products.tolist()
    assert ristretto.hash_and_multiply(messages, b"domain", by[:1])[0].tolist() == products[0].tolist()


def test_rows_need_not_lie_side_by_side(backend: str) -> None:
    table, by = random_rows(40, 64), np.asfortranarray(ristretto.random_scalars(40))
    every_other = table[::2]
    assert ristretto.map_to_group(every_other).tolist() == ristretto.map_to_group(table).tolist()[::2]
    points = ristretto.map_to_group(every_other)
    found = ristretto.multiply(np.asfortranarray(points), by[::2])
    assert found.tolist() == ristretto.multiply(points, np.ascontiguousarray(by[::2])).tolist()


def test_two_threads_at_once_compute_what_one_does() -> None:
    batches = [(random_rows(500, 64), ristretto.random_scalars(500)) for _ in range(4)]

    def run(batch: tuple[np.ndarray, np.ndarray]) -> tuple[list[list[int]], list[list[int]]]:
        products = ristretto.map_and_multiply(*batch)
        return products.tolist(), ristretto.weighted_sum(products, batch[1]).tolist()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, batches)) == [run(batch) for batch in batches]
