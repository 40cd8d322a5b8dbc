"""The documents tell what is there: links lead somewhere, generated pages are current, commands exist."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedtasks import config
from fedtasks.dataclass_io import decides_privacy
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.settings import EvaluateSettings, PredictSettings
from fedtasks.models.split_nn.settings import TrainSettings as NetworkSettings
from fedtasks.registry import declared

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SECTIONS = (
    config.Party,
    config.Gateway,
    config.Peer,
    config.Dataset,
    config.Feature,
    config.EventTime,
    config.Kafka,
    config.Sql,
    config.Store,
    config.Airflow,
    config.Spark,
    config.Hdfs,
    config.S3,
    config.Notify,
    config.Logs,
    config.Keep,
)

TREES, NETWORK = "secureboost.md", "split-network.md"
DOCUMENTED = [
    *((TREES, declared) for declared in (TrainSettings, EvaluateSettings, PredictSettings)),
    (NETWORK, NetworkSettings),
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_source_files_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:fedtasks|dags|spark_jobs|protos|tests|docs)/[\w/.-]+)`", text))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_shown_from_a_source_file_stands_in_it(page: Path) -> None:
    shown = re.findall(r"<!-- ([\w/]+\.py) -->\n```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert [name for name, code in shown if code not in (ROOT / name).read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("generator", sorted((ROOT / "docs").glob("generate_*.py")), ids=lambda path: path.stem)
def test_generated_page_is_what_is_declared(generator: Path) -> None:
    done = subprocess.run([sys.executable, generator, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["protocol.md", "threat-model.md"])
def test_every_message_of_this_distribution_stands_in_a_table(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    tables = "".join(re.findall(r"<!-- messages: .*?<!-- end of messages -->", text, re.DOTALL))
    listed = re.findall(r"^\|(?: [\w, ]+ \|)? `([\w -]+?)(?:-NNNNN)?`", tables, re.MULTILINE)
    assert sorted(listed) == sorted(declared("MESSAGES"))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_party_page_documents_every_field(section: type) -> None:
    text = (ROOT / "docs" / "party-yaml.md").read_text(encoding="utf-8")
    _, _, part = text.partition(f"<!-- {section.__name__} -->")
    table = part.partition("<!-- ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(documented) == sorted(field.name for field in dataclasses.fields(section))


@pytest.mark.parametrize(("page", "declared"), DOCUMENTED, ids=lambda each: getattr(each, "__name__", each))
def test_page_of_an_algorithm_documents_settings_defaults_and_which_decide_privacy(page: str, declared: type) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text.partition(f"<!-- {declared.__name__} -->")[2].partition("\n#")[0]
    documented = re.findall(r"^\| `(\w+)`( ●)? \| (.*?) \|", table, re.MULTILINE)
    assert documented == [
        (field.name, " ●" if decides_privacy(field) else "", str(field.default) or "–")
        for field in dataclasses.fields(declared)
    ]


def test_adrs_are_numbered_without_a_gap_and_short() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 50, page.name
        headings = re.findall(r"^## (\w+)$", text, re.MULTILINE)
        assert headings == ["Status", "Context", "Decision", "Consequences"], page.name
