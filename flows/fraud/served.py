"""A card transaction that the served model is asked about."""

from typing import Annotated

from pydantic import Field

from flows.lifecycle.spec import ServedRow

# as in the contract; a CSV has no empty text, only a missing one
Category = Annotated[str, Field(min_length=1, max_length=100)]


class Transaction(ServedRow):
    """Columns of IEEE-CIS, with the ranges of the contract. Each is needed; categories may be null.

    The model doesn't take a transaction's number.
    """

    TransactionAmt: float = Field(gt=0, le=1_000_000, description="Dollars", examples=[68.5])
    ProductCD: Category | None = Field(examples=["W"])
    card4: Category | None = Field(examples=["visa"])
    P_emaildomain: Category | None = Field(examples=["gmail.com"])
    R_emaildomain: Category | None = Field(examples=[None])
    M1: Category | None = Field(examples=["T"])
    M2: Category | None = Field(examples=["T"])
    M3: Category | None = Field(examples=["T"])
