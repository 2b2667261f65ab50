"""What the flow refuses, and what its schema does: Prefect's page and API go by that alone."""

import pytest
from prefect.utilities.schema_tools.validation import is_valid
from pydantic import TypeAdapter, ValidationError

from flows.platform.address import Address

ADDRESS = TypeAdapter(Address)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("https://me:s3cret@host/months", "has a user, a password or a query"),
        ("HTTPS://s3cret@host/months", "has a user, a password or a query"),
        ("https://me:s3cr/et@host/s3cret", "has a user, a password or a query"),
        ("https://host/months?sig=s3cret", "has a user, a password or a query"),
        ("http://host/months#s3cret", "has a user, a password or a query"),
        ("https:/me:s3cret@host/months", "has a user, a password or a query"),
        ("//me:s3cret@host/months", "has a user, a password or a query"),
        ("me:s3cret@host/months", "has a user, a password or a query"),
        ("s3://key:s3cret@bucket/months", "has a user, a password or a query"),
        ("${TRAINYARD_DATA}", "should match pattern"),
        ("", "should match pattern"),
    ],
)
def test_schema_and_flow_refuse_the_same(data: str, why: str) -> None:
    with pytest.raises(ValidationError) as error:
        ADDRESS.validate_python(data)
    (said,) = error.value.errors()
    assert why in said["msg"]
    assert "s3c" not in said["msg"]
    assert not is_valid(data, ADDRESS.json_schema())


@pytest.mark.parametrize(
    "data",
    ["synthetic", "tlc", "/data/a@b", "who?", "a:b", "#1", "s3://bucket/a#1", "https://host:1/a/b"],
)
def test_schema_and_flow_take_the_same(data: str) -> None:
    assert ADDRESS.validate_python(data) == data
    assert is_valid(data, ADDRESS.json_schema())
