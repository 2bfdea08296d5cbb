"""docs/options.md: its table has every option of the SDK, and what it names is there."""

import dataclasses
import re
from pathlib import Path

import pytest
from claude_agent_sdk import ClaudeAgentOptions
from dragoman_protocol.query import QueryRunParams
from dragomand.engine import agents

PAGE = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
TABLE = PAGE.partition("## The SDK's options")[2]
ROWS = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*)\|$", TABLE, re.MULTILINE)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def test_every_option_of_the_sdk_has_a_row() -> None:
    assert [name for name, _, _ in ROWS] == [field.name for field in dataclasses.fields(ClaudeAgentOptions)]


@pytest.mark.parametrize(("name", "here", "remark"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_row_names_is_there(name: str, here: str, remark: str) -> None:
    known = {camel(field) for field in QueryRunParams.__struct_fields__}
    if here.startswith("`") and "/" not in here:
        assert set(re.findall(r"`(\w+)`", here)) <= known
    elif here.startswith("not"):
        assert remark.strip(), f"{name}: why not?"


def test_every_option_of_ours_is_on_the_page() -> None:
    of_the_query = {"prompt", "message_id", "upstream", "priority", "timeout_ms", "queue_timeout_ms",
                    "partial_result_token", "title", "tags", "session_id"}  # fmt: skip
    missing = [name for name in QueryRunParams.__struct_fields__
               if name not in of_the_query and f"`{camel(name)}" not in PAGE]  # fmt: skip
    assert missing == []


def test_the_presets_on_the_page_are_those_that_are_shipped() -> None:
    folder = Path(agents.__file__).parents[1] / "agents"
    shipped = {group.name: {file.stem for file in group.iterdir()} for group in folder.iterdir()}
    table = re.findall(r"^\| (\w+) \| ((?:`\w+` ?)+) ?\|$", PAGE, re.MULTILINE)
    assert {group: set(re.findall(r"`(\w+)`", names)) for group, names in table} == shipped
