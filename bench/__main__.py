"""What `make bench` measures; each kind writes its section of docs/performance.md."""

import sys

from cyclopts import App
from rich.console import Console

from bench import scale as scales
from bench import serving, taxi
from trainyard.tools.command_line import options_given_to_make, run, usage_error

app = App(
    name="bench",
    help_format="plaintext",
    version_flags=[],
    config=options_given_to_make,
    error_formatter=usage_error,
)


@app.default
def main(
    *,
    data: str = "synthetic",
    train: str = "2023-01",
    valid: str = "2023-02",
    serve: bool = False,
    scale: bool = False,
) -> None:
    """Compare the taxi pipeline with others' ways, as ratios, and write docs/performance.md.

    Parameters
    ----------
    data
        A folder of TLC's months, or synthetic ones.
    train
        The month to train on, as YYYY-MM.
    valid
        The month to validate on, as YYYY-MM.
    serve
        Compare how the trained model is served with `mlflow models serve` instead (5 minutes).
    scale
        Train on 0.1 to 20 million synthetic rows instead (5 minutes, 3 GB of disk).
    """
    names, console = (train, valid), Console()
    if serve:
        serving.main(data, names, console)
    elif scale:
        scales.main(console)
    else:
        taxi.main(data, names, console)


if __name__ == "__main__":
    sys.exit(run(app, None))
