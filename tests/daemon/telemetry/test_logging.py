import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import Paths, UntrustedError, find_paths
from dragomand.process.paths import prepare
from dragomand.settings import Config, LogSettings
from dragomand.telemetry.logging import FileHandler, close_logging, configure_logging, reopen_logging
from dragomand.telemetry.redaction import HIDDEN


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    paths = find_paths({"HOME": str(tmp_path)})
    prepare(paths)
    root, ours = logging.getLogger(), logging.getLogger("dragomand")
    levels = root.level, ours.level
    yield paths
    close_logging()
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_line_is_one_json_object(paths: Paths) -> None:
    logger = configure_logging(paths, Config())
    logger.info("turn %s\nbegins", "t1", extra={"requestId": 7, "connectionId": "c1", "ok": True, "of": None})
    (line,) = lines(paths.log_file)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "dragomand",
        "message": "turn t1\nbegins",
        "requestId": 7,
        "connectionId": "c1",
        "ok": True,
        "of": None,
    }
    assert os.stat(paths.log_file).st_mode & 0o777 == 0o600


def test_the_time_is_utc_to_the_millisecond(paths: Paths) -> None:
    configure_logging(paths, Config())
    record = logging.makeLogRecord({"name": "dragomand", "levelno": 40, "levelname": "ERROR", "msg": "x"})
    record.created, record.msecs = 1_738_324_800.0625, 62.5
    logging.getLogger().handle(record)
    assert lines(paths.log_file)[0]["time"] == "2025-01-31T12:00:00.062Z"


def test_secrets_are_hidden_everywhere(paths: Paths) -> None:
    logger = configure_logging(paths, Config(), ["hunter22"])
    logger.warning("hunter22 %s", "hunter22", extra={"text": "hunter22", "deep": {"hunter22": ["hunter22"]}})
    try:
        raise ValueError("it was hunter22")
    except ValueError:
        logger.exception("failed")
    text = Path(paths.log_file).read_text()
    assert "hunter" not in text
    assert HIDDEN in text
    assert "ValueError: it was" in lines(paths.log_file)[1]["exception"]


def test_any_field_can_be_written(paths: Paths) -> None:
    logger = configure_logging(paths, Config())
    loop: list[Any] = []
    loop.append(loop)
    logger.info(
        "fields",
        extra={
            "path": Path("/a"),
            "paths": [Path("/b")],
            "config": Config().query,
            "loop": loop,
            "lone": "\udcff",
            "lones": ["\udcff"],
            "nan": float("nan"),
            "long": "é" * 20_000,
            "many": ["x" * 20_000],
        },
    )
    (line,) = lines(paths.log_file)
    assert line["path"] == "/a"
    assert line["paths"] == ["/b"]
    assert line["config"] == {"timeoutMs": 600_000}
    assert line["loop"] == "[[...]]"
    assert line["lone"] == "?"
    assert line["lones"] == r"['\udcff']"
    assert line["nan"] is None
    assert line["long"] == "é" * 16_000 + "…"
    assert line["many"].startswith('["xxx')
    assert len(line["many"]) == 16_001


def test_a_mistake_in_a_log_call_leaves_a_line(paths: Paths) -> None:
    """Given to the handler alone: that of pytest's own would raise."""
    configure_logging(paths, Config())
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, FileHandler))
    handler.handle(logging.LogRecord("dragomand", 20, __file__, 5, "%d", ("hunter22",), None))
    (line,) = lines(paths.log_file)
    assert line["level"] == "error"
    assert "TypeError" in line["message"]
    assert "test_logging.py" in line["message"]
    assert line["time"] > "2024"


def test_levels(paths: Paths) -> None:
    logger = configure_logging(paths, Config(log=LogSettings(level="warning")))
    logger.info("no")
    logging.getLogger("dragomand.engine").warning("yes")
    logging.getLogger("asyncio").info("no")
    logging.getLogger("asyncio").warning("yes")
    assert [line["logger"] for line in lines(paths.log_file)] == ["dragomand.engine", "asyncio"]


def test_configured_twice_it_writes_once(paths: Paths) -> None:
    configure_logging(paths, Config())
    configure_logging(paths, Config()).info("once")
    assert len(lines(paths.log_file)) == 1


def test_after_the_close_nothing_is_written(paths: Paths) -> None:
    logger = configure_logging(paths, Config())
    close_logging()
    close_logging()
    logger.warning("nobody")
    assert lines(paths.log_file) == []


def test_somebody_moves_the_file_and_tells_us(paths: Paths) -> None:
    logger = configure_logging(paths, Config())
    logger.info("one")
    os.rename(paths.log_file, f"{paths.log_file}.moved")
    logger.info("two")
    reopen_logging()
    logger.info("three")
    assert [line["message"] for line in lines(f"{paths.log_file}.moved")] == ["one", "two"]
    assert [line["message"] for line in lines(paths.log_file)] == ["three"]


def test_the_settings_bound_the_file(paths: Paths) -> None:
    logger = configure_logging(paths, Config(log=LogSettings(max_bytes=4096, keep=2)))
    for number in range(200):
        logger.info("line %d", number)
    found = sorted(os.listdir(paths.log_dir))
    assert found == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    assert all(os.path.getsize(os.path.join(paths.log_dir, name)) <= 4096 for name in found)
    assert lines(paths.log_file)[-1]["message"] == "line 199"


def test_a_file_that_cannot_be_used(paths: Paths) -> None:
    os.mkfifo(paths.log_file)
    reader = os.open(paths.log_file, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(UntrustedError, match="not a file of our own"):
        configure_logging(paths, Config())
    os.close(reader)
