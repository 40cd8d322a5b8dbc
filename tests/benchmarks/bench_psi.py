"""What private set intersection costs two parties: CPU, bytes, memory, on the first day and on the second.

Two real gateways (in this process) and, for each run, two processes with an engine of their own; half of the ids are in
common, and on the second day a hundredth of them is new. Run it with ``make bench-psi IDS=100000 ENGINE=spark
SCHEMES=oprf``; the last line is one JSON object. CPU and memory are sampled from /proc for every process of a half's
session, so up to a fifth of a second of each process is missed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.crypto.kernels import get_kernel
from fedtasks.crypto.scheme import generate_key
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import filesystem
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, grant_ticket, make_members, set_address

IDS = int(os.environ.get("IDS", "1000000"))
BITS = 2048
SHARDS = 4
ENGINE = os.environ.get("ENGINE", "duckdb")
ENGINES = {"duckdb": "", "spark": 'spark: {master: "local[2]"}\n'}
SCHEMES = tuple(os.environ.get("SCHEMES", "oprf,blind_rsa").split(","))
NAMES = {"blind_rsa": "rsa2048", "oprf": "oprf"}
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
PHASE = re.compile(r"fedtasks\.psi\.half: ([a-z ]+): \d+ of \d+")


@dataclass
class Usage:
    """What the processes of one half have used."""

    sid: int
    log: Path
    cpu_s: dict[int, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    phases: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))

    def sample(self) -> None:
        """Look at every process of the session."""
        used: dict[str, float] = defaultdict(float)
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            name, rest = stat.partition("(")[2].rpartition(")")[0], stat.rpartition(")")[2].split()
            if int(rest[3]) != self.sid:
                continue
            pid, cpu_s = int(folder.name), (int(rest[11]) + int(rest[12])) * TICK_S
            used["python" if name == "python" else "java"] += cpu_s - self.cpu_s.get(pid, 0.0)
            self.cpu_s[pid] = cpu_s
            self.peak_mb[name] = max(self.peak_mb[name], int(rest[21]) * PAGE_MB)
        found = PHASE.findall(self.log.read_text())
        for kind, cpu_s in used.items():
            self.phases[found[-1] if found else "starting"][kind] += cpu_s


@dataclass
class Figures:
    """What one run of both halves cost."""

    cpu_s: float
    wall_s: float
    n_bytes: int
    peak_mb: dict[str, float]
    phases: dict[str, dict[str, float]]
    signed: int
    exact: bool


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def parties(folder: Path) -> Iterator[tuple[Member, Member]]:
    """Start both gateways; the shop signs and has a key for each scheme."""
    bank, shop, listen = make_members(folder)
    set_address(shop, listen)
    for member in (bank, shop):
        text = (member.folder / "party.yaml").read_text().replace("id: customer", "id: id")
        text += "    label: y\n" if member is bank else "psi_key: keys/psi.key\npsi_oprf_key: keys/psi-oprf.key\n"
        (member.folder / "party.yaml").write_text(text + ENGINES[ENGINE])
    generate_key(Scheme.BLIND_RSA, shop.folder / "keys" / "psi.key", BITS)
    generate_key(Scheme.OPRF, shop.folder / "keys" / "psi-oprf.key")
    bank.start()
    shop.start()
    try:
        grant_ticket(shop, bank, limits={"runs": 100, "concurrent_runs": 5})
        yield bank, shop
    finally:
        shop.close()
        bank.close()


def write(member: Member, numbers: range, label: bool) -> None:
    """Write a dataset in a shuffled order."""
    order = list(numbers)
    random.Random(1).shuffle(order)
    columns: dict[str, Any] = {"id": [f"{number:012d}" for number in order], "a": pa.array([0.5] * len(order))}
    if label:
        columns["y"] = [number % 2 for number in order]
    pq.write_table(pa.table(columns), member.folder / "data.parquet", row_group_size=100_000)


def run(bank: Member, shop: Member, name: str, scheme: str, expected: range) -> Figures:
    """Run both halves and compare what they publish with `expected`."""
    config = {"leader": "bank", "datasets": {"bank": "loans", "shop": "customers"}, "steps": {}}
    with bank.client() as left, shop.client() as right:
        shared = json.dumps(config, sort_keys=True, separators=(",", ":"))
        common = {
            "dag_id": PIPELINE,
            "pipeline": PIPELINE,
            "steps": [run_pb2.Step(name="psi", digest="a", kind="psi")],
            "partition": name,
        }
        opened = left.open_run(**common, dag_run_id=name, config_json=shared, peer="shop")
        run_id = opened.run.run_id
        bank.airflow.runs[PIPELINE, name] = {"state": "running"}
        right.open_run(**{**common, "partition": ""}, dag_run_id=run_id, config_json="", peer="")
        for client in (left, right):
            client.announce(run_id, "psi", "1", 60)
        while not all(client.announce(run_id, "psi", "1", 60).ready for client in (left, right)):
            time.sleep(0.05)
        for client in (left, right):
            client.start(run_id, "psi", 1)
        start = time.perf_counter()
        halves = {member.name: half(member, run_id, config, scheme) for member in (bank, shop)}
        while any(process.poll() is None for process, _ in halves.values()):
            for party, (process, usage) in halves.items():
                usage.sample()
                if process.poll():
                    raise SystemExit(f"the half of {party} failed\n{usage.log.read_text()[-4000:]}")
            time.sleep(0.2)
        wall = time.perf_counter() - start
        outcome = json.loads((bank.folder / run_id / "outcome.json").read_text())
        n_bytes = left.get_run(run_id=run_id).bytes_sent + left.get_run(run_id=run_id).bytes_received
        left.cancel_run(run_id, "measured")
    usages = [usage for _, usage in halves.values()]
    peak: dict[str, float] = defaultdict(float)
    phases: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for usage in usages:
        for kind, mb in usage.peak_mb.items():
            peak[kind] = max(peak[kind], mb)
        for phase, kinds in usage.phases.items():
            for kind, cpu_s in kinds.items():
                phases[phase][kind] += cpu_s
    return Figures(
        cpu_s=sum(sum(usage.cpu_s.values()) for usage in usages),
        wall_s=wall,
        n_bytes=n_bytes,
        peak_mb={kind: round(mb) for kind, mb in peak.items()},
        phases={phase: {kind: round(s, 1) for kind, s in kinds.items()} for phase, kinds in phases.items()},
        signed=outcome["counts"]["ids_blinded"],
        exact=all(is_exact(member, run_id, expected) for member in (bank, shop)),
    )


def half(member: Member, run_id: str, config: dict[str, Any], scheme: str) -> tuple[subprocess.Popen[bytes], Usage]:
    folder = member.folder / run_id
    folder.mkdir()
    task = {
        "party": str(member.folder / "party.yaml"),
        "run_id": run_id,
        "task": "psi",
        "kind": "psi",
        "attempt": 1,
        "peer": "shop" if member.name == "bank" else "bank",
        **config,
        "settings": {"scheme": scheme, "shards": SHARDS},
    }
    task.pop("steps")
    (folder / "config.json").write_text(json.dumps(task))
    entry = "fedtasks.psi.offline:run"
    argv = [sys.executable, "-m", "fedtasks.runtime", entry, str(folder / "config.json")]
    with (folder / "log").open("wb") as output:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(argv, stdout=output, stderr=output, start_new_session=True, env=environment)
    return process, Usage(process.pid, folder / "log")


def is_exact(member: Member, run_id: str, expected: range) -> bool:
    """Whether the published ids are those of `expected`, each once; compared by count and the sum of hashes."""
    manifest = RunStorage(member.party.storage, run_id).published("psi")

    def number(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16])

    found = 0
    for entry in manifest.files:
        fs, path = filesystem(manifest.path(entry.name))
        with fs.open(path, "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["id"]):
                found += sum(number(text) for text in batch.column("id").to_pylist())
    return manifest.rows == len(expected) and found == sum(number(f"{each:012d}") for each in expected)


def main() -> None:
    half_of, new = IDS // 2, max(1, IDS // 100)
    results: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as place, parties(Path(place)) as (bank, shop):
        for day, first in ((1, 0), (2, new)):
            write(bank, range(first, IDS + first), label=True)
            write(shop, range(half_of, half_of + IDS), label=False)
            for scheme in SCHEMES:
                log(f"{IDS} ids, {scheme}, day {day} …")
                found = run(bank, shop, f"{scheme}-{day}", scheme, range(half_of, IDS + first))
                results[f"{scheme} {day}"] = found
                log(f"  {found}")
    print(f"{'':14}{'CPU s':>10}{'wall s':>10}{'MB':>10}{'signed':>10}")
    for name, found in results.items():
        print(f"{name:14}{found.cpu_s:10.1f}{found.wall_s:10.1f}{found.n_bytes / 1e6:10.1f}{found.signed:10d}")
    days = {scheme: (results[f"{scheme} 1"], results[f"{scheme} 2"]) for scheme in SCHEMES}
    figures: dict[str, Any] = {"benchmark": "psi", "ids": IDS, "engine": ENGINE, "kernel": get_kernel().name}
    for scheme, (one, _) in days.items():
        figures[f"{NAMES[scheme]}_cpu_s"] = round(one.cpu_s, 1)
        figures[f"{NAMES[scheme]}_wall_s"] = round(one.wall_s, 1)
        figures[f"{NAMES[scheme]}_bytes"] = one.n_bytes
    figures |= {
        "peak_rss_mb": max(max(found.peak_mb.values()) for found in results.values()),
        "peak_rss_mb_by_process": {name: found.peak_mb for name, found in results.items()},
        "exact": all(found.exact for found in results.values()),
        "cpu_s_by_stage": {name: found.phases for name, found in results.items()},
        "day2_signed": {scheme: two.signed for scheme, (_, two) in days.items()},
        "day2_signed_ratio": {scheme: two.signed / one.signed for scheme, (one, two) in days.items()},
        "day2_bytes_ratio": {scheme: round(two.n_bytes / one.n_bytes, 4) for scheme, (one, two) in days.items()},
        "day2_cpu_s": {scheme: round(two.cpu_s, 1) for scheme, (_, two) in days.items()},
        "day2_wall_s": {scheme: round(two.wall_s, 1) for scheme, (_, two) in days.items()},
        "cores": os.cpu_count(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
