from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CYCLES = """
import gc, weakref
from fedtasks.gateway.memory import stay_small

class Cycle:
    def __init__(self):
        self.itself = self

gc.set_threshold(50_000)
stay_small()
alive = weakref.WeakSet()
for _ in range(10_000):
    alive.add(Cycle())
print(len(alive))
"""

ARENAS = """
import ctypes, sys, threading
from fedtasks.gateway.memory import stay_small

stay_small()
filled = threading.Barrier(21)
kept = []

def fill():
    kept.append(bytes(100_000))
    filled.wait()

threads = [threading.Thread(target=fill) for _ in range(20)]
for thread in threads:
    thread.start()
filled.wait()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def _said(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_garbage_does_not_pile_up_in_a_gateway_that_the_command_line_started() -> None:
    assert int(_said(CYCLES)) < 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_memory_that_one_thread_frees_serves_the_others() -> None:
    assert _said(ARENAS).count("<heap nr=") <= 2
