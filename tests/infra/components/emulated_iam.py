"""An emulator's IAM, as tests ask it."""

from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

HERE = "000000000000"  # the emulator's account


def client(url: str, service: str, **credentials: str) -> Any:
    """An AWS client with these credentials; without any, root's."""
    given = credentials or {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", **given)


def refused(call: Callable[[], Any]) -> bool:
    """Whether IAM says no. Any other error comes from behind it."""
    try:
        call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return "AccessDenied" in code or code in (
            "UnauthorizedOperation",
            "AuthorizationError",
            "403",
        )
    return False
