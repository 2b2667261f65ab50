"""Sizes: the pairs that Fargate has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.contract.fargate_sizes import MEMORY_OF, Size


@pytest.mark.parametrize(("cpu", "memory"), [(256, 4096), (256, 256), (300, 512), (4096, 512)])
def test_pairs_that_fargate_lacks_are_refused(cpu: int, memory: int) -> None:
    with pytest.raises(ValueError, match="Fargate has no"):
        Size(cpu, memory)


@given(st.sampled_from([(c, m) for c, all_of in MEMORY_OF.items() for m in all_of]))
def test_pairs_that_fargate_has_are_taken(pair: tuple[int, int]) -> None:
    assert Size(*pair)
