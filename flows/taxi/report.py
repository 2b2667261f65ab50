"""What a training run tells people: its values, and the page that shows them."""

from collections.abc import Iterator

from pydantic import BaseModel

from flows.lifecycle.gate import Verdict
from flows.lifecycle.holdout import Holdout, SeenData
from flows.platform.quarantine import KeptFile


class Part(BaseModel):
    """Some days of a month, and how many rows of them a run uses."""

    first: int
    last: int
    rows: int


class PreparedMonth(KeptFile):
    """A month after the contract."""

    month: str
    course: str
    rows_read: int
    rows_kept: int
    part: Part | None = None
    """Where `kept` and `course` have no other days' rows, and none that are held out."""

    @property
    def label(self) -> str:
        """The month, and which days of it."""
        days = f", days {self.part.first} to {self.part.last}" if self.part else ""
        return f"{self.month}{days}"

    @property
    def slug(self) -> str:
        """The same, as a part of a file's name."""
        return self.label.replace(", ", "-").replace(" ", "-")

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
    """The months to train on and the one to validate on, or both parts of one, and what was made
    of them.
    """

    train: list[PreparedMonth]
    """Oldest first."""
    valid: PreparedMonth
    valid_rows: str
    """The validation month's kept rows that the search sees."""
    holdout: Holdout
    """Its other kept rows."""
    durations: tuple[float, float]
    """The shortest and the longest trip that was kept, in minutes."""
    transformer: str
    """Fitted on the training months only."""
    train_features: list[str]
    valid_features: str

    @property
    def train_label(self) -> str:
        """The training months, or which days of one."""
        first, last = self.train[0].label, self.train[-1].label
        return first if first == last else f"{first} to {last}"

    @property
    def train_rows(self) -> int:
        """How many rows a model is fitted to."""
        return sum(month.part.rows if month.part else month.rows_kept for month in self.train)


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
        f"{model.trained.name} of experiment '{experiment}', trained on {dataset.train_label}, "
        f"validated on {dataset.valid.label}: RMSE {model.trained.rmse_valid:.3f} min, "
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
    shortest, longest = dataset.durations
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
            *_rows_table(dataset),
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


def _rows_table(dataset: Dataset) -> Iterator[str]:
    """How many rows each month has, as Markdown's lines."""
    train, valid = dataset.train, dataset.valid
    columns = {f"{dataset.train_label} (train)": train, f"{valid.month} (validate)": [valid]}
    if valid.part:
        columns = {valid.month: [valid]}
    rows = {
        "rows read": [sum(each.rows_read for each in months) for months in columns.values()],
        "rows kept": [sum(each.rows_kept for each in months) for months in columns.values()],
        "rows quarantined": [
            sum(each.rows_quarantined for each in months) for months in columns.values()
        ],
    }
    for rule in sorted({rule for each in [*train, valid] for rule in each.counts}):
        rows[f"- {rule}"] = [
            sum(each.counts.get(rule, 0) for each in months) for months in columns.values()
        ]
    if (early := train[0].part) and (late := valid.part):
        rows |= {
            f"days {early.first} to {early.last} (train)": [early.rows],
            f"days {late.first} to {late.last} (validate)": [late.rows],
            "held out": [valid.rows_kept - early.rows - late.rows],
        }
    yield f"| rows | {' | '.join(columns)} |"
    yield f"|---{'|---:' * len(columns)}|"
    for label, numbers in rows.items():
        yield f"| {label} | {' | '.join(f'{number:,}' for number in numbers)} |"
