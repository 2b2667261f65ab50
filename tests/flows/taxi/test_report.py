import re

from flows.lifecycle.gate import Verdict
from flows.lifecycle.holdout import Holdout
from flows.taxi.report import ComparedModel, Dataset, Part, PreparedMonth, TrainedModel, render

VERDICT = Verdict(
    model="taxi", version="3", champion=None, promoted=True, reason="the first one", limits={}
)
HOLDOUT = Holdout(
    uri="h", sha256="0", rows=1, held_out_by=["duration"], data="2023-02", data_sha256="1"
)


def month(name: str, kept: int, **counts: int) -> PreparedMonth:
    return PreparedMonth(
        month=name,
        file="raw",
        sha256="0",
        kept="kept",
        course="course",
        quarantine="quarantine" if counts else None,
        rows_read=kept + sum(counts.values()),
        rows_kept=kept,
        counts=counts,
    )


def model(name: str, rmse: float) -> ComparedModel:
    trained = TrainedModel(
        run_id=name, name=name, pipeline="p", rmse_valid=rmse, inference_time=2.5e-6
    )
    return ComparedModel(
        trained=trained, uri="m", rmse_course=rmse + 1, url=f"http://mlflow/{name}"
    )


def page(
    train: PreparedMonth | list[PreparedMonth] | None = None,
    valid: PreparedMonth | None = None,
    best: ComparedModel | None = None,
    links: dict[str, str] | None = None,
    verdict: Verdict = VERDICT,
) -> str:
    dataset = Dataset(
        train=train if isinstance(train, list) else [train or month("2023-01", 10)],
        valid=valid or month("2023-02", 20),
        valid_rows="v",
        holdout=HOLDOUT,
        durations=(1, 60),
        transformer="t",
        train_features=["f"],
        valid_features="f",
    )
    return render(dataset, model("linear", 5), best or model("trial 2", 4), verdict, links or {})


def table(markdown: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table that `heading` starts, by their first cell."""
    lines = iter(markdown.splitlines())
    next(line for line in lines if line.startswith(f"| {heading} |"))
    next(lines)
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        first, *others = (cell.strip() for cell in line.strip("|").split("|"))
        rows[first] = others
    return rows


def test_a_months_quarantined_rows_are_those_of_its_rules() -> None:
    assert month("2023-01", 90, zero=7, late=3).rows_quarantined == 10
    assert month("2023-01", 90).rows_quarantined == 0


def test_every_row_read_is_kept_or_quarantined_by_a_rule() -> None:
    markdown = page(month("2023-01", 66_010, zero=2_000, late=201), month("2023-02", 50, late=4))
    rows = {
        label: [int(cell.replace(",", "")) for cell in cells]
        for label, cells in table(markdown, "rows").items()
    }
    assert rows == {
        "rows read": [68_211, 54],
        "rows kept": [66_010, 50],
        "rows quarantined": [2_201, 4],
        "- late": [201, 4],
        "- zero": [2_000, 0],
    }
    assert "| rows | 2023-01 (train) | 2023-02 (validate) |" in markdown


def test_the_rows_of_several_training_months_are_counted_together() -> None:
    trained_on = [month("2022-12", 60, zero=7), month("2023-01", 40, late=2)]
    shown = page(trained_on, month("2023-02", 50, late=4))
    assert table(shown, "rows") == {
        "rows read": ["109", "54"],
        "rows kept": ["100", "50"],
        "rows quarantined": ["9", "4"],
        "- late": ["2", "4"],
        "- zero": ["7", "0"],
    }
    assert "| rows | 2022-12 to 2023-01 (train) | 2023-02 (validate) |" in shown


def test_the_rows_of_one_month_are_told_once_with_what_became_of_them() -> None:
    whole = month("2023-02", 1_000, zero=20)
    early, late = (
        whole.model_copy(update={"part": Part(first=first, last=last, rows=rows)})
        for first, last, rows in ((1, 21, 600), (22, 28, 210))
    )
    assert table(page(early, late), "rows") == {
        "rows read": ["1,020"],
        "rows kept": ["1,000"],
        "rows quarantined": ["20"],
        "- zero": ["20"],
        "days 1 to 21 (train)": ["600"],
        "days 22 to 28 (validate)": ["210"],
        "held out": ["190"],
    }
    assert "| rows | 2023-02 |" in page(early, late)


def test_both_models_are_compared_with_their_links_and_units() -> None:
    rows = table(page(), "model")
    assert rows == {
        "[linear](http://mlflow/linear)": ["5.000 min", "6.000 min", "2.50 µs"],
        "[trial 2](http://mlflow/trial 2)": ["4.000 min", "5.000 min", "2.50 µs"],
    }


def test_the_page_opens_with_the_version_and_how_good_it_is() -> None:
    title, _, summary = page().splitlines()[:3]
    assert title == "# taxi version 3 is the new champion: the first one"
    assert "**trial 2**" in summary
    assert "**4.00 minutes**, 20% below the linear baseline" in summary


def test_a_baseline_that_won_is_listed_once_and_not_compared_with_itself() -> None:
    markdown = page(best=model("linear", 5))
    assert len(re.findall(r"^\| \[linear\]", markdown, re.MULTILINE)) == 1
    assert "below the linear baseline" not in markdown


def test_links_that_there_are_end_the_page() -> None:
    markdown = page(links={"Prefect run": "", "Model": "http://mlflow/models/3"})
    assert markdown.splitlines()[-1] == "- Model: [http://mlflow/models/3](http://mlflow/models/3)"
    assert "Prefect run" not in markdown


def test_a_link_with_parameters_is_as_it_is_written() -> None:
    url = "http://mlflow/#/experiments/7/runs?workflowType=machine_learning&orderByAsc=true"
    assert page(links={"MLflow": url}).splitlines()[-1] == f"- MLflow: [{url}]({url})"


def test_the_courses_rows_are_explained_where_they_stand() -> None:
    after = page().partition("the course's rows |")[2]
    assert "The course's rows are those that the tutorial's filter keeps: 1 to 60 min" in after


def test_a_version_that_another_one_beats_is_said_to_be() -> None:
    lost = {"promoted": False, "champion": "2", "reason": "it isn't better"}
    markdown = page(verdict=VERDICT.model_copy(update=lost))
    assert markdown.startswith("# taxi version 3 is registered, kept champion v2: it isn't better")
