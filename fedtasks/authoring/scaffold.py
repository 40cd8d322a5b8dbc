"""A new pipeline with its test, ready to run."""

from __future__ import annotations

from pathlib import Path

from fedtasks import private
from fedtasks.config import check_name
from fedtasks.errors import ConfigError

DAG = '''"""{title}: what both sides' numeric columns are on average.

The same file is deployed on both sides; whoever triggers it is the initiator.
"""

from __future__ import annotations

from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag


@fed.task
def column_means(link, config, data):
    """Tell the other side the mean of each numeric column, and learn theirs."""
    import numpy as np
    import pyarrow.compute as pc

    ours = np.array([pc.mean(column).as_py() for column in data.table(*data.numeric).columns], float)
    link.send("means", ours)
    theirs = link.receive("means")
    return {{config.party: ours.tolist(), config.peer: theirs.tolist()}}


FederatedDag("{name}", steps=[column_means()], doc_md=__doc__)
'''

TEST = '''"""Both halves of `{name}` on sample data, without Airflow."""

from __future__ import annotations

from pathlib import Path

DAG = Path(__file__).parents[1] / "dags" / "{name}.py"


def test_both_sides_learn_both_means(run_both):
    ended = run_both(DAG)
    assert ended["bank"] == ended["shop"]
    assert set(ended["bank"]["column_means"]["values"]) == {{"bank", "shop"}}
'''


def scaffold(name: str, folder: Path) -> list[Path]:
    """Write ``dags/NAME.py`` and ``tests/test_NAME.py`` below `folder`.

    Raises
    ------
    ConfigError
        The name is not a plain name, or a file is there already; nothing was written.
    """
    check_name(name, "name")
    contents = {folder / "dags" / f"{name}.py": DAG, folder / "tests" / f"test_{name}.py": TEST}
    for file in contents:
        if file.exists():
            raise ConfigError("the file is there already; choose another name", where=str(file), field="name")
    for file, template in contents.items():
        private.make_folders(file.parent, private.SHARED)
        file.write_text(template.format(name=name, title=name.replace("_", " ").capitalize()), encoding="utf-8")
        private.share(file)
    return list(contents)
