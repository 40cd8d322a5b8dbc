"""Arithmetic modulo a number, over batches."""

from __future__ import annotations

from collections.abc import Sequence

import gmpy2


def inverses(numbers: Sequence[gmpy2.mpz], n: gmpy2.mpz) -> list[gmpy2.mpz]:
    """Invert all by one inversion and three multiplications each.

    Raises
    ------
    ZeroDivisionError
        A number has no inverse.

    Notes
    -----
    Source: Montgomery, "Speeding the Pollard and elliptic curve methods of factorization", 1987.
    """
    prefixes = [gmpy2.mpz(1)]
    for number in numbers:
        prefixes.append(prefixes[-1] * number % n)
    rest = gmpy2.invert(prefixes.pop(), n)
    found = []
    for prefix, number in zip(reversed(prefixes), reversed(numbers), strict=True):
        found.append(rest * prefix % n)
        rest = rest * number % n
    return found[::-1]
