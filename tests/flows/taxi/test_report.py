import re

from flows.taxi.report import (
    Dataset,
    LoggedModel,
    PreparedMonth,
    StagedModel,
    TrainedModel,
    render,
)

STAGED = StagedModel(name="taxi", version="3", alias="champion", url="http://mlflow/models/3")


def month(name: str, kept: int, **counts: int) -> PreparedMonth:
    return PreparedMonth(
        month=name,
        raw="raw",
        kept="kept",
        course="course",
        quarantine="quarantine" if counts else None,
        rows_read=kept + sum(counts.values()),
        rows_kept=kept,
        counts=counts,
    )


def model(name: str, rmse: float) -> LoggedModel:
    trained = TrainedModel(
        run_id=name, name=name, pipeline="p", rmse_valid=rmse, inference_time=2.5e-6
    )
    return LoggedModel(trained=trained, uri="m", rmse_course=rmse + 1, url=f"http://mlflow/{name}")


def page(
    train: PreparedMonth | None = None,
    valid: PreparedMonth | None = None,
    best: LoggedModel | None = None,
    links: dict[str, str] | None = None,
    staged: StagedModel = STAGED,
) -> str:
    dataset = Dataset(
        train=train or month("2023-01", 10),
        valid=valid or month("2023-02", 20),
        transformer="t",
        train_features="f",
        valid_features="f",
    )
    return render(dataset, model("linear", 5), best or model("trial 2", 4), staged, links or {})


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


def test_both_models_are_compared_with_their_links_and_units() -> None:
    rows = table(page(), "model")
    assert rows == {
        "[linear](http://mlflow/linear)": ["5.000 min", "6.000 min", "2.50 µs"],
        "[trial 2](http://mlflow/trial 2)": ["4.000 min", "5.000 min", "2.50 µs"],
    }


def test_the_page_opens_with_the_version_and_how_good_it_is() -> None:
    title, _, summary = page().splitlines()[:3]
    assert title == "# taxi version 3 is champion"
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
    markdown = page(staged=STAGED.model_copy(update={"champion": "2"}))
    assert markdown.startswith("# taxi version 3 is registered, 2 stays champion")
    assert "Version 2 had a lower one on the same validation month." in markdown
