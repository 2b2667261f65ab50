"""`make drift STACK=`: what was changed in AWS since the last `make up`, by hand or by others.

Nothing is written, to AWS or to the state, so the role that only looks is enough. The report is
.trainyard/drift.md.
"""

from collections.abc import Callable, Sequence

from trainyard.aws.preview import Change, PreviewResult, preview_refresh
from trainyard.aws.pulumi_cli import Pulumi, typed
from trainyard.contract.naming import READY, RELEASE, RELEASES, Names
from trainyard.paths import REPO
from trainyard.tools.console import say
from trainyard.tools.errors import StackError
from trainyard.tools.gh import gh

REPORT = REPO / ".trainyard/drift.md"
# Parameters that `make up` and `make release` write: made by Pulumi, changed by others.
WRITTEN = (READY, RELEASE, RELEASES)


def look(pulumi: Pulumi) -> PreviewResult:
    names = Names(pulumi.stack)
    left_out = [
        # To look at them is to read the secrets, which who only looks may not.
        "**aws:secretsmanager/secretVersion:SecretVersion::**",
        *(f"**aws:ssm/parameter:Parameter::{names(part)}" for part in WRITTEN),
    ]
    found = preview_refresh(pulumi, left_out)
    if found.failed:
        raise StackError("\n".join(found.problems))
    return found


def report(stack: str, changes: Sequence[Change]) -> str:
    if not changes:
        return f"`{stack}` is as Trainyard made it: no drift.\n"
    prefix = f"{Names(stack).prefix}-"
    again = "`make bootstrap`" if stack == "account" else f"`make up STACK={stack}`"
    rows = [
        f"| {c.kind} | {c.name.removeprefix(prefix)} "
        f"| {'is gone' if c.operation == 'delete' else ', '.join(c.properties)} |"
        for c in sorted(changes, key=lambda change: (change.kind, change.name))
    ]
    return "\n".join(
        [
            f"`{stack}` isn't as Trainyard made it. What differs in AWS:",
            "",
            "| resource | name | what differs |",
            "|---|---|---|",
            *rows,
            "",
            f"{typed(stack, 'refresh --preview-only --diff')} shows the values. Then either",
            f"- undo it: {typed(stack, 'refresh')}, then {again};",
            "- or keep it: change settings or program to say the same, and push.",
            "",
        ]
    )


def keep_issue(stack: str, changes: Sequence[Change]) -> str:
    """Have one open issue on GitHub while there is drift, and none otherwise."""
    label = f"drift:{stack}"
    found = gh(
        *("issue", "list", "--label", label, "--state", "open", "--limit", "1"),
        *("--json", "number", "--jq", ".[].number"),
    )
    if changes and found:
        gh("issue", "edit", found, "--body-file", str(REPORT))
        return f"issue {found} says so"
    if changes:
        gh("label", "create", label, "--force", "--description", f"{stack} isn't as it was made")
        title = f"{stack} has drifted"
        return gh(
            *("issue", "create", "--title", title, "--label", label, "--body-file", str(REPORT))
        )
    if found:
        gh("issue", "close", found, "--comment", f"`{stack}` is as Trainyard made it again.")
        return f"issue {found} is closed"
    return "no issue is open"


def drift(stack: str, open_stack: Callable[[], Pulumi], *, issue: bool = False) -> int:
    """Look, report, and give the exit code: 0 no drift, 2 drift, 1 it couldn't be found out."""
    REPORT.parent.mkdir(exist_ok=True)
    try:
        changes = look(open_stack()).changes
    except StackError as error:
        REPORT.write_text(f"It couldn't be found out whether `{stack}` drifted:\n\n{error}\n")
        raise
    REPORT.write_text(report(stack, changes))
    say(REPORT.read_text().rstrip())
    if issue:
        say(keep_issue(stack, changes))
    return 2 if changes else 0
