from __future__ import annotations

import subprocess
import sys

from fedtasks.gateway.descriptors import max_connections


def test_limit_is_raised_as_far_as_it_may_be() -> None:
    code = (
        "import resource\n"
        "from fedtasks.gateway.descriptors import descriptor_limit, raise_descriptor_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))\n"
        "print(descriptor_limit(), descriptor_limit(hard=True), raise_descriptor_limit(), descriptor_limit())\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["256", "1024", "1024", "1024"]


def test_connections_from_outside_leave_descriptors_for_the_rest() -> None:
    assert [max_connections(limit) for limit in (64, 1024, 4096)] == [32, 512, 3072]
