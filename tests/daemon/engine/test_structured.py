"""Answers in a form: the check, what is said of a schema that cannot be used (00.54, 00.55)."""

from typing import Any

import pytest
from dragomand.engine.errors import EngineError
from dragomand.engine.structured import MAX_SCHEMA_BYTES, OutputSchema, correction

PEOPLE = {
    "type": "object",
    "properties": {
        "people": {
            "type": "array",
            "items": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]},
        }
    },
    "required": ["people"],
}


@pytest.mark.parametrize(
    "text",
    ['{"people":[{"age":3}]}', ' {"people":[{"age":3}]}\n', '```json\n{"people":[{"age":3}]}\n```'],
)
def test_what_fits(text: str) -> None:
    assert OutputSchema(PEOPLE).check(text) == ({"people": [{"age": 3}]}, None)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ('{"people":[{"age":3},{"age":"x"}]}', "$.people[1].age", "not of type 'integer'"),
        ('{"people":[{}]}', "$.people[0]", "'age' is a required property"),
        ("[]", "$", "not of type 'object'"),
        ("Sure! {}", "$", "it is no JSON"),
        ("", "$", "it is no JSON"),
        ('{"people":', "$", "it is no JSON"),
        ("[" * 100_000, "$", "it is no JSON"),
    ],
)
def test_what_does_not_fit(text: str, path: str, message: str) -> None:
    _, mismatch = OutputSchema(PEOPLE).check(text)
    assert mismatch is not None
    assert mismatch.path == path
    assert message in mismatch.message
    assert path in correction(mismatch)


def test_the_model_is_told_the_schema() -> None:
    assert '"required":["people"]' in OutputSchema(PEOPLE).instruction


@pytest.mark.parametrize(
    ("schema", "attempts", "path"),
    [
        ({"type": "nonsense"}, 3, "$.outputSchema"),
        ({"properties": 5}, 3, "$.outputSchema"),
        ({"description": "x" * MAX_SCHEMA_BYTES}, 3, "$.outputSchema"),
        ({}, 0, "$.outputAttempts"),
        ({}, 11, "$.outputAttempts"),
    ],
)
def test_what_cannot_be_asked(schema: dict[str, Any], attempts: int, path: str) -> None:
    with pytest.raises(EngineError) as caught:
        OutputSchema(schema, attempts)
    assert (caught.value.kind, caught.value.data["path"]) == ("invalid_params", path)


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema", "file:///etc/passwd", "#/$defs/none"])
def test_a_reference_to_elsewhere_is_never_followed(reference: str) -> None:
    with pytest.raises(EngineError, match="cannot be applied") as caught:
        OutputSchema({"$ref": reference}).check("1")
    assert caught.value.kind == "invalid_params"
