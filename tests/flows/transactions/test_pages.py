import pytest

from flows.platform.api_client import ApiUnusableError
from flows.transactions.pages import Page, pages


def read(*snapshots: str, total: int = 2) -> list[str]:
    """Read two pages from an API whose answers are of these snapshots, in turn."""
    left = iter(snapshots)

    def fetch(number: int) -> Page:
        sent = [{"id": f"t{number}"}]
        return Page(snapshot=next(left), page=number, pages=2, total=total, transactions=sent)

    return [f"{each.snapshot} {each.page}" for each in pages(fetch)]


def test_a_change_between_pages_begins_anew() -> None:
    assert read("v1", "v1") == ["v1 1", "v1 2"]
    assert read("v1", "v2", "v2", "v2") == ["v1 1", "v2 1", "v2 2"]


def test_transactions_that_never_rest_or_are_missing_are_told() -> None:
    with pytest.raises(ApiUnusableError, match="read 6 times: they changed each time"):
        read(*(f"v{n}" for n in range(12)))
    with pytest.raises(ApiUnusableError, match="read 6 times: it announced 3 and sent 2"):
        read(*["v1"] * 12, total=3)
