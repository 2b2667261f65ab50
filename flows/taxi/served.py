"""A trip that the served model is asked about."""

from pydantic import Field, NaiveDatetime

from flows.lifecycle.spec import ServedRow

LARGEST_ID = 2**31 - 1
"""Of the contract's 32-bit zones: beyond it scoring can't read them."""


class Trip(ServedRow):
    """A raw trip, as TLC names its columns. Each is needed, and may be null.

    As in scoring, a zone that is missing or that no zone is makes the route unknown, and a distance
    that can't be true becomes the route's usual one.
    """

    lpep_pickup_datetime: NaiveDatetime | None = Field(
        description="New York's local time, without an offset", examples=["2026-05-04T08:30:00"]
    )
    PULocationID: int | None = Field(ge=-LARGEST_ID - 1, le=LARGEST_ID, examples=[74])
    DOLocationID: int | None = Field(ge=-LARGEST_ID - 1, le=LARGEST_ID, examples=[41])
    trip_distance: float | None = Field(description="Miles", examples=[1.9])
