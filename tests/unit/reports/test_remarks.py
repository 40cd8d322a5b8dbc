"""What halves remark, in words: of the attempt that counts, a few in a line."""

from __future__ import annotations

import pytest

from fedtasks.kinds import Remark, remark_metric, remark_text
from fedtasks.registry import declared
from fedtasks.reports.remarks import in_a_line, remarks_of
from fedtasks.store import MetricRow
from tests.support.report_rows import RUN_ID, make_half


def row(task: str, name: str, step: int = 1, value: float = 1.0) -> MetricRow:
    return MetricRow(RUN_ID, task, name, step, value, 0)


@pytest.mark.parametrize("remark", declared("REMARKS").values(), ids=lambda remark: remark.name)
def test_remark_is_a_sentence_about_this_partys_half(remark: Remark) -> None:
    text = remark_text(remark_metric(remark.name, "a {b}.c"), 12_345.0, "shop")
    assert "{about}" not in text
    assert not text.endswith(".")
    if "{about}" in remark.text:
        assert "a {b}.c" in text  # also of a feature whose name looks like a field
    if "{count}" in remark.text:
        assert "12,345" in text


def test_remarks_are_those_of_the_attempt_that_counts() -> None:
    halves = [make_half("train", "succeeded", attempt=2), make_half("evaluate", "succeeded")]
    rows = [
        row("train", remark_metric("no_value", "income"), step=1),
        row("train", remark_metric("no_value", "age"), step=2),
        row("evaluate", remark_metric("unseen", "job"), value=7),
        row("evaluate", remark_metric("unheard_of")),
        row("evaluate", "auc"),
        row("predict", remark_metric("unseen", "job")),
    ]
    first, second = remarks_of(rows, halves, "shop")
    assert first.startswith("train: feature `age` has no value")
    assert second.startswith("evaluate: feature `job`: 7 rows")


def test_line_has_a_few_remarks_and_says_how_many_there_are_more() -> None:
    assert in_a_line([]) == ""
    assert in_a_line(["a", "b"]) == "a · b"
    assert in_a_line(["a", "b", "c", "d"]) == "a · b · 2 more remarks on the page"
