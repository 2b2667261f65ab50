"""A monitored month as one HTML file: what is past its limit, and how each column has moved."""

import base64
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flows.lifecycle.drift import Shift

if TYPE_CHECKING:
    from flows.lifecycle.monitoring import Monitored

BARS = 15
"""Of more bins, those that have moved the most are shown."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .6rem; text-align: left; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 0 1 29rem; }
td:first-child { color: #b00020; font-weight: bold; }
img { width: 100%; }
"""


def render(monitored: "Monitored") -> str:
    """The page, with all that it needs in it."""
    limits = pd.DataFrame(
        [
            ("past" if check.past else "", check.name, check.found, check.limit, check.reason)
            for check in monitored.checks
        ],
        columns=["", "check", "found", "limit", "because"],
    )
    title = escape(f"{monitored.model} in {monitored.when}")
    rows = "rows of logged requests" if monitored.of == "served" else "rows"
    done = "answered" if monitored.of == "served" else "scored"
    about = (
        f"{monitored.rows:,} {rows} that version {monitored.version} has {done}, against "
        f"{monitored.reference_rows:,} of {monitored.reference}, which it was chosen on. The true "
        f"value is known of {monitored.truths:,} of them. {monitored.note} "
        f"Flow run {monitored.flow_run}."
    )
    plots = "\n".join(_figure(shift) for shift in monitored.shifts)
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>
<body>
<h1>{title}</h1>
<p><strong>{escape(monitored.summary)}</strong></p>
<p>{escape(about)}</p>
{limits.to_html(index=False, border=0)}
<h2>Columns and predictions</h2>
<p>Share of the rows in each bin: grey in the reference, blue in the month. The number is the
population stability index: 0 where nothing has moved.</p>
<div class="plots">
{plots}
</div>
</body>
</html>
"""


def _figure(shift: Shift) -> str:
    """One column's bins, as a picture in the page."""
    before, now = np.array(shift.before), np.array(shift.now)
    shown = np.sort(np.argsort(-np.abs(now - before), kind="stable")[:BARS])
    places = np.arange(len(shown))
    from matplotlib.figure import Figure  # half of what starting a run would take

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(places - 0.2, before[shown], 0.4, color="#aaa", label="reference")
    axes.bar(places + 0.2, now[shown], 0.4, color="#1f6fd0", label="month")
    # as they are: between two $ matplotlib would read a formula, and fail where it is none
    names = [shift.bins[i][:12] for i in shown]
    axes.set_xticks(places, names, rotation=45, ha="right", parse_math=False)
    axes.set_title(f"{shift.column}: {shift.stability:.3f}", parse_math=False)
    axes.set_ylabel("share of rows")
    axes.legend()
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    data = base64.b64encode(picture.getvalue()).decode()
    about = escape(f"{shift.column}: stability index {shift.stability:.3f}", quote=True)
    return f'<figure><img alt="{about}" src="data:image/png;base64,{data}"></figure>'
