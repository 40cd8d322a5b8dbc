"""How tests are shared out among processes: a file stays whole, and what needs the two Airflows is together, last.

Both Airflows stay up until their process ends, and others should not share the cores with them for long.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
E2E = TESTS / "e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: E2E in item.path.parents)
    for item in items:
        group = E2E if E2E in item.path.parents else item.path
        item.add_marker(pytest.mark.xdist_group(str(group.relative_to(TESTS))))
