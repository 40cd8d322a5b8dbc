"""What a DAG file declares, found by a process of its own that parses it as Airflow does.

A DAG file is a program: it may be slow, print, or end its process. So it is parsed in another one, with a fresh folder
in place of Airflow's own, and what it declares comes back as plain values.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fedtasks.config import PARTY_VARIABLE
from fedtasks.dataclass_io import build, read_yaml, to_plain
from fedtasks.errors import ConfigError, FedtasksError, ProcessFailed
from fedtasks.names import parts_of, pipeline_name
from fedtasks.pipeline.step import Step

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from fedtasks.airflow.opening import OpenRunOperator

HEAVY = ("tensorflow", "keras", "pyspark", "duckdb", "grpc", "pyarrow", "numpy", "pandas", "fsspec", "gmpy2")
"""What a DAG file should import inside functions only: Airflow parses it every few seconds."""

PARSE_S = 60.0
"""How long parsing may take at most."""


@dataclass(frozen=True)
class Declared:
    """A federated pipeline, as a DAG file declares it.

    Parameters
    ----------
    pipeline
        Its name.
    steps
        What a run does.
    has_schedule, starts_itself
        Whether the side that lists it in ``schedules`` starts it, and whether this party is that side.
    asks
        What ``open_run`` would ask the gateway for if the form's defaults were sent off.
    open_fields
        Why they cannot be sent off as they are, such as which dataset is to be chosen; empty if they can.
    took_s
        Processor time of parsing, with what it imports.
    heavy
        Which of `HEAVY` it imports.
    """

    pipeline: str
    steps: tuple[Step, ...]
    has_schedule: bool
    starts_itself: bool
    asks: Mapping[str, Any] = field(default_factory=dict)
    open_fields: str = ""
    took_s: float = 0.0
    heavy: tuple[str, ...] = ()

    @property
    def shared(self) -> dict[str, Any]:
        """The shared configuration of a run with the form's defaults; empty if they leave something open."""
        shared: dict[str, Any] = json.loads(self.asks["config_json"]) if self.asks else {}
        return shared


def declared_in(file: Path, party_file: Path | None = None, pipeline: str = "") -> Declared:
    """Parse a DAG file as Airflow does, and return what it declares.

    Parameters
    ----------
    file
        The DAG file.
    party_file
        As whom to parse it: as this party, and as either side of a schedule. None stands for a party without a file.
    pipeline
        Which of its federated pipelines is meant, where it holds several.

    Raises
    ------
    ConfigError
        It does not parse in one of these ways, or does not hold the pipeline that is meant.
    ProcessFailed
        Parsing did not end within `PARSE_S`, or ended its process.
    """
    if not file.is_file():
        raise ConfigError("there is no such file", where=str(file))
    argv = [sys.executable, "-m", __name__, str(file.absolute()), pipeline, *([str(party_file)] if party_file else [])]
    with tempfile.TemporaryDirectory(prefix="fedtasks-dag-") as home:
        environment = {**os.environ, "AIRFLOW_HOME": home, PARTY_VARIABLE: f"{home}/no-party.yaml"}
        try:
            done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=PARSE_S, check=False)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"parsing did not end within {PARSE_S:g} s", where=str(file)) from None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ProcessFailed(f"parsing ended its process: {last}", where=str(file))
    answer = json.loads(lines[-1])
    if "problem" in answer:
        raise ConfigError(answer["problem"], where=answer["where"])
    return build(Declared, answer)


def main(file: str, pipeline: str, party_file: str = "") -> None:
    """Print as one line of JSON what a DAG file declares, or what is wrong with it."""
    with redirect_stdout(sys.stderr):
        try:
            found = (
                _parse_as_each(Path(file), pipeline, Path(party_file)) if party_file else _parse(Path(file), pipeline)
            )
            answer = to_plain(found)
        except ConfigError as error:
            answer = {"problem": error.detail, "where": error.where or file}
    print(json.dumps(answer))


def _parse_as_each(file: Path, pipeline: str, party_file: Path) -> Declared:
    """Parse a file as a party, and as either side of a schedule."""
    os.environ[PARTY_VARIABLE] = str(party_file)
    here = _parse(file, pipeline)
    dag_id, _ = parts_of(here.pipeline)
    plain, _ = read_yaml(party_file)
    others = [name for name in plain.get("schedules") or () if name != dag_id]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as variant:
        os.environ[PARTY_VARIABLE] = variant.name
        for schedules in (others, [*others, dag_id]):
            variant.seek(0)
            variant.truncate()
            yaml.safe_dump({**plain, "schedules": schedules}, variant)
            variant.flush()
            as_side = _parse(file, pipeline)
    return replace(here, has_schedule=as_side.starts_itself)


def _parse(file: Path, pipeline: str) -> Declared:
    # What a process that parses DAG files has imported already.
    import airflow.dag_processing.processor  # noqa: F401
    from airflow.dag_processing.dagbag import DagBag

    before, began = set(sys.modules), time.process_time()
    bag = DagBag(str(file))
    took_s = time.process_time() - began
    heavy = tuple(name for name in HEAVY if name in sys.modules and name not in before)
    if bag.import_errors:
        trace = next(iter(bag.import_errors.values())).strip().splitlines()
        raise ConfigError(trace[-1], where=_place(trace, file))
    from fedtasks.airflow.opening import openings

    found = {
        pipeline_name(dag.dag_id, opening.run): (dag, opening) for dag in bag.dags.values() for opening in openings(dag)
    }
    dag, opening = found[_chosen(pipeline, tuple(found))]
    return replace(_declared(dag, opening), took_s=round(took_s, 3), heavy=heavy)


def _chosen(pipeline: str, found: Sequence[str]) -> str:
    """Return which of a file's pipelines is meant."""
    if not found:
        raise ConfigError("there is no federated pipeline in the file")
    if pipeline and pipeline not in found:
        raise ConfigError(f"`{pipeline}` is none of the file's pipelines: {', '.join(found)}", field="pipeline")
    if not pipeline and len(found) > 1:
        text = f"the file holds several pipelines; say by --pipeline which one is meant: {', '.join(found)}"
        raise ConfigError(text, field="pipeline")
    return pipeline or found[0]


def _declared(dag: DAG, opening: OpenRunOperator) -> Declared:
    """Return what one run of a DAG declares."""
    from airflow.sdk import PartitionedAtRuntime
    from airflow.sdk.exceptions import ParamValidationError

    from fedtasks.airflow.hook import party_here
    from fedtasks.pipeline.shared import initiate

    starts_itself = not isinstance(dag.timetable, PartitionedAtRuntime)
    declared = Declared(pipeline_name(dag.dag_id, opening.run), opening.steps, starts_itself, starts_itself)
    party = party_here(opening.fedtasks_conn_id)
    if party is None:
        return replace(declared, open_fields="there is no party.yaml, so peers and datasets are unknown")
    try:
        params = opening.own_params(dag.params.validate())
        return replace(declared, asks=initiate(party, opening.steps, params, "check"))
    except ParamValidationError as error:
        raise ConfigError(f"the trigger form's defaults are not valid: {error}") from None
    except FedtasksError as error:
        return replace(declared, open_fields=f"{error.code}: {error.detail or error.public}")


def _place(trace: Sequence[str], file: Path) -> str:
    """Return file and line of the last frame within the file."""
    marks = [line for line in trace if line.strip().startswith(f'File "{file}", line ')]
    return f"{file}:{marks[-1].split('line ')[1].split(',')[0]}" if marks else str(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
