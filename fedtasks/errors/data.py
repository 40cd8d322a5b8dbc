"""A dataset is not what was declared."""

from __future__ import annotations

from fedtasks.errors.base import DataError


class DataMissing(DataError):
    """Raised when a file or table is not there."""

    code = "DATA_MISSING"
    summary = "A dataset's file is missing"
    remedy = "Put the file in place or correct the dataset's `uri`"


class DataNotLanded(DataError):
    """Raised when a partition of a dataset is not complete; ``dataset`` and ``partition`` name it."""

    code = "DATA_NOT_LANDED"
    retryable = True
    summary = "The partition's data has not landed"
    remedy = "Land the partition with `fedtasks data land`, or choose one that has landed"


class StreamBehind(DataError):
    """Raised when a stream has not come to the end of an interval; ``dataset`` and ``partition`` name it."""

    code = "DATA_STREAM_BEHIND"
    retryable = True
    summary = "The stream has not come to the end of the interval"
    remedy = "See why no newer rows come; a log to which none will come is joined with `final: true`"


class DatasetChanged(DataError):
    """Raised when a dataset is declared otherwise than when the run opened."""

    code = "DATA_DECLARED_ANEW"
    summary = "A dataset is declared otherwise than when the run opened"
    remedy = "Clear `open_run`, so that the run takes up what party.yaml declares now"


class FileInvalid(DataError):
    """Raised when a file is not of its declared format."""

    code = "DATA_FILE_INVALID"
    summary = "A file cannot be read as its declared format"
    remedy = "Correct the file or the dataset's `format`"


class FileForbidden(DataError):
    """Raised when a file is there and this process may not read it."""

    code = "DATA_FILE_FORBIDDEN"
    summary = "A dataset's file may not be read"
    remedy = "Let the user whom Airflow's tasks run as, or whom the dataset names for its database or topic, read it"


class FileUnexpected(DataError):
    """Raised when a dataset's folder holds a file that is neither hidden nor of the declared format."""

    code = "DATA_FILE_UNEXPECTED"
    summary = "A dataset's folder holds a file of another format"
    remedy = "Move the file away, let its name begin with `_`, or name its ending in the dataset's `endings`"


class ColumnMissing(DataError):
    """Raised when a declared column is not in the file."""

    code = "DATA_COLUMN_MISSING"
    summary = "A declared column is missing"
    remedy = "Add the column to the file or remove it from the dataset"


class ColumnType(DataError):
    """Raised when a column's values are not of the declared type."""

    code = "DATA_COLUMN_TYPE"
    summary = "A column has another type than declared"
    remedy = "Correct the file or the declared type"


class EventTimeImplausible(DataError):
    """Raised when the time of an event is not between 2000 and 2100."""

    code = "EVENT_TIME_IMPLAUSIBLE"
    summary = "The time of an event is before 2000 or after 2099"
    remedy = "Correct the `unit` of the dataset's `event_time`, or the row"


class StreamFileChanged(DataError):
    """Raised when a file of a stream is not as it was when it was found."""

    code = "STREAM_FILE_CHANGED"
    summary = "A file of a stream has changed after it was found"
    remedy = "Put the file back as it was, and what is new into a file of its own that is renamed once it is complete"


class StreamMessagesGone(DataError):
    """Raised when a topic does not hold messages any more that belong to a stream."""

    code = "STREAM_MESSAGES_GONE"
    summary = "Messages of a topic are gone before they were joined"
    remedy = "Let the topic keep messages for longer, and join under another name: what is gone cannot be joined"


class ColumnEmpty(DataError):
    """Raised when a feature has no value in any train row."""

    code = "DATA_COLUMN_EMPTY"
    summary = "A feature has no value in any row"
    remedy = "Take the named feature out of the dataset in party.yaml, or fill it"


class ModelNewer(DataError):
    """Raised when a half of a model was written by a newer release, in a way that this one cannot read."""

    code = "MODEL_NEWER"
    summary = "A model was written by a newer release of fedtasks"
    remedy = "Upgrade fedtasks, or use a version that was trained before"


class CategoryUnknown(DataError):
    """Raised when a row to be scored has a category that no train row had."""

    code = "DATA_CATEGORY_UNKNOWN"
    summary = "A category was not seen in training"
    remedy = "Train anew with such rows, or set `unknown: missing` to treat it as no value"


class IdNull(DataError):
    """Raised when no row has an id; rows without one are left out where others have one."""

    code = "DATA_ID_NULL"
    summary = "No row has an id"
    remedy = "Name the column that identifies people in the dataset's `id`, or complete it"


class IdLong(DataError):
    """Raised when an id has more bytes than an intersection can take."""

    code = "DATA_ID_LONG"
    summary = "An id is longer than 65,535 bytes"
    remedy = "Correct the row: what stands there is hardly an id, as when a quote is never closed"


class IntersectionEmpty(DataError):
    """Raised when the parties share no one, or fewer people than the privacy floor asks for."""

    code = "DATA_INTERSECTION_EMPTY"
    who = "both"
    summary = "The two sides share too few ids"
    remedy = "Check that both ids mean the same and are normalised alike (`fedtasks doctor --data`)"


class NothingJoined(DataError):
    """Raised when there is no joined row that a run could train on."""

    code = "DATA_NOTHING_JOINED"
    summary = "No row has been joined that the run could train on"
    remedy = "Run the pipeline that joins the two streams first, and look with `fedtasks joins` what it has joined"


class LabelInvalid(DataError):
    """Raised when the label is missing, constant, or held by both parties."""

    code = "DATA_LABEL_INVALID"
    who = "both"
    summary = "The label cannot be used"
    remedy = "Exactly one party declares a label, and it has at least two different values"


class DataCorrupt(DataError):
    """Raised when a file does not match its manifest."""

    code = "DATA_CORRUPT"
    summary = "A file does not match its manifest"
    remedy = "Clear the task that wrote the file"
