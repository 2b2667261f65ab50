"""Whom the delivery roles trust."""

from infra.components.delivery_roles import subject


def test_a_subject_is_githubs_immutable_form() -> None:
    assert subject("acme/rides", "11", "22", "prod") == "repo:acme@11/rides@22:environment:prod"
