"""Ready-made halves run without pandas and scikit-learn, and whoever wants them may still have them."""

from __future__ import annotations

import subprocess
import sys

HALVES = """
import sys, tempfile
from pathlib import Path
from fedtasks.data.lean import lean_imports
with lean_imports():
    import fedtasks.runtime.function
from fedtasks.authoring.sample import sample_pair
from fedtasks.authoring.trial import try_out
from fedtasks.pipeline.catalogue import align, evaluate, intersect, train_secureboost
folder = Path(tempfile.mkdtemp())
steps = [intersect(scheme="oprf"), align(), train_secureboost(trees=1, key_bits=2048), evaluate()]
tried = [each.step for each in try_out(steps, sample_pair(folder, shared=60), folder, partition="2026-11-21")]
print(len(tried), sorted({"pandas", "tensorflow", "pyspark", "sklearn"} & set(sys.modules)))
"""
LATER = """
import sys, warnings
warnings.simplefilter("error")
from fedtasks.data.lean import lean_imports
with lean_imports():
    try:
        import pandas
    except ImportError:
        pass
import pyarrow as pa
pa.array(["a"])
before = "pandas" in sys.modules
import pandas, sklearn
print(before, pandas.DataFrame({"a": [1]}).a.sum(), pa.table(pandas.DataFrame({"a": [1]})).num_rows)
"""


TRAINING = """
import sys
from fedtasks.data.lean import lean_imports
with lean_imports():
    import fedtasks.models.split_nn.training
print(sorted({"pandas", "sklearn"} & set(sys.modules)), "tensorflow" in sys.modules)
"""


ALONE = """
import runpy, sys
sys.argv = ["fedtasks", ENTRY, "/nowhere/config.json"]
try:
    runpy.run_module("fedtasks.runtime", run_name="__main__")
except FileNotFoundError:
    pass
print(sorted({"pandas", "requests", "rbcl", "typer", "duckdb", "tensorflow", "sqlalchemy"} & set(sys.modules)))
"""
IMPORTED = """
import sys
from fedtasks.data.lean import lean_imports
import gc
with lean_imports():
    import fedtasks.psi.offline, fedtasks.psi.align, fedtasks.models.secureboost.training, fedtasks.models.evaluation
print(sorted({"pandas", "requests", "rbcl", "duckdb", "tensorflow", "sqlalchemy"} & set(sys.modules)), gc.isenabled())
"""


def printed_by(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_ready_made_halves_import_neither_pandas_nor_tensorflow() -> None:
    assert printed_by(HALVES) == "4 []"


def test_half_started_by_itself_imports_nothing_that_it_does_not_need() -> None:
    assert printed_by(ALONE.replace("ENTRY", "'fedtasks.psi.offline:run'")).splitlines()[-1] == "[]"
    assert printed_by(IMPORTED) == "[] True"


def test_pandas_can_be_imported_by_whoever_needs_it() -> None:
    assert printed_by(LATER) == "False 1 1"


def test_training_of_the_split_network_imports_tensorflow_alone() -> None:
    assert printed_by(TRAINING) == "[] True"
