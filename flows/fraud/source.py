"""Where transactions come from: a CSV, a folder of them, or a seeded generator."""

import re
from io import BytesIO

import numpy as np
import polars as pl
from upath import UPath

from flows.platform.artifact_store import artifact_path, files_in, write
from flows.platform.contract import ContractError

FILES = "train_transaction*.csv"
SYNTHETIC_FILES, SYNTHETIC_ROWS = 2, 30_000
FRAUD_SHARE = 0.035
VALUES: dict[str, list[str | None]] = {
    "ProductCD": ["W", "R", "H", "S", "C"],
    "card4": ["visa", "mastercard", None, "discover"],
    "P_emaildomain": ["gmail.com", None, "yahoo.com", "outlook.com", "protonmail.com"],
    "R_emaildomain": [None, "gmail.com", "outlook.com"],
    **{name: ["T", None, "F"] for name in ("M1", "M2", "M3")},
}
"""Of each column: every value is half as frequent as the one before, and more often a fraud's."""


def find_files(data_path: str, store: str) -> list[UPath]:
    """The CSVs of a `data_path`, in order; synthetic ones are made first, in the artifact store.

    Raises:
        ContractError: there is no such file, or an address of another kind.
    """
    if data_path == "synthetic":
        folder = artifact_path(store, "raw", "synthetic")
        files = [folder / f"train_transaction-{n}.csv" for n in range(1, SYNTHETIC_FILES + 1)]
        for seed, file in enumerate(files, start=1):
            content = BytesIO()
            synthetic_transactions(seed).write_csv(content)
            write(file, content.getvalue())
        return files
    if re.match(r"(?!s3:|file:)\w+://", data_path):
        raise ContractError(f"{data_path}: give a CSV, a folder, an s3:// prefix or synthetic")
    # absolute, because a worker's folder is not the one that the user typed the path in
    path = artifact_path(data_path).expanduser().absolute()
    if path.suffix == ".csv":
        return [path]
    found = files_in(path, FILES)
    if not found:
        has = ", ".join(file.name for file in (files_in(path, "*") or ())[:5]) or "nothing"
        there = "there is no such folder" if found is None else f"the folder has {has}"
        raise ContractError(f"no {FILES} in {path}: {there}; give a CSV's whole path, or synthetic")
    return found


def synthetic_transactions(seed: int, rows: int = SYNTHETIC_ROWS) -> pl.DataFrame:
    """Made-up transactions with columns of IEEE-CIS, and a few rows that can't be used.

    Each seed from 1 has TransactionIDs of its own.
    """
    random = np.random.default_rng(seed)
    dollars = np.exp(random.normal(4.3, 0.9, rows)).round(2)
    suspicion = random.logistic(size=rows) + 0.3 * np.log(dollars)
    columns = {}
    for name, values in VALUES.items():
        shares = 0.5 ** np.arange(len(values))
        drawn = random.choice(len(values), rows, p=shares / shares.sum())
        suspicion += 0.5 * drawn
        columns[name] = [values[index] for index in drawn]
    first = 2_987_000 + (seed - 1) * rows
    unusable = np.arange(rows) % 2000 == 0
    return pl.DataFrame(
        {
            "TransactionID": np.arange(first, first + rows),
            "isFraud": (suspicion > np.quantile(suspicion, 1 - FRAUD_SHARE)).astype(int),
            "TransactionDT": 86_400 + random.integers(0, 180 * 86_400, rows).cumsum() // rows,
            "TransactionAmt": np.where(unusable, -dollars, dollars),
            **columns,
        }
    )
