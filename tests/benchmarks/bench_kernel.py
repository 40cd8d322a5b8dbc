"""Measures the kernels of batch arithmetic side by side, in one process pinned to one core.

Rates are operations per second of that core's time, in the best of several rounds in which the kernels take turns. A
private RSA operation is what a signer does for each row: bytes to verified bytes, with a blind against timing; the rest
works on residues and elements. A second process hides AVX-512 from OpenSSL, as on a CPU without, beside gmpy2 again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cryptography.hazmat.primitives.asymmetric import rsa

from fedtasks.crypto import blind_rsa, ristretto
from fedtasks.crypto.kernels import available_kernels, using
from fedtasks.crypto.keys import PUBLIC_EXPONENT, PrivateKey
from fedtasks.crypto.modular import Ring
from fedtasks.crypto.paillier import PrivateKey as Paillier

ROUNDS = int(os.environ.get("ROUNDS", "7"))
ROUND_S = 0.2
# Clears AVX512F, AVX512IFMA, AVX512VL and AVX512BW of what OpenSSL finds.
WITHOUT_AVX512 = ":~0xc0230000"
COLUMNS = {"portable": "gmpy2"}

Work = Callable[[], int]
"""Does some rows and returns how many."""


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1:])))
        return
    found = measure(available_kernels())
    best = available_kernels()[0]
    figures = {"benchmark": "kernel", "kernel": best, **found[best]}
    figures |= {COLUMNS.get(name, name): rates for name, rates in found.items() if name != best}
    if "openssl" in found:
        hidden = without_avx512()
        found["openssl, no AVX-512"], found["portable, beside it"] = hidden["openssl"], hidden["portable"]
        ratio = hidden["openssl"]["rsa2048_private_per_s"] / hidden["portable"]["rsa2048_private_per_s"]
        figures |= {"openssl_without_avx512": hidden["openssl"], "openssl_without_avx512_over_gmpy2": round(ratio, 2)}
    columns = list(found[best])
    print(f"{'':22}" + "".join(f"{name.removesuffix('_per_s'):>24}" for name in columns))
    for name, rates in found.items():
        print(f"{name:22}" + "".join(f"{rates[column]:24,.4g}" for column in columns))
    print(json.dumps(figures))


def without_avx512() -> dict[str, dict[str, float]]:
    """Measure in a process whose OpenSSL finds no AVX-512."""
    command = [sys.executable, __file__, "openssl", "portable"]
    environment = os.environ | {"OPENSSL_ia32cap": WITHOUT_AVX512}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def measure(kernels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the figures of each kernel."""
    cores = os.sched_getaffinity(0)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {max(cores)})
    keys = {bits: new_key(bits) for bits in (2048, 3072)}
    shorter = three_primes(3072)
    work = {}
    for name in kernels:
        with using(name):
            work[name] = operations(keys) | {"rsa3072_three_primes_per_s": private(shorter, 512)}
    found: dict[str, dict[str, float]] = {name: dict.fromkeys(work[name], 0.0) for name in kernels}
    for _ in range(ROUNDS):
        for operation in work[kernels[0]]:
            for name in kernels:
                with using(name):
                    found[name][operation] = max(found[name][operation], rate(work[name][operation]))
    os.sched_setaffinity(0, cores)
    for name in kernels:
        with using(name):
            found[name]["two_thread_ratio"] = two_threads(keys[2048], found[name]["rsa2048_private_per_s"])
    return {
        name: {key: round(value, 2 if value < 100 else None) for key, value in each.items()}
        for name, each in found.items()
    }


def new_key(bits: int) -> PrivateKey:
    numbers = rsa.generate_private_key(PUBLIC_EXPONENT, bits).private_numbers()
    return PrivateKey(numbers.p, numbers.q)


def three_primes(bits: int) -> PrivateKey:
    length = 2 * bits // 3
    return PrivateKey(*(rsa.generate_private_key(PUBLIC_EXPONENT, length).private_numbers().p for _ in range(3)))


def operations(keys: dict[int, PrivateKey]) -> dict[str, Work]:
    """Return what is measured, prepared for the kernel in use."""
    found = {f"rsa{bits}_private_per_s": private(key, 512) for bits, key in keys.items()}
    ring = Ring(keys[2048].public.n)
    values = ring.random(1024)
    found["pow65537_2048_per_s"] = counted(1024, lambda: ring.power(values, PUBLIC_EXPONENT))
    wide = Ring(keys[2048].public.n ** 2)
    left, right = wide.random(4096), wide.random(4096)
    found["mul_mod_4096_per_s"] = counted(4096, lambda: wide.multiply(left, right))
    # A histogram of a column with 32 bins, of which the first holds half of all rows.
    bins = np.maximum(np.random.default_rng(1).integers(-32, 32, 4096), 0)
    found["segmented_product_4096_per_s"] = counted(4096, lambda: wide.segmented_product(left, bins, 32))
    paillier = Paillier(keys[2048].p, keys[2048].q)
    masks, numbers = paillier.masks(), np.zeros((256, 16), dtype=np.uint8)

    def encrypt() -> np.ndarray:
        return paillier.public.ring.multiply(paillier.public.plain(numbers), masks(len(numbers)))

    ciphertexts = encrypt()
    found["paillier2048_encrypt_per_s"] = counted(256, encrypt)
    found["paillier2048_decrypt_per_s"] = counted(256, lambda: paillier.decrypt(ciphertexts))
    elements, by = ristretto.multiply_base(ristretto.random_scalars(512)), ristretto.random_scalars(512)
    found["ristretto_mul_per_s"] = counted(512, lambda: ristretto.multiply(elements, by))
    found["ristretto_add_multiple_per_s"] = counted(512, lambda: ristretto.add_multiples(elements, elements[:1], by))
    return found


def private(key: PrivateKey, n_rows: int) -> Work:
    """Return what signs rows as the product does."""
    rows = blind_rsa.prepare(key.public, [str(number).encode() for number in range(n_rows)])
    return counted(n_rows, lambda: blind_rsa.blind_sign(key, rows))


def counted(n_rows: int, work: Callable[[], object]) -> Work:
    def run() -> int:
        work()
        return n_rows

    return run


def rate(work: Work) -> float:
    """Return how many rows a second of processor time does."""
    start, rows = time.process_time(), 0
    while (taken := time.process_time() - start) < ROUND_S:
        rows += work()
    return rows / taken


def two_threads(key: PrivateKey, rows_per_s: float) -> float:
    """Return how many times faster two threads sign than one, by the clock, each in its best round."""
    sign = private(key, min(4096, int(rows_per_s / 2)))
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for threads in ("1", "2"):
            os.environ["OMP_NUM_THREADS"] = threads
            start = time.perf_counter()
            sign()
            best[threads] = min(best.get(threads, 1e9), time.perf_counter() - start)
    return best["1"] / best["2"]


if __name__ == "__main__":
    main()
