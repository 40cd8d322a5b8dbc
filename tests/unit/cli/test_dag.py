"""`dag new | check | test | plan`, from an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedtasks.config import load_party
from fedtasks.store import Labels, LabelSpendRow, Store
from tests.support.command_line import DATASETS, Result, Run

pytestmark = pytest.mark.usefixtures("quick_parsing")

DAG = "dags/my_pipeline.py"

PIPELINE = """
from fedtasks.airflow.pipeline import FederatedDag, intersect

FederatedDag("train", steps=[intersect({settings})], schedule="@daily")
"""


@pytest.fixture
def new(run: Run, tmp_path: Path) -> Path:
    run("dag", "new", "my_pipeline")
    return tmp_path / DAG


@pytest.fixture
def asking(met: tuple[str, str], ticket_id: str, run: Run, tmp_path: Path) -> str:
    """The bank's party.yaml, once it has a dataset and has accepted a ticket of the shop's."""
    run("ticket", "accept", "t", "--party", met[0])
    file = Path(met[0])
    file.write_text(file.read_text(encoding="utf-8").replace("datasets: []\n", DATASETS), encoding="utf-8")
    return met[0]


def found(result: Result) -> dict[str, tuple[str, str, str]]:
    return {each["subject"]: (each["verdict"], each["text"], each["remedy"]) for each in result.json()}


def test_check_and_test_need_no_party(run: Run, new: Path) -> None:
    checked = found(run("dag", "check", DAG, "--json"))
    assert {checked[subject][0] for subject in ("parses", "parse time", "steps")} == {"ok"}
    assert checked["ticket"] == ("note", "not checked: there is no party.yaml", checked["form"][2])
    tried = run("dag", "test", DAG, "--json").json()
    (step,) = tried["steps"]
    assert (tried["leader"], step["step"], step["left_out"]) == ("bank", "column_means", "")
    assert set(step["outcome"]["values"]) == {"bank", "shop"}


def test_new_never_overwrites(run: Run, new: Path) -> None:
    new.write_text("mine", encoding="utf-8")
    assert run("dag", "new", "my_pipeline", expect=1).err.startswith("CONFIG_INVALID · the file is there already")
    assert new.read_text(encoding="utf-8") == "mine"
    assert run("dag", "new", "My Pipeline", expect=1).err.startswith("CONFIG_INVALID · `My Pipeline` is not a name")


def test_examples_are_listed_and_copied_but_never_over_a_file(run: Run, tmp_path: Path) -> None:
    listed = run("dag", "examples", "--json").json()
    assert {Path(file).stem for file in listed} >= {"train_split_nn", "train_secureboost", "offline_psi"}
    assert all(text.endswith(".") for text in listed.values())
    copied = run("dag", "examples", "copies", "--json").json()["copied"]
    assert [Path(file).name for file in copied] == [Path(file).name for file in listed]
    assert all((tmp_path / file).read_bytes() for file in copied)
    assert {Path(file).stat().st_mode & 0o777 for file in copied} == {0o644}  # Airflow may be another user
    (tmp_path / copied[0]).unlink()
    assert run("dag", "examples", "copies", expect=1).err.startswith("CONFIG_INVALID · the file is there already")
    assert not (tmp_path / copied[0]).exists()
    assert [Path(file).stem for file in run("spark", "jobs", "--json").json()] == ["align", "cut", "psi"]


def test_new_function_is_short(new: Path) -> None:
    _, _, body = new.read_text(encoding="utf-8").partition("@fed.task\n")
    assert len(body.partition("\n\n\n")[0].splitlines()) <= 15


def test_check_names_the_ticket_that_covers(run: Run, asking: str, ticket_id: str) -> None:
    Path("train.py").write_text(PIPELINE.format(settings=""), encoding="utf-8")
    checked = found(run("dag", "check", "train.py", "--json", "--party", asking))
    assert checked["ticket"] == ("ok", f"{ticket_id} of shop covers it", "")
    assert checked["form"][1] == "with shop, bank leads, bank: customers"
    assert checked["schedule"] == ("note", "here it only answers", checked["schedule"][2])
    assert "as the side that starts it" in checked["parses"][1]


def test_check_says_which_clause_no_ticket_covers(run: Run, asking: str, ticket_id: str) -> None:
    Path("train.py").write_text(PIPELINE.format(settings='learns="both", min_intersection=0'), encoding="utf-8")
    checked = found(run("dag", "check", "train.py", "--json", "--party", asking, expect=1))
    verdict, text, remedy = checked["ticket"]
    assert (verdict, text.split(":")[:2]) == ("wrong", [ticket_id, " FLOOR_VIOLATED"])
    assert "floor.min_intersection" in text
    assert "fedtasks ticket request" in remedy


TRAINING = """
from fedtasks.airflow.pipeline import FederatedDag, align, intersect, train_split_nn

FederatedDag("train", steps=[intersect(), align(), train_split_nn(label_protection="{by}", max_label_leak={most})])
"""


@pytest.mark.parametrize(
    ("by", "most", "told_before", "subject", "verdict", "words"),
    [
        ("marvell", 60, 0, "labels", "ok", "lets shop read `bought` of `customers` with an AUC of at most 60 %"),
        ("marvell", 55, 10_000, "labels", "ok", "at most 55 % (50 % is guessing), and 56.9 % with what it was told"),
        ("marvell", 60, 10_000, "ticket", "wrong", "LABEL_LEAK_SPENT: shop was told of `bought`"),
        ("none", 100, 0, "ticket", "wrong", "FLOOR_VIOLATED"),
    ],
)
def test_check_says_how_much_a_training_tells_of_the_labels(
    run: Run, asking: str, by: str, most: int, told_before: int, subject: str, verdict: str, words: str
) -> None:
    file = Path(asking)
    file.write_text(file.read_text().replace("    id: person\n", "    id: person\n    label: bought\n"))
    with Store.open(load_party(file).store.url) as store:
        store.label_spends.spend(LabelSpendRow(Labels("shop", "customers", "bought"), "x", told_before, "r", "t"), None)
    Path("train.py").write_text(TRAINING.format(by=by, most=most), encoding="utf-8")
    result = run("dag", "check", "train.py", "--json", "--party", asking, expect=verdict == "wrong")
    checked = found(result)
    assert checked[subject][0] == verdict
    assert words in checked[subject][1]
    assert ("labels" in checked) is (subject == "labels")


def test_check_without_a_ticket_says_what_to_ask_for(run: Run, asking: str, new: Path) -> None:
    checked = found(run("dag", "check", DAG, "--json", "--party", asking, expect=1))
    assert checked["ticket"][0] == "wrong"
    assert checked["ticket"][1] == "TICKET_MISSING: shop has granted no ticket that names `my_pipeline`"
    assert "fedtasks ticket request" in checked["ticket"][2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# airflow dag\nb = 1 / 0", "ZeroDivisionError: division by zero"),
        ("# airflow dag\nimport os\nos._exit(3)", "PROCESS_FAILED"),
        ("# no DAG", "there is no federated pipeline in the file"),
        (PIPELINE.format(settings="key_bits_min=1"), "not between 2048 and 8192"),
    ],
)
def test_check_says_why_a_file_does_not_parse(run: Run, tmp_path: Path, text: str, said: str) -> None:
    Path("dag.py").write_text(text, encoding="utf-8")
    (verdict, found_text, _) = found(run("dag", "check", "dag.py", "--json", expect=1))["parses"]
    assert verdict == "wrong"
    assert said in found_text
    assert "ZeroDivision" not in said or f"{tmp_path / 'dag.py'}:2" in found_text


def test_check_finds_all_that_is_wrong_with_what_a_file_declares(run: Run) -> None:
    Path("dag.py").write_text(
        "import numpy\n"
        "from fedtasks.airflow.pipeline import FederatedDag, Step, align, evaluate, intersect\n"
        'own = [Step("one", "fedtasks.nothing:run"), Step("two", "fedtasks.names:nothing")]\n'
        'FederatedDag("a", steps=[intersect(), align(), evaluate(model_task="align"), *own])',
        encoding="utf-8",
    )
    checked = found(run("dag", "check", "dag.py", "--json", expect=1))
    verdicts = {subject: checked[subject][0] for subject in ("parses", "parse time", "settings", "steps")}
    assert verdicts == {"parses": "ok", "parse time": "warning", "settings": "wrong", "steps": "wrong"}
    assert "numpy" in checked["parse time"][1]
    assert "task `align` is of kind align, and `evaluate` needs: secureboost, split_nn" in checked["settings"][1]
    modules = "one: there is no module fedtasks.nothing; two: fedtasks.names defines no nothing"
    assert checked["steps"][1] == modules


def test_plan_says_what_leaves_and_what_it_spends(run: Run, asking: str, new: Path) -> None:
    told = run("dag", "plan", DAG, "--party", asking).out
    for party in ("bank", "shop"):
        assert f"Leaves {party}:" in told
        assert f"{party} learns" in told
    assert "Spends 1 of `limits.runs`." in told


def test_network_of_ones_own_is_tried_and_described(run: Run, shop: Path, tmp_path: Path) -> None:
    """The shop has no label, and the bank's half is made up."""
    network = tmp_path / "shop" / "tower.py"
    network.write_text(
        "import keras\nfrom fedtasks import Send\n\ndef network(features, settings):\n"
        "    user = Send('user')(keras.layers.Dense(3)(features.matrix()))\n"
        "    model = keras.Model(features.inputs, user)\n    model.compile(optimizer='adam')\n    return model\n",
        encoding="utf-8",
    )
    party = shop / "party.yaml"
    party.write_text(f"{party.read_text(encoding='utf-8')}networks: {{tower: tower.py}}\n", encoding="utf-8")
    pipeline = tmp_path / "train.py"
    pipeline.write_text(
        "from fedtasks.airflow.pipeline import FederatedDag, align, intersect, train_split_nn\n"
        "FederatedDag('t', steps=[intersect(), align(), train_split_nn(network='tower', epochs=1)])",
        encoding="utf-8",
    )
    told = run("dag", "test", str(pipeline), "--party", str(party)).out
    assert "`user` float32 3; with gradients 12 B a row" in " ".join(told.split())
    assert "made up to fit" in told
    network.write_text("import keras\n\ndef network(features, settings):\n    return keras.Nothing()\n")
    refused = run("dag", "test", str(pipeline), "--party", str(party), expect=1).err
    assert "NETWORK_INVALID" in refused
    assert "line 4: AttributeError" in " ".join(refused.split())


def test_bad_conf_is_named(run: Run, new: Path) -> None:
    for conf in ("[]", "{"):  # before anything is parsed
        assert "CONFIG_INVALID" in run("dag", "test", DAG, "--conf", conf, expect=1).err


def test_conf_that_is_no_field_is_refused_with_the_nearest(run: Run, new: Path) -> None:
    refused = run("dag", "test", DAG, "--conf", '{"column_mean": {"decimals": 1}}', expect=1)
    assert "`column_mean` is no field of this pipeline's trigger form; nearest: column_means" in refused.err


def test_check_says_that_a_schedule_cannot_choose_between_datasets(run: Run, asking: str, tmp_path: Path) -> None:
    file = Path(asking)
    text = file.read_text(encoding="utf-8")
    second = "  - {name: second, uri: second.parquet, id: i, features: {x: numeric}}\n"
    text = text.replace("datasets:\n", f"datasets:\n{second}")
    pipeline = tmp_path / "train.py"
    pipeline.write_text(PIPELINE.format(settings=""), encoding="utf-8")
    for schedules, verdict, remedy in (("[]", "note", "Whoever triggers it"), ("[train]", "wrong", "name `dataset`")):
        file.write_text(f"{text}schedules: {schedules}\n", encoding="utf-8")
        expect = 1 if verdict == "wrong" else 0
        checked = found(run("dag", "check", str(pipeline), "--party", asking, "--json", expect=expect))
        assert checked["form"][0] == verdict
        assert "second" in checked["form"][1]
        assert remedy in checked["form"][2]
    named = PIPELINE.format(settings="").replace('"train", ', '"train", dataset="second", ')
    pipeline.write_text(named, encoding="utf-8")
    assert "second" in found(run("dag", "check", str(pipeline), "--party", asking, "--json"))["form"][1]
