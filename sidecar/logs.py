"""Logs on standard error: JSON, one line a record, or text for people.

The sidecar never waits for the reader of its log. Lines of one kind are limited to a few a second, and the log says how
many were left out; LOG_LEVEL=debug has no limit.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from contextlib import nullcontext
from datetime import UTC, datetime

from prometheus_client import Counter

from sidecar.format import legible, legible_json
from sidecar.output import Output
from sidecar.settings import LogSettings

_STANDARD_ERROR = 2
_LINES_AT_ONCE, _LINES_A_SECOND = 10, 5  # of one kind
_MAX_KINDS = 256
_LAST_SECONDS = 0.5

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_encode = json.JSONEncoder(default=str, ensure_ascii=False).encode  # json.dumps would make an encoder for each line


def set_up(settings: LogSettings, fd: int = _STANDARD_ERROR) -> Handler:
    """Send all records to standard error, in the format that the settings name."""
    form = settings.format or ("text" if os.isatty(fd) else "json")
    handler = Handler(fd, limited=settings.level != "debug")
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    # At debug level grpc logs more lines than the sidecar, and botocore logs the secret that it read.
    for library in ("asyncio", "boto3", "botocore", "grpc", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_has_no_metadata)
    return handler


def leaves_out(logger: str, message: str) -> bool:
    """Whether a record of this logger and message need not be made: no line of it may be written now. It is counted.

    A record takes 20 us, and with Redis away there may be thousands a second.
    """
    handlers = logging.getLogger().handlers
    return len(handlers) == 1 and isinstance(handlers[0], Handler) and handlers[0].leaves_out(logger, message)


def count_left_out(counter: Counter) -> None:
    """Count the lines that are left out from now on, by reason."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.left_out = counter


def _has_no_metadata(record: logging.LogRecord) -> bool:
    """A filter: grpc logs metadata that is not UTF-8, and it may be a token."""
    return not str(record.msg).startswith("Invalid encoding")


class _Kind:
    """The lines that one log statement writes: a few at once, then a few a second."""

    __slots__ = ("at", "credit", "left_out", "level", "logger", "message", "since")

    def __init__(self, record: logging.LogRecord) -> None:
        """`record`: the first of them."""
        self.logger, self.level, self.message = record.name, record.levelno, str(record.msg)
        self.credit, self.at = float(_LINES_AT_ONCE), 0.0
        self.left_out, self.since = 0, 0.0

    def is_due(self, now: float) -> bool:
        """Whether another line may be written now; if not, it is counted as left out."""
        if self.leaves_out(now):
            return False
        self.credit -= 1
        return True

    def leaves_out(self, now: float) -> bool:
        """Whether no line may be written now; then one is counted as left out."""
        self.credit = min(self.credit + (now - self.at) * _LINES_A_SECOND, _LINES_AT_ONCE)
        self.at = now
        if self.credit >= 1:
            return False
        if not self.left_out:
            self.since = now
        self.left_out += 1
        return True


class Handler(logging.Handler):
    """Writes each record as a line, in a thread, and leaves out what exceeds the limits."""

    def __init__(self, fd: int, *, limited: bool) -> None:
        """`limited`: whether lines of one kind are limited to a few a second."""
        super().__init__()
        self.left_out: Counter | None = None
        self._limited = limited
        self._kinds: dict[tuple[str, str | None], _Kind] = {}
        self._unread = 0
        self._output = Output(fd, failed=lambda lines, _: self._count("unread", lines), every_second=self._report)

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler.emit."""
        try:
            if self._limited and not self._is_due(record):
                self._count("repeated")
            else:
                self._put(record)
        except Exception:  # noqa: BLE001 - a record that cannot be formatted ends no caller's work
            self.handleError(record)

    def leaves_out(self, logger: str, message: str) -> bool:
        """Whether a record of this logger and message would be left out now. It is counted, and need not be made."""
        with self.lock or nullcontext():
            kind = self._kinds.get((logger, message)) if self._limited else None
            if kind is None or not kind.leaves_out(time.monotonic()):
                return False
        self._count("repeated")
        return True

    def write(self, line: str) -> None:
        """Write a line that is not a record."""
        with self.lock or nullcontext():
            self._report_unread()
            if self._unread or not self._enqueue(line):
                self._unread += 1
                self._count("unread")

    def close(self) -> None:
        """Report what was left out, and write the waiting lines, for at most half a second."""
        self._report(at_last=True)
        self._output.close(_LAST_SECONDS)
        super().close()

    def _is_due(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        message = str(record.msg)
        kind = self._kinds.get((record.name, message))
        if kind is None:
            if len(self._kinds) >= _MAX_KINDS:
                self._kinds = {key: known for key, known in self._kinds.items() if now - known.at < 1 or known.left_out}
            # Texts that differ each time would be kinds without end: those above the limit share one.
            key = (record.name, message if len(self._kinds) < _MAX_KINDS else None)
            kind = self._kinds.setdefault(key, _Kind(record))
        if now - kind.since >= 1:
            self._end(kind)
        return kind.is_due(now)

    def _report(self, *, at_last: bool = False) -> None:
        """Write how many lines were left out of each kind whose second is over; of all kinds `at_last`."""
        now = time.monotonic()
        with self.lock or nullcontext():
            for kind in self._kinds.values():
                if at_last or now - kind.since >= 1:
                    self._end(kind)
            self._report_unread()

    def _end(self, kind: _Kind) -> None:
        if kind.left_out:
            self._put(_left_out(kind.logger, kind.level, kind.left_out, f"more lines like this one: {kind.message}"))
            kind.left_out = 0

    def _report_unread(self) -> None:
        if self._unread:
            about = _left_out(__name__, logging.WARNING, self._unread, "lines, since nobody read standard error")
            if self._enqueue(self.format(about)):
                self._unread = 0

    def _enqueue(self, line: str) -> bool:
        return self._output.put(line.encode(errors="backslashreplace") + b"\n")

    def _put(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))

    def _count(self, reason: str, lines: int = 1) -> None:
        if self.left_out is not None:
            self.left_out.labels(reason).inc(lines)


class Stream(io.TextIOBase):
    """For sys.stderr: what does not go through logging, such as warnings, is written by the handler, too."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._rest = ""

    def write(self, text: str) -> int:
        """Write the complete lines; the rest waits for its end."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._handler.write(line)
        return len(text)


def _left_out(logger: str, level: int, count: int, what: str) -> logging.LogRecord:
    about = {"name": logger, "levelno": level, "levelname": logging.getLevelName(level), "left_out": count}
    return logging.makeLogRecord({"msg": f"left out {count} {what}", **about})


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the record's extra fields and its exception."""

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
        return legible_json(_encode(line))


class TextFormatter(logging.Formatter):
    """Time, level, message and the record's extra fields; characters that are not printable are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter.format."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = "".join(f"  {name}={value}" for name, value in _extra(record).items())
        text = f"{time} {record.levelname:<7} {legible(record.getMessage() + extra)}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
