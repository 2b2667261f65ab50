"""Containers on Fargate."""

from infra.components.fargate import Container


def test_a_container_without_an_image_names_none_that_could_start() -> None:
    assert (
        Container(image="", command=("true",)).definition("x", "g", "r")["image"] == "image-not-set"
    )
