"""Remove every night what runs have left longer ago than section `keep` of party.yaml says; what is in use stays.

Each side has its own: it touches this party's files and store alone, and needs nobody's leave. The log says what went,
and why. Look at `fedtasks gc --dry-run` before it is unpaused.
"""

from __future__ import annotations

import shlex
import sys

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    "fedtasks_gc",
    description="Old files of runs, models, joined streams and tags that nobody needs",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    doc_md=__doc__,
):
    BashOperator(task_id="gc", bash_command=f"{shlex.quote(sys.executable)} -m fedtasks.cli gc")
