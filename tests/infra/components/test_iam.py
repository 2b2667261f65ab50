"""Policy documents: narrow, or with a reason."""

import pytest

from infra.components import iam


def test_a_statement_leaves_out_what_is_empty() -> None:
    assert iam.allow("Read", "s3:GetObject", on=["arn:aws:s3:::b/*"]).rendered() == {
        "Sid": "Read",
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": ["arn:aws:s3:::b/*"],
    }


def test_everything_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="made by `anywhere`"):
        iam.allow("Read", "s3:GetObject", on=["*"])
    with pytest.raises(ValueError, match="why it can't be narrower"):
        iam.anywhere("Read", "s3:GetObject")
    with pytest.raises(ValueError, match="name the resources"):
        iam.allow("Read", "s3:GetObject", on=[])


def test_two_statements_of_one_name_are_refused() -> None:
    read = iam.allow("Read", "s3:GetObject", on=["arn:aws:s3:::b/*"])
    with pytest.raises(ValueError, match="different Sids"):
        iam.document(read, read)
