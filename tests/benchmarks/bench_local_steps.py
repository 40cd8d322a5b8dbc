"""What local steps between exchanges are worth: exchanges and seconds until a network has learnt as much.

Both halves train in one process over a link in memory, on UCI credit where DATA= names its folder, else on made-up
rows; the test rows are scored each quarter of an epoch, where the halves stop as they do for a checkpoint. What an
exchange takes over a slow wire is measured apart, with both gateways, as in ``bench_nn.py``. Run it with
``make bench-local-steps DATA=folder``; SEEDS= says how many trainings a curve is the mean of, NETWORK= which
network is trained, that which comes with fedtasks or the ``wide`` one of ``bench_nn.py``. A table on stderr, then one
JSON object:

- ``exchanges_PROTECTION_lrRATE_localN`` maps AUCs to after how many exchanges the mean curve has first reached them;
- ``best_…`` is the best AUC of that curve, ``last_…`` the mean of its last epoch;
- ``ms_per_step_slow_localN``: milliseconds from one exchange to the next over the wire, local steps included.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import LabelKind
from fedtasks.link.memory import memory_pair
from fedtasks.models.evaluation import auc
from fedtasks.models.split_nn.batches import n_batches
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.local_steps import LocalSteps
from fedtasks.models.split_nn.protection.keys import Keys
from fedtasks.models.split_nn.protection.protections import protection_of
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import Stepper, train_epoch
from tests.benchmarks.bench_nn import SHAPE, SLOW, Asked, Source, pair
from tests.benchmarks.label_protection import Case, halves, log, make_case, plan, scores
from tests.support.links import both

SEEDS = int(os.environ.get("SEEDS") or 3)
NETWORK = os.environ.get("NETWORK") or "built_in"
LOCAL_STEPS = (0, 1, 3)
NETWORKS: dict[str, dict[str, Any]] = {"built_in": {}, "wide": SHAPE}
FACTORS = (1, 2, 4)
"""By which a network's learning rate is multiplied: a larger one is the other way to need fewer exchanges."""
AUCS = (0.74, 0.75, 0.755, 0.76, 0.765)
BATCH, WINDOW, EPOCHS, STOPS = 256, 4, 4, 4
SLOW_STEPS = 120


def curve(case: Case, settings: TrainSettings) -> list[tuple[int, float]]:
    """Train halves; return after how many exchanges which AUC of test rows was reached."""
    sides = halves(case, settings, settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        protection = protection_of(
            settings,
            Keys(settings.seed.to_bytes(32, "big")),
            run="benchmark",
            labels=Targets(case.labels),
            kind=LabelKind.BINARY,
            column=("people", "y"),
            state=f"file://{folder}",
            spend=lambda epsilon, item="": None,
        )
        sides[0].alternatives = protection.alternatives
        plan(*sides)
        rows = Rows(case.train[0], Targets(case.labels)), Rows(case.train[1])
        steppers = [
            Stepper(
                half,
                Crossing(link, half),
                protection if half.has_label else None,
                LocalSteps(half, settings.local_steps, settings.window),
            )
            for half, link in zip(sides, memory_pair(), strict=True)
        ]
        n_steps, found = n_batches(len(case.labels), settings), []
        ends = np.linspace(0, n_steps, STOPS + 1).astype(int).tolist()
        labels = case.test_labels[:, 0].astype(np.int64)

        def run(place: int, epoch: int, first: int, last: int) -> None:
            some = islice(rows[place].batches(epoch, settings, first), last - first)
            for _ in train_epoch(steppers[place], some, settings.window, f"epoch {epoch + 1}", first + 1):
                pass

        for epoch in range(settings.epochs):
            protection.begin_epoch()
            for first, last in pairwise(ends):
                both(partial(run, 0, epoch, first, last), partial(run, 1, epoch, first, last))
                found.append((epoch * n_steps + last, auc(labels, scores(*sides, *case.test))))
    return found


def measure_exchanges() -> dict[str, Any]:
    """Measure how many exchanges an AUC takes, by protection, learning rate and local steps."""
    case = make_case()
    figures: dict[str, Any] = {}
    base = TrainSettings(**{**NETWORKS[NETWORK], "batch_size": BATCH, "window": WINDOW, "epochs": EPOCHS})
    for protection, leak in (("none", 100), ("marvell", 60)):
        for rate in (factor * base.learning_rate for factor in FACTORS):
            for n_steps in LOCAL_STEPS:
                asked = replace(
                    base,
                    label_protection=protection,
                    max_label_leak=leak,
                    learning_rate=rate,
                    local_steps=n_steps,
                )
                curves = [curve(case, replace(asked, seed=seed)) for seed in range(SEEDS)]
                exchanges = [at for at, _ in curves[0]]
                mean = np.mean([[value for _, value in each] for each in curves], axis=0)
                reached = {
                    str(wanted): next((at for at, value in zip(exchanges, mean, strict=True) if value >= wanted), None)
                    for wanted in AUCS
                }
                name = f"{protection}_lr{rate}_local{n_steps}"
                figures[f"exchanges_{name}"] = reached
                figures[f"best_{name}"] = round(float(mean.max()), 4)
                figures[f"last_{name}"] = round(float(mean[-STOPS:].mean()), 4)
                log(f"{name:28} best {mean.max():.4f} last {mean[-STOPS:].mean():.4f} exchanges {reached}")
    return figures


def measure_slow() -> dict[str, Any]:
    """Measure what an exchange takes over a slow wire, with the steps that follow it."""
    figures: dict[str, Any] = {}
    with pair(Source("", 100_000), 4, SLOW) as two:
        two.train(Asked(BATCH, WINDOW, 40))
        for n_steps in LOCAL_STEPS:
            asked = Asked(BATCH, WINDOW, SLOW_STEPS, local_steps=n_steps)
            found = 1e3 * float(statistics.median(two.train(asked)["wall_s"] for _ in range(3))) / SLOW_STEPS
            figures[f"ms_per_step_slow_local{n_steps}"] = round(found, 1)
            log(f"over the slow wire, {n_steps} local steps: {found:.1f} ms an exchange")
    return figures


def main() -> None:
    prepare_tensorflow()
    figures = {**measure_slow(), **measure_exchanges()}
    print(json.dumps({"benchmark": "local_steps", "network": NETWORK, "seeds": SEEDS, **figures}))


if __name__ == "__main__":
    main()
