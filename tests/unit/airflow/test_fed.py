"""`@fed.task`: a plain function as a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedtasks.airflow import fed
from fedtasks.errors import ConfigError
from fedtasks.runtime.function import entry_at


@fed.task
def plain(link: Any, config: Any, data: Any) -> dict[str, Any]:
    """Count."""
    return {"rows": 1}


@fed.task(rounds=3, name="x")
def tuned(link: Any, config: Any, data: Any) -> dict[str, Any]:
    return {"rounds": config.settings["rounds"]}


def test_task_becomes_a_step_that_runs_it_from_its_file() -> None:
    step = plain()
    assert (step.name, step.entry, dict(step.settings)) == ("plain", f"{__file__}:plain", {})
    assert plain.__doc__ == "Count."


def test_settings_have_defaults_that_a_pipeline_changes() -> None:
    assert dict(tuned().settings) == {"rounds": 3, "name": "x"}
    assert dict(tuned(rounds=5).settings) == {"rounds": 5, "name": "x"}
    with pytest.raises(ConfigError, match="it has: rounds, name"):
        tuned(round=5)


def test_function_must_take_link_config_and_data_and_stand_at_the_top() -> None:
    with pytest.raises(ConfigError, match="takes data, link, not link, config, data"):
        fed.task(lambda data, link: {})
    with pytest.raises(ConfigError, match="must stand at the top of its file"):

        @fed.task
        def inner(link: Any, config: Any, data: Any) -> dict[str, Any]:
            return {}


FUNCTION = """
from fedtasks.airflow import fed

@fed.task
def means(link, config, data):
    {comment}
    return {{"value": {value}}}
"""


def digest(folder: Path, text: str, name: str) -> str:
    file = folder / f"{name}.py"
    file.write_text(text, encoding="utf-8")
    space: dict[str, Any] = {}
    exec(compile(text, str(file), "exec"), space)
    return str(space["means"]().digest)


def test_digest_follows_the_code_and_neither_its_place_nor_its_comments(tmp_path: Path) -> None:
    base = digest(tmp_path, FUNCTION.format(comment='"""One."""', value=1), "a")
    assert digest(tmp_path, FUNCTION.format(comment="# two", value=1), "b") == base
    assert digest(tmp_path, FUNCTION.format(comment='"""One."""', value=2), "c") != base


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("nothing", "is neither"),
        ("fedtasks.nothing:run", "cannot be imported"),
        ("fedtasks.names:nothing", "cannot be imported"),
        ("/nowhere/file.py:means", "cannot be imported"),
        (f"{__file__}:test_settings_have_defaults_that_a_pipeline_changes", "cannot be imported"),
    ],
)
def test_entry_that_is_not_there_is_named(entry: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        entry_at(entry)
