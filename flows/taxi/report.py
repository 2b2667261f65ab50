"""What a training run tells people: its values, and the page that shows them."""

from pydantic import BaseModel

from flows.lifecycle.gate import Verdict
from flows.lifecycle.holdout import Holdout, SeenData
from flows.platform.quarantine import KeptFile


class PreparedMonth(KeptFile):
    """A month after the contract."""

    month: str
    course: str
    rows_read: int
    rows_kept: int

    @property
    def rows_quarantined(self) -> int:
        """All rows that were not kept."""
        return sum(self.counts.values())

    def as_seen(self, held_out_by: list[str]) -> SeenData:
        """For the record of what a model has seen."""
        name = f"green_tripdata {self.month}"
        return SeenData(
            name=name,
            sha256=self.sha256,
            uri=self.file,
            rows=self.rows_kept,
            held_out_by=held_out_by,
        )


class Dataset(BaseModel):
    """Both months, and what was fitted on the training month."""

    train: PreparedMonth
    valid: PreparedMonth
    valid_rows: str
    """The validation month's kept rows that the search sees."""
    holdout: Holdout
    """Its other kept rows."""
    durations: tuple[float, float]
    """The shortest and the longest trip that was kept, in minutes."""
    transformer: str
    train_features: str
    valid_features: str


class TrainedModel(BaseModel):
    """A model that a run of the experiment trained."""

    run_id: str
    name: str
    pipeline: str
    """Where it lies in the artifact store."""
    rmse_valid: float
    """Minutes, on the validation month's kept rows that aren't held out."""
    inference_time: float
    """Seconds per row."""


class ComparedModel(BaseModel):
    """A trained model after it was logged to MLflow."""

    trained: TrainedModel
    uri: str
    rmse_course: float
    """Minutes, on the rows of the validation month that the course's filter keeps."""
    url: str


def description(dataset: Dataset, model: ComparedModel, experiment: str) -> str:
    """Of the version that the model becomes, a sentence."""
    return (
        f"{model.trained.name} of experiment '{experiment}', trained on {dataset.train.month}, "
        f"validated on {dataset.valid.month}: RMSE {model.trained.rmse_valid:.3f} min, "
        f"{model.trained.inference_time:.2e} s per row"
    )


def render(
    dataset: Dataset,
    baseline: ComparedModel,
    best: ComparedModel,
    verdict: Verdict,
    links: dict[str, str],
) -> str:
    """The report as Markdown."""
    train, valid = dataset.train, dataset.valid
    shortest, longest = dataset.durations
    rows = [
        ("rows read", train.rows_read, valid.rows_read),
        ("rows kept", train.rows_kept, valid.rows_kept),
        ("rows quarantined", train.rows_quarantined, valid.rows_quarantined),
    ]
    rows += [
        (f"- {rule}", train.counts.get(rule, 0), valid.counts.get(rule, 0))
        for rule in sorted(train.counts.keys() | valid.counts.keys())
    ]
    best_wins = best.trained.run_id != baseline.trained.run_id
    improvement = 1 - best.trained.rmse_valid / baseline.trained.rmse_valid
    comparison = f", {improvement:.0%} below the linear baseline" if best_wins else ""
    return "\n".join(
        [
            f"# {verdict.summary}",
            "",
            f"**{best.trained.name}** predicts a trip's duration with an RMSE of "
            f"**{best.trained.rmse_valid:.2f} minutes**{comparison}.",
            "",
            f"| rows | {train.month} (train) | {valid.month} (validate) |",
            "|---|---:|---:|",
            *(f"| {label} | {first:,} | {second:,} |" for label, first, second in rows),
            "",
            "| model | RMSE, kept rows | RMSE, the course's rows | inference per row |",
            "|---|---:|---:|---:|",
            *(
                f"| [{model.trained.name}]({model.url}) | {model.trained.rmse_valid:.3f} min "
                f"| {model.rmse_course:.3f} min | {model.trained.inference_time * 1e6:.2f} µs |"
                for model in ((baseline, best) if best_wins else (baseline,))
            ),
            "",
            f"The course's rows are those that the tutorial's filter keeps: {shortest:g} to "
            f"{longest:g} minutes long, whatever else is wrong with them. Errors on them compare "
            "with published ones.",
            "",
            # not <url>: Prefect's pages escape the & of such a link twice
            *(f"- {label}: [{url}]({url})" for label, url in links.items() if url),
        ]
    )
