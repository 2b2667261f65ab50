"""The error that a command ends with."""


class StackError(Exception):
    """A command can't go on; the message says what failed, why, and what to do."""
