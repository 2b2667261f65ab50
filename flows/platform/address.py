"""Where data is, as a flow's parameter: without secrets, which would end up in logs."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

# Python's and JavaScript's: a user in an address, however it is written, or a web address's query
CREDENTIAL = r".*://.*@|.*@.*://|([A-Za-z][A-Za-z\d+.-]*:/?|//)[^/]*@|[Hh][Tt][Tt][Pp][Ss]?:.*[?#]"
FILLED = r"[^${}]+"


def require_plain_address(data: str) -> None:
    """Refuse an address with a user, a password or a query: it would end up in names and logs.

    Raises:
        ValueError: it has one; the message doesn't repeat it.
    """
    if re.match(CREDENTIAL, data, re.DOTALL):
        raise ValueError(
            "the address in data has a user, a password or a query, such as a key, in it: give it "
            "without (https://host/folder, s3://bucket/prefix; S3's keys come from the "
            "environment), or a folder that holds the files"
        )


def _plain(given: object) -> object:
    if isinstance(given, str):
        require_plain_address(given)
    return given


# its sentence in a run's error, the pattern in the schema that Prefect's page and API go by
Address = Annotated[
    str,
    Field(pattern=f"^{FILLED}$", json_schema_extra={"pattern": rf"^(?!{CREDENTIAL}){FILLED}$"}),
    BeforeValidator(_plain),
]
"""A flow's parameter, refused by the flow's schema if it has a secret or unfilled variable."""
