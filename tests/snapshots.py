"""Snapshots that are files to read, in `__snapshots__/<test module>/`."""

from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode


class Markdown(SingleFileSnapshotExtension):
    """A text that a browser of the repository renders."""

    _write_mode = WriteMode.TEXT
    file_extension = "md"


class Json(Markdown):
    """A document that is text already."""

    file_extension = "json"


class Diff(Markdown):
    """What differs from a document."""

    file_extension = "diff"
