"""Both halves of `column_means` on sample data, without Airflow."""

from __future__ import annotations

from pathlib import Path

DAG = Path(__file__).with_name("column_means.py")


def test_both_sides_learn_both_means(run_both):
    ended = run_both(DAG, conf={"column_means": {"decimals": 1}}, partition="2026-11-21")
    found = ended["bank"]["column_means"]["values"]
    assert found == ended["shop"]["column_means"]["values"]
    assert [len(found["bank"]), len(found["shop"])] == [2, 2]
    assert all(mean == round(mean, 1) for means in found.values() for mean in means)
