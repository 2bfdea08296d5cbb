"""The daemon's log: one JSON object a line, redacted, in `<state>/log/daemon.log`.

``{"time": "2025-01-31T12:00:00.123Z", "level": "info", "logger": "dragomand.app", "message": "ready", …}``;
what is given as ``extra={"requestId": 7, "connectionId": "c1"}`` (wire names) becomes fields of its own,
and an exception becomes ``exception`` (its traceback). Prompts never go in, only their size
(`dragomand.telemetry.redaction.size_of`).

Standard library's logging with a formatter of our own: structlog costs 14 ms more at every start (a tenth of
what a start may take) for what fifty lines do here, and the libraries' own logging would still come this way.
"""

import logging
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from dragoman.locate import Paths

from dragomand.process.logs import LogFile
from dragomand.settings import Config
from dragomand.telemetry.redaction import Redactor

NAME = "dragomand"
"""The logger that every module's own, ``logging.getLogger(__name__)``, is below of."""

_LONGEST_TEXT = 16_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Turns a record into one line of JSON without secrets; texts are cut at 16 000 characters."""

    def __init__(self, redact: Redactor) -> None:
        """Hide with `redact`."""
        super().__init__()
        self._redact = redact
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._text(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in entry:
                entry[name] = self._field(value)
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = self._text(self.formatException(record.exc_info))
        return self._encode(entry).decode()

    def _field(self, value: Any) -> Any:
        """Return what can be written of a field: a scalar as it is, all else as redacted text or JSON."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._text(value)
        try:
            plain = msgspec.to_builtins(value, enc_hook=str, str_keys=True)
            encoded = self._encode(self._redact.value(plain))
        except (TypeError, ValueError, RecursionError):
            return self._text(repr(value))
        return msgspec.Raw(encoded) if len(encoded) <= _LONGEST_TEXT else self._text(encoded.decode())

    def _text(self, text: str) -> str:
        hidden = self._redact(text)
        cut = hidden if len(hidden) <= _LONGEST_TEXT else hidden[:_LONGEST_TEXT] + "…"
        return cut.encode(errors="replace").decode()  # lone surrogates are no UTF-8


class FileHandler(logging.Handler):
    """Writes each record's line into a `LogFile`."""

    def __init__(self, file: LogFile, redact: Redactor) -> None:
        """Write to `file`; `close` closes it."""
        super().__init__()
        self.file = file
        self.setFormatter(JsonFormatter(redact))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a record that cannot be formatted leaves a line that says so."""
        try:
            line = self.format(record)
        except Exception as failed:  # noqa: BLE001  # a mistake in a log call must not end what was going on
            where = f"{record.pathname}:{record.lineno}"
            text = f"A log line could not be made ({type(failed).__name__}) at {where}"
            line = self.format(logging.makeLogRecord({**_ERROR, "created": record.created, "msg": text}))
        self.file.write(line.encode())

    def close(self) -> None:
        """Close the file too."""
        self.file.close()
        super().close()


_ERROR = {"name": __name__, "levelno": logging.ERROR, "levelname": "ERROR"}


def configure_logging(paths: Paths, config: Config, secrets: Iterable[str] = ()) -> logging.Logger:
    """Send the log to `paths.log_file` and return the daemon's logger. Call it once the lock is held.

    Our own lines are written from `config.log.level` on, the libraries' from ``warning`` on. `secrets` are
    hidden wherever they come up (`secrets_of(env)`). Lines that would have gone elsewhere go there no more.
    Raises `UntrustedError` or `OSError` if the file cannot be used.
    """
    close_logging()
    handler = FileHandler(LogFile(paths.log_file, config.log.max_bytes, config.log.keep), Redactor(secrets))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logger = logging.getLogger(NAME)
    logger.setLevel(config.log.level.upper())
    return logger


def reopen_logging() -> None:
    """Open the log's path anew, after somebody moved the file (SIGHUP)."""
    for handler in _ours():
        handler.file.reopen()


def close_logging() -> None:
    """Write no more: the last step of a stop. Does nothing if nothing was configured."""
    for handler in _ours():
        logging.getLogger().removeHandler(handler)
        handler.close()


def _ours() -> list[FileHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, FileHandler)]
