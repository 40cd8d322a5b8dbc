"""A gateway as a monitoring sees it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from fedtasks.laptop.ports import free_ports


@dataclass
class Seen:
    """The port at which a gateway is seen."""

    address: str

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        status, text = self.get("/metrics")
        assert status == 200
        families = list(text_string_to_metric_families(text))
        found = [(each.name, each.labels, each.value) for family in families for each in family.samples]
        assert max(Counter((name, *sorted(labels.items())) for name, labels, _ in found).values()) == 1
        return found

    def value(self, name: str, **labels: str) -> float | None:
        return next((value for each, found, value in self.samples() if (each, found) == (name, labels)), None)

    def causes(self) -> list[dict[str, str]]:
        """Return what holds up runs, by one look."""
        return [labels for name, labels, value in self.samples() if name == "fedtasks_runs_held_up" and value]


def let_be_seen(file: Path) -> Seen:
    """Name an address in a party.yaml at which its gateway is to be seen."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    file.write_text(file.read_text().replace("gateway:\n", f"gateway:\n  observed: {address}\n", 1))
    return Seen(address)
