"""Which rows are held out, who has seen them, and on which ones two models are compared."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.lifecycle.holdout import (
    Holdout,
    HoldoutError,
    SeenData,
    common_holdout,
    held_out,
    keep_holdout,
    load_kept,
)
from flows.platform.artifact_store import ArtifactStoreError
from tests.flows.lifecycle.models import data, things

SCHEMA = {
    "count": pl.Int32,
    "weight": pl.Float64,
    "kind": pl.String,
    "paid": pl.Boolean,
    "at": pl.Datetime("us"),
}
ROW = st.tuples(
    st.none() | st.integers(0, 9),
    st.none() | st.sampled_from([0.5, 1.5]),
    st.none() | st.sampled_from(["a", "b"]),
    st.none() | st.booleans(),
    st.none() | st.sampled_from([datetime(2024, 5, 1) + timedelta(days=day) for day in range(9)]),
)


def frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def test_a_fifth_is_held_out() -> None:
    assert 0.18 < float(held_out(things(4000)).mean()) < 0.22  # type: ignore[arg-type]


@given(rows=st.lists(ROW, min_size=1, max_size=30), others=st.lists(ROW, max_size=5))
def test_whether_a_row_is_held_out_depends_on_nothing_but_the_row(
    rows: list[tuple[object, ...]], others: list[tuple[object, ...]]
) -> None:
    """Not on its place, nor on rows that come with it in a corrected month."""
    alone = [held_out(frame([row])).item() for row in rows]
    assert held_out(frame(rows)).to_list() == alone
    assert held_out(frame([*others, *rows])).to_list()[len(others) :] == alone


def test_the_order_of_rows_does_not_matter() -> None:
    rows = things(400)
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    one, other = (each.filter(held_out(each)).sort("x") for each in (rows, shuffled))
    assert one.equals(other)


def test_equal_rows_go_together() -> None:
    twice = pl.concat([things(400)] * 2)
    kept, unseen = (twice.filter(which) for which in (~held_out(twice), held_out(twice)))
    assert unseen.join(kept, on=twice.columns).is_empty()


def holdout(name: str = "may", sha256: str = "") -> Holdout:
    of = data(name)
    return Holdout(
        uri=f"{name}.parquet",
        sha256="",
        rows=9,
        held_out_by=of.held_out_by,
        data=name,
        data_sha256=sha256 or of.sha256,
    )


def whole(name: str) -> SeenData:
    return data(name, held_out_by=[])


@pytest.mark.parametrize(
    ("seen", "by"),
    [
        ([data("may")], ""),
        ([whole("april")], ""),
        ([whole("april"), whole("may")], "may"),
        ([data("may"), whole("may")], "may"),
        ([whole("may").model_copy(update={"sha256": "corrected since"})], "may"),
        ([whole("may").model_copy(update={"name": "renamed"})], "renamed"),
        ([data("may", held_out_by=["x", "y", "shelf", "new"])], "may"),
        ([], ""),
    ],
)
def test_who_has_seen_a_data_set_whole_or_without_other_rows_has_seen_its_holdout(
    seen: list[SeenData], by: str
) -> None:
    assert holdout().seen_by(seen) == by


@pytest.mark.parametrize(
    ("i_saw", "they_saw", "rows"),
    [
        ([data("june")], [data("may")], "june"),
        ([data("june"), whole("may")], [data("may")], "june"),
        ([data("june")], [data("may"), whole("june")], "may"),
    ],
)
def test_the_challengers_rows_come_first_then_the_champions(
    i_saw: list[SeenData], they_saw: list[SeenData], rows: str
) -> None:
    assert common_holdout((holdout("june"), i_saw), (holdout("may"), they_saw)).data == rows


def test_without_rows_that_neither_has_seen_the_message_says_who_saw_what() -> None:
    mine = holdout("june"), [data("june"), whole("may")]
    theirs = holdout("may"), [data("may"), whole("june")]
    said = (
        "the champion was trained on june, .* and this model on may, .*"
        "Train on months after the champion's"
    )
    with pytest.raises(HoldoutError, match=said):
        common_holdout(mine, theirs)


def test_held_out_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = things(40)
    kept = keep_holdout(rows, "tested", str(tmp_path), data("may"))
    assert load_kept(kept).equals(rows)
    assert (kept.rows, kept.data, kept.data_sha256) == (40, "may", data("may").sha256)
    assert keep_holdout(rows, "tested", str(tmp_path), data("may")) == kept
    assert [path.name for path in tmp_path.rglob("*.parquet")] == [f"{kept.sha256}.parquet"]


def test_a_holdout_that_was_changed_is_refused(tmp_path: Path) -> None:
    kept = keep_holdout(things(40), "tested", str(tmp_path), data("may"))
    things(40, seed=1).write_parquet(kept.uri)
    with pytest.raises(HoldoutError, match=f"{kept.sha256}.parquet isn't what was recorded"):
        load_kept(kept)
    Path(kept.uri).unlink()
    with pytest.raises(ArtifactStoreError):
        load_kept(kept)


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_rows_are_no_holdout(tmp_path: Path, count: int) -> None:
    said = f"may: {count} of its rows are held out, and a comparison needs 10; train on more data"
    with pytest.raises(HoldoutError, match=said):
        keep_holdout(things(40).head(count), "tested", str(tmp_path), data("may"))
    assert not list(tmp_path.iterdir())
