"""Where transactions come from: a CSV, a folder of them, or a seeded generator."""

import re
from io import BytesIO

import numpy as np
import polars as pl
from upath import UPath

from flows.platform.address import require_plain_address
from flows.platform.artifact_store import artifact_path, files_in, write
from flows.platform.contract import ContractError

FILES = "train_transaction*.csv"
SYNTHETIC_FILES, SYNTHETIC_ROWS = 2, 30_000
FRAUD_SHARE = 0.035
# Of each column: its values with their shares, and by how much one makes fraud likelier (log odds).
SHAPES: dict[str, dict[str | None, tuple[float, float]]] = {
    "ProductCD": {"W": (0.74, 0), "C": (0.12, 2), "R": (0.06, 0.6), "H": (0.06, 1), "S": (0.02, 1)},
    "card4": {"visa": (0.65, 0), "mastercard": (0.32, 0), "discover": (0.02, 1), None: (0.01, 0)},
    "P_emaildomain": {
        "gmail.com": (0.4, 0.3),
        "yahoo.com": (0.2, 0),
        "outlook.com": (0.1, 1.2),
        "anonymous.com": (0.1, 0.2),
        "protonmail.com": (0.01, 3),
        None: (0.19, 0),
    },
    "R_emaildomain": {None: (0.75, 0), "gmail.com": (0.15, 1), "outlook.com": (0.1, 1.5)},
    "M1": {"T": (0.45, 0), "F": (0.05, 0.2), None: (0.5, 0.4)},
    "M2": {"T": (0.4, 0), "F": (0.1, 0.5), None: (0.5, 0.4)},
    "M3": {"T": (0.35, 0), "F": (0.15, 0.4), None: (0.5, 0.4)},
}


def find_files(data_path: str, store: str) -> list[UPath]:
    """The CSVs of a `data_path`, in order; synthetic ones are made first, in the artifact store.

    Args:
        data_path: a CSV, a folder or `s3://` prefix that holds train_transaction*.csv, or
            `synthetic`.
        store: the artifact store's URI.

    Raises:
        ContractError: there is no such file, or an address of another kind.
        ArtifactStoreError: a folder can't be listed, or the store can't be written.
    """
    require_plain_address(data_path)
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
    """Transactions with IEEE-CIS columns and shares, and a few rows that can't be used.

    Each seed from 1 has TransactionIDs of its own. No row of the data set is copied.
    """
    random = np.random.default_rng(seed)
    dollars = np.exp(random.normal(4.3, 0.9, rows)).round(2)
    suspicion = random.logistic(size=rows) + 0.3 * np.log(dollars)
    columns: dict[str, list[str | None]] = {}
    for name, shape in SHAPES.items():
        shares, odds = np.array([*shape.values()]).T
        drawn = random.choice(len(shape), rows, p=shares)
        suspicion += odds[drawn]
        values = [*shape]
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
