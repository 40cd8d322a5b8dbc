"""How fast live lookups are: through two gateways, against two PostgreSQL stores with a million tags each.

Everything that a user would start is a process of its own: PostgreSQL, both gateways, ``fedtasks psi serve`` at the
bank. The shop asks from this process, first in batches, then one id at a time. Half of the ids are in common. Run it
with ``make bench-online TAGS=100000``; the last line is one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.data.storage import write_json
from fedtasks.online.declaration import PIPELINE as ONLINE
from fedtasks.online.lookups import Asker
from fedtasks.online.tables import load_tags
from tests.support.gateways import Member, grant_ticket, make_members, set_address
from tests.support.postgres import PostgresServer

TAGS = int(os.environ.get("TAGS", "1000000"))
BATCH = 500
BATCHED = 100_000
SINGLE = 3_000
KEY_ID = "00" * 16


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_tags(member: Member, dataset: str, numbers: range) -> None:
    """Write what an intersection would have left: the ids of a dataset with their tags."""
    folder = member.folder / "storage" / "tags" / dataset / KEY_ID
    (folder / "one").mkdir(parents=True)
    schema = pa.schema([("id", pa.string()), ("tag", pa.binary(16))])
    with pq.ParquetWriter(folder / "one" / "bucket", schema) as writer:
        for start in range(numbers.start, numbers.stop, 50_000):
            part = range(start, min(start + 50_000, numbers.stop))
            ids = [f"{number:012d}" for number in part]
            tags = [hashlib.sha256(text.encode()).digest()[:16] for text in ids]
            writer.write_table(pa.table([ids, pa.array(tags, pa.binary(16))], schema=schema))
    generation = {"name": "one", "rows": len(numbers), "files": ["bucket"]}
    write_json(f"file://{folder}/manifest.json", {"generations": [generation]})


@contextmanager
def command(member: Member, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of a party as a process of its own."""
    argv = [sys.executable, "-m", "fedtasks.cli", *arguments, "--party", str(member.folder / "party.yaml")]
    with (member.folder / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for_line(member: Member, name: str, text: str) -> None:
    deadline = time.monotonic() + 600
    while text not in (log := (member.folder / f"{name}.log").read_text()):
        if time.monotonic() > deadline:
            raise SystemExit(f"`{name}` of {member.name} does not begin\n{log[-2000:]}")
        time.sleep(0.1)


def cpu_s(processes: list[subprocess.Popen[bytes]]) -> float:
    """CPU seconds of these processes and this one."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    own = resource.getrusage(resource.RUSAGE_SELF)
    return ticks / os.sysconf("SC_CLK_TCK") + own.ru_utime + own.ru_stime


def main() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer())
        bank, shop, listen = make_members(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        set_address(shop, listen)
        half_of = TAGS // 2
        for member, dataset, numbers in (
            (bank, "loans", range(TAGS)),
            (shop, "customers", range(half_of, half_of + TAGS)),
        ):
            url, password = server.create_database(), server.password_file
            text = f'store: {{url: "{url}", password_file: "{password}"}}\n'
            (member.folder / "party.yaml").write_text((member.folder / "party.yaml").read_text() + text)
            log(f"writing {TAGS} tags of {member.name} …")
            write_tags(member, dataset, numbers)
        processes = [stack.enter_context(command(member, "gateway", "gateway")) for member in (bank, shop)]
        for member in (bank, shop):
            wait_for_line(member, "gateway", "connected with")
        outputs = {"answers": "matched"}
        grant_ticket(bank, shop, pipelines=(ONLINE,), outputs=outputs, limits={})
        began = time.perf_counter()
        arguments = ("psi", "serve", "--dataset", "loans", "--to", "shop")
        processes.append(stack.enter_context(command(bank, "serve", *arguments)))
        wait_for_line(bank, "serve", "are ready for")
        load_s = time.perf_counter() - began
        log(f"loaded in {load_s:.1f} s; asking …")
        store, client = stack.enter_context(shop.store()), stack.enter_context(shop.client())
        declared = shop.party.dataset("customers")
        loaded = load_tags(shop.party, declared, store, "")
        asker = Asker(declared, loaded.key_id, store.tags, client, peer="bank")
        rng = random.Random(1)
        lines = [f'"{rng.randrange(half_of, half_of + TAGS):012d}"'.encode() for _ in range(BATCHED + SINGLE)]

        def ask(batch: list[bytes]) -> int:
            found = list(asker.answer(batch, 1))
            for line, answer in zip(batch, found, strict=True):
                expected = "matched" if int(json.loads(line)) < TAGS else "unmatched"
                if answer["status"] != expected:
                    raise SystemExit(f"expected {expected}, got {answer['status']}")
            return len(found)

        ask(lines[:BATCH])
        before, began = cpu_s(processes), time.perf_counter()
        n_batched = sum(ask(lines[start : start + BATCH]) for start in range(0, BATCHED, BATCH))
        batched_s, batched_cpu_s = time.perf_counter() - began, cpu_s(processes) - before
        taken = []
        for line in lines[BATCHED:]:
            began = time.perf_counter()
            ask([line])
            taken.append((time.perf_counter() - began) * 1000)
    p50, p99 = np.percentile(taken, [50, 99])
    figures = {
        "benchmark": "online",
        "tags": TAGS,
        "load_s": round(load_s, 1),
        "batch": BATCH,
        "lookups_per_s": round(n_batched / batched_s),
        "cpu_s_per_1000": round(batched_cpu_s / n_batched * 1000, 4),
        "single_p50_ms": round(float(p50), 2),
        "single_p99_ms": round(float(p99), 2),
        "single_max_ms": round(max(taken), 2),
        "exact": True,
        "cores": os.cpu_count(),
    }
    for name, value in figures.items():
        print(f"{name:18}{value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
