"""The stack `rehearsal`, as commands with STACK=rehearsal find it: on an emulator of its own."""

import os

from trainyard.aws.pulumi_cli import Pulumi
from trainyard.aws.stack import down, not_up
from trainyard.contract.naming import REHEARSAL
from trainyard.delivery.images import build
from trainyard.paths import REPO
from trainyard.rehearsal.emulator_session import Session, missing
from trainyard.tools.console import say
from trainyard.tools.errors import StackError


def rehearsal() -> Session:
    """Where the stack `rehearsal` lives; from here on this process is about it."""
    session = Session(REPO / ".trainyard/rehearsal")
    session.alone()
    return session


def opened(*, released: bool = False) -> Pulumi:
    """The rehearsal's `pulumi`: starts its emulator and, unless `released`, builds the images."""
    if lacking := missing():
        raise StackError(f"a rehearsal needs more: {lacking}")
    session = rehearsal()
    images = {} if released else {f"{name}Image": id_ for name, id_ in build().items()}
    session.begin(**images)
    return _on(session)


def found(*, released: bool = False) -> Pulumi:
    """The rehearsal's `pulumi`, as the last command left it; a release's images aren't pinned."""
    session = rehearsal()
    if not session.runs() or not session.project.exists():
        raise not_up(REHEARSAL)
    if released:
        session.unpin_images()
    return _on(session)


def _on(session: Session) -> Pulumi:
    environment = {**session.environment(), **session.deploy_role()}
    os.environ.update(environment)  # boto3 finds the emulator by the same variables
    return session.pulumi(
        environment=environment,
        unlock=f"`make down STACK={REHEARSAL}`",
        create=f"`make up STACK={REHEARSAL}`",
    )


def end_rehearsal() -> None:
    """`make down STACK=rehearsal`: the stack, and its emulator whatever became of the stack."""
    session, why = rehearsal(), ""
    if not session.runs() or not session.project.exists():
        session.stop()  # what is left of an emulator that died, or was killed as it began
        say("no rehearsal of this clone is up")
        return
    try:
        down(_on(session))
        why = session.leftovers()
    except Exception as error:  # such as a state that can't be read
        why = f"{error}"
    session.stop()
    if why:
        raise StackError(f"{why}\nThe emulator is ended all the same, with all that was in it")
