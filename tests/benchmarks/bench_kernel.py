"""Measures the kernels of batch arithmetic side by side, in one process pinned to one core.

Rates are operations per second of that core's time. A private RSA operation is what a signer does for each row, bytes
to verified bytes with a blind against timing; the others work on residues and elements. OpenSSL is measured twice: as it
is, and with AVX-512 hidden from it, as on a CPU without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from cryptography.hazmat.primitives.asymmetric import rsa

from fedtasks.crypto import blind_rsa, ristretto
from fedtasks.crypto.kernels import available_kernels, using
from fedtasks.crypto.keys import PUBLIC_EXPONENT, PrivateKey
from fedtasks.crypto.modular import Ring

PATIENCE_S = float(os.environ.get("SECONDS_EACH", "1"))
# Clears AVX512F, AVX512IFMA, AVX512VL and AVX512BW of what OpenSSL finds.
WITHOUT_AVX512 = ":~0xc0230000"
KEYS = {"openssl": "openssl", "openssl without AVX-512": "openssl_without_avx512", "portable": "gmpy2"}


def main() -> None:
    if len(sys.argv) > 1:
        with using(sys.argv[1]):
            print(json.dumps(measure()))
        return
    found = {}
    for name in available_kernels():
        with using(name):
            found[name] = measure()
    if "openssl" in found:
        environment = os.environ | {"OPENSSL_ia32cap": WITHOUT_AVX512}
        done = subprocess.run(
            [sys.executable, __file__, "openssl"], env=environment, capture_output=True, text=True, check=True
        )
        found["openssl without AVX-512"] = json.loads(done.stdout)
    columns = list(next(iter(found.values())))
    print(f"{'':25}" + "".join(f"{name.removesuffix('_per_s'):>24}" for name in columns))
    for name, rates in found.items():
        print(f"{name:25}" + "".join(f"{rates[column]:24,.4g}" for column in columns))
    best = available_kernels()[0]
    figures = {"benchmark": "kernel", "kernel": best, **found[best]}
    print(json.dumps(figures | {KEYS[name]: rates for name, rates in found.items() if name != best}))


def measure() -> dict[str, float]:
    """Return the figures of the kernel in use."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    rates: dict[str, float] = {}
    keys = {}
    for bits in (2048, 3072):
        numbers = rsa.generate_private_key(PUBLIC_EXPONENT, bits).private_numbers()
        keys[bits] = PrivateKey(numbers.p, numbers.q)
        rates[f"rsa{bits}_private_per_s"] = rate(private(keys[bits]), 512)
    ring = Ring(keys[2048].public.n)
    values = ring.random(4096)
    rates["pow65537_2048_per_s"] = rate(lambda n: ring.power(values[:n], PUBLIC_EXPONENT), 4096)
    ring = Ring(keys[2048].public.n ** 2)
    values, others = ring.random(4096), ring.random(4096)
    rates["mul_mod_4096_per_s"] = rate(lambda n: ring.multiply(values[:n], others[:n]), 4096)
    # A histogram of a column with 32 bins, of which the first holds half of all rows.
    bins = np.maximum(np.random.default_rng(1).integers(-32, 32, 4096), 0)
    rates["segmented_product_4096_per_s"] = rate(lambda n: ring.segmented_product(values[:n], bins[:n], 32), 4096)
    elements, by = ristretto.multiply_base(ristretto.random_scalars(2048)), ristretto.random_scalars(2048)
    rates["ristretto_mul_per_s"] = rate(lambda n: ristretto.multiply(elements[:n], by[:n]), 2048)
    os.sched_setaffinity(0, cores)
    rates["two_thread_ratio"] = two_threads(private(keys[2048]), 1024)
    return {name: round(each, 2) if each < 100 else round(each) for name, each in rates.items()}


def private(key: PrivateKey) -> Callable[[int], object]:
    """Return what signs rows as the product does: blinded once more, and every result verified."""
    rows = blind_rsa.prepare(key.public, [str(number).encode() for number in range(4096)])
    return lambda n: blind_rsa.blind_sign(key, rows[:n])


def rate(work: Callable[[int], object], batch: int) -> float:
    """Return how many rows a second of processor time does, in the best of three rounds."""
    work(8)
    best = 0.0
    for _ in range(3):
        start, rows = time.process_time(), 0
        while (taken := time.process_time() - start) < PATIENCE_S / 3 or not rows:
            work(batch)
            rows += batch
        best = max(best, rows / taken if taken else 0.0)
    return best


def two_threads(work: Callable[[int], object], batch: int) -> float:
    """Return how many times faster two threads are than one, by the clock, in the best of three rounds."""
    ratios = []
    for _ in range(3):
        walls = []
        for threads in ("1", "2"):
            os.environ["OMP_NUM_THREADS"] = threads
            start = time.perf_counter()
            work(batch)
            walls.append(time.perf_counter() - start)
        ratios.append(walls[0] / walls[1])
    return max(ratios)


if __name__ == "__main__":
    main()
