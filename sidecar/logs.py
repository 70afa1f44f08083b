"""Logs on standard error: JSON, a line a record, or text for people."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from sidecar.settings import LogSettings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode  # json.dumps would make one for each line


def set_up(settings: LogSettings) -> None:
    """Send all records to standard error in the form that the settings name."""
    form = settings.format or ("text" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    # grpc's debug log says more than the sidecar's, and botocore's holds the secret that it read.
    for library in ("asyncio", "boto3", "botocore", "grpc", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_holds_no_metadata)


def _holds_no_metadata(record: logging.LogRecord) -> bool:
    """Of what grpc logs: it shows metadata that is no UTF-8, and that may be a token."""
    return not str(record.msg).startswith("Invalid encoding")


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _printable(text: str) -> str:
    """On one line, and without what a terminal obeys: a caller chose some of it."""
    return "".join(part if part.isprintable() else ascii(part)[1:-1] for part in text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, what the record carries beyond, and an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter.format."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


class TextFormatter(logging.Formatter):
    """Time, level, message and what the record carries beyond; what is not printable is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter.format."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = "".join(f"  {name}={value}" for name, value in _extra(record).items())
        text = f"{time} {record.levelname:<7} {_printable(record.getMessage() + extra)}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
