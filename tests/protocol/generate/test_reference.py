"""The page for people names everything, and its links lead somewhere."""

import re

import pytest
from dragoman_protocol.errors import BY_KIND
from dragoman_protocol.methods import METHODS
from generate import reference, schema  # type: ignore[import-not-found,unused-ignore]

PAGE = reference.render()
HEADINGS = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)


def test_everything_has_its_heading_once() -> None:
    for name in [*METHODS, *(struct.__name__ for struct in schema.structs()), "PermissionMode", "ErrorBody"]:
        assert HEADINGS.count(name) == 1, name


def test_links_lead_somewhere() -> None:
    anchors = {reference._anchor(heading) for heading in HEADINGS}
    assert len(anchors) == len(HEADINGS)
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= anchors


def test_errors_are_all_listed() -> None:
    for row in BY_KIND.values():
        assert f"| `{row.kind}` | {row.code} |" in PAGE


def test_examples_are_shown() -> None:
    for file in reference.EXAMPLES.glob("*/*.json"):
        assert f"Example: {file.stem.replace('-', ' ')}\n" in PAGE


def test_query_run_says_what_a_caller_needs() -> None:
    section = PAGE.split("### query/run\n")[1].split("\n### ")[0]
    assert "*request · lane `free` · scope `query` · since 0.1*" in section
    assert "| `prompt` | [Prompt](#prompt) |  |  |" in section
    assert '| `priority` | [Priority](#priority) | `"interactive"` |' in section
    assert "[`auth_required`](#errors) 1100" in section
    assert "[`$/progress`](#progress)" in section


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("str", "string"),
        ("int | str", "integer or string"),
        ("str | None", "string or null"),
        ("list[str]", "list of string"),
        ("list[int | str]", "list of (integer or string)"),
        ("dict[str, Any]", "object"),
        ("dict[str, int]", "object of integer"),
        ("Literal['a', 'b']", '`"a"` or `"b"`'),
        ("Literal['a']", '`"a"`'),
        ("msgspec.Raw", "any"),
        ("SessionInfo", "[SessionInfo](#sessioninfo)"),
    ],
)
def test_types_are_told_in_the_words_of_json(annotation: str, text: str) -> None:
    assert reference._type_text(annotation) == text


def test_unknown_annotation_is_refused() -> None:
    with pytest.raises(ValueError, match="no words for the annotation"):
        reference._type_text("lambda: 1")
