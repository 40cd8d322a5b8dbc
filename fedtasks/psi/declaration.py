"""What private set intersection and alignment declare: kinds of steps, and clauses that bound them."""

from __future__ import annotations

from fedtasks.kinds import Kind, Remark
from fedtasks.psi.settings import AlignSettings, PsiSettings
from fedtasks.tickets.clauses import Clause, Per

KINDS = (
    Kind("psi", "fedtasks.psi.offline:run", PsiSettings, forks=True),
    Kind("align", "fedtasks.psi.align:run", AlignSettings, forks=True),
)

CLAUSES = (
    Clause(
        "floor.min_intersection",
        "Fewest shared people that a run may ask for: with fewer, both sides stop before they learn who they are",
        default=1,
    ),
    Clause(
        "floor.pad_rows", "Least multiple that a run may ask for sizes to be rounded up to, with made-up ids", default=1
    ),
    Clause(
        "outputs.intersection",
        "Who may learn which people are shared: size (nobody, only how many), client, or both",
        default="both",
        choices=("size", "client", "both"),
    ),
    Clause(
        "outputs.held_out",
        "What may decide which rows are held out for the test: person (a hash that both know), label (draws of the "
        "leader, alike in each class), partition (the leader's newest rows), column (what the leader declares)",
        default="person",
        choices=("person", "label", "partition", "column"),
    ),
    Clause(
        "outputs.id_shapes",
        "What both may learn of how the other's ids are written, when few people are shared or a join rate has halved: "
        "none, or classes (forms and lengths with their shares, never an id)",
        default="none",
        choices=("none", "classes"),
        kept_by="both halves of an intersection or a join: without it they say nothing of their ids",
    ),
    Clause("limits.ids_blinded", "How many ids of the holder may be signed", per=Per.LIFE, counts="ids_blinded"),
    Clause("limits.ids_blinded_per_day", "How many ids of the holder may be signed", per=Per.DAY, counts="ids_blinded"),
)

REMARKS = (
    Remark(
        "suspicious",
        "feature `{about}`: in a sample of its rows {count} things may harm a model, such as numbers that stand for a "
        "missing value; the log of this task and `fedtasks doctor --data` name them",
    ),
    Remark(
        "few_shared",
        "{count} people are shared, few for both sides; if more were expected, the log of this task says how the ids "
        "here and those of {peer} are written",
    ),
)
