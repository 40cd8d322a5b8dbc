"""Raw scores of one person from both halves of boosted trees, read from their `model.json`; needs no fedtasks."""

from __future__ import annotations


def raw_scores(leader: dict, follower: dict, leader_row: dict, follower_row: dict) -> list[float]:
    """Return one score, or one for each class; each side's row has that side's features, None where there is no value.

    There are two rows, since both sides may have a column of one name.
    """
    raw = list(leader["base"])
    for tree in leader["trees"]:
        nodes = {node["number"]: node for node in tree["nodes"]}
        node = nodes[1]
        while node["leaf"] is None:
            if node["condition"]:
                rule, row = node["condition"], leader_row
            else:
                rule, row = follower["splits"][node["peer_split"]]["condition"], follower_row
            node = nodes[2 * node["number"] + (0 if goes_left(rule, row[rule["feature"]]) else 1)]
        raw[tree["output"]] += node["leaf"]
    return raw


def goes_left(rule: dict, value: float | str | None) -> bool:
    """Say which child a value leads to."""
    if rule["threshold"] is None:  # a category, or None for those without one
        return value == rule["category"]
    return rule["missing_left"] if value is None else value <= rule["threshold"]
