"""Processes of tests that start at once: each is forked from one that has imported already what they need."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "fedtasks.engines.duck",
        "fedtasks.join.half",
        "fedtasks.models.secureboost.training",
        "fedtasks.psi.align",
        "fedtasks.psi.offline",
        "fedtasks.runtime.memory",
        "fedtasks.runtime.process",
        "fedtasks.store",
    ]
)
