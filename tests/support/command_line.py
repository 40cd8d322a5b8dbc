"""Commands as a person would run them: what one did, and the datasets that a party of a test has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

DATASETS = """\
datasets:
  - name: customers
    uri: data/customers.parquet
    id: person
    features: {age: numeric, region: categorical}
"""


class Result:
    """What one command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]
