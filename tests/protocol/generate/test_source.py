"""What is read from the source text: docs, spellings, homes of names."""

import ast

import pytest
from dragoman_protocol.query import QueryRunParams
from dragoman_protocol.session import SessionInfo
from generate import source  # type: ignore[import-not-found,unused-ignore]


def test_fields_carry_their_wire_name_default_and_doc() -> None:
    fields = {field.name: field for field in source.fields(SessionInfo)}
    assert fields["created_at"] == ("created_at", "createdAt", "float", None, "Unix seconds.", "session")
    assert fields["cwd"].default == "None"
    assert fields["state"].doc == ""


def test_required_fields_come_first_and_inherited_ones_last() -> None:
    names = [field.name for field in source.fields(QueryRunParams)]
    assert names[0] == "prompt"
    assert names.index("title") < names.index("model")
    assert len(names) == len(set(names)) == len(QueryRunParams.__struct_fields__)


def test_aliases() -> None:
    alias = source.aliases("query")["Priority"]
    assert alias.annotation == "Literal['interactive', 'batch']"
    assert alias.doc
    assert "EPHEMERAL" not in source.aliases("stream")


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("query", "Prompt", "dragoman_protocol.content"),
        ("query", "Priority", "dragoman_protocol.query"),
        ("query", "Literal", "typing"),
    ],
)
def test_home_of_a_name(module: str, name: str, home: str) -> None:
    assert source.home_of(module, name) == home


def test_names_in_an_annotation() -> None:
    assert sorted(source.names_in("dict[str, Any] | list[Prompt] | None")) == ["Any", "Prompt"]


def test_doc_stands_below_its_assignment_only() -> None:
    body = ast.parse("a: int\n'of  a'\nb: int\nc: int\n1\n").body
    assert [source.doc_after(body, at) for at in (0, 2, 4)] == ["of a", "", ""]


def test_numbers_of_requirements_are_left_out() -> None:
    assert source.plain("Run one (00.17, 03.2), now (requirements 01.3 to 01.6).") == "Run one, now."
    assert source.plain("Takes (1.5) and (2026).") == "Takes (1.5) and (2026)."
