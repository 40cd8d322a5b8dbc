"""Commands about joined streams: `joins`, `joins show`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from fedtasks.cli.output import (
    PARTY,
    AsJson,
    PartyFile,
    completion,
    console,
    examples,
    group,
    moment,
    open_store,
    print_json,
    print_listing,
    print_table,
)
from fedtasks.config import load_party

joins_app = group(
    "Streams that are joined with peers: how far each is, and what became of its rows.", no_args_is_help=False
)

app = group()
app.add_typer(joins_app, name="joins")

_COLUMNS = {
    "stream": "stream",
    "peer": "peer",
    "shards": "n_shards",
    "commits": "commits",
    "last commit (UTC)": "committed",
    "decided up to (UTC)": "watermark",
    "rows joined": "rows",
    "join rate": "rate",
}
_WINDOW = (
    "Window (UTC)",
    "Join rate",
    "Joined",
    "Corrected",
    "No counterpart",
    "Late",
    "Too late",
    "Duplicates",
    "Rejected",
    "Lag",
)


@joins_app.callback(invoke_without_command=True, epilog=examples("joins", "joins --json"))
def joins(context: typer.Context, party: PartyFile = PARTY, as_json: AsJson = False) -> None:
    """List every stream with every peer: its shards, its last commit, and how many rows find a counterpart."""
    if context.invoked_subcommand is not None:
        return
    from fedtasks.reports.joins import stream_reports

    with open_store(load_party(party)) as store:
        found = [{name: each[name] for name in each if name != "windows"} for each in stream_reports(store)]
    rows = found if as_json else [_line(each) for each in found]
    print_listing(rows, _COLUMNS, as_json=as_json, empty="No stream was joined yet: run a pipeline with a step `join`")


@joins_app.command(epilog=examples("joins show clicks", "joins show clicks --windows 200 --json"))
def show(
    stream: Annotated[
        str,
        typer.Argument(
            metavar="STREAM",
            help="The stream's name.",
            autocompletion=completion(lambda store: sorted({row.stream for row in store.joins.list()})),
        ),
    ],
    windows: Annotated[int, typer.Option(min=1, help="How many windows of event time, the newest.")] = 20,
    party: PartyFile = PARTY,
    as_json: AsJson = False,
) -> None:
    """Show a stream shard by shard, and window by window of event time."""
    from fedtasks.reports.joins import stream_report

    with open_store(load_party(party)) as store:
        found = stream_report(store, stream)
    for each in found:
        each["windows"] = each["windows"][-windows:]
    if as_json:
        print_json(found)
        return
    from fedtasks.cli.run_view import join_table

    for each in found:
        console().print(join_table(each))
        print_table(["Shard", "Commit", "Made (UTC)", "By run", "Digest"], list(_shards(each)), empty="")
        print_table(_WINDOW, list(_windows(each)), empty="No rows were counted yet")


def _line(found: Mapping[str, Any]) -> dict[str, Any]:
    watermark = found["watermark_ms"]
    return {
        **found,
        "n_shards": len(found["shards"]),
        "committed": moment(found["at_ms"]),
        "watermark": moment(int(watermark)) if watermark else "",
        "rows": f"{found['joined'] + found['corrected']:,}",
        "rate": _share(found["join_rate"]),
    }


def _shards(found: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for shard in found["shards"]:
        yield shard["shard"], shard["number"], moment(shard["at_ms"]), shard["run_id"], shard["digest"][:16]


def _windows(found: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    names = ("joined", "corrected", "unmatched", "late", "too_late", "duplicates", "rejected")
    for window in found["windows"]:
        rate = "open" if window["is_open"] else _share(window["join_rate"])
        lag = "" if window["lag_s"] is None else f"{window['lag_s']:,.1f} s"
        yield moment(window["start_ms"]), rate, *(f"{window[name]:,}" for name in names), lag


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
