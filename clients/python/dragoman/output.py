"""Answers as values of a Python type: its JSON Schema goes along, and what comes back is made into it.

A type is a `msgspec.Struct`, a dataclass, a `TypedDict`, a builtin such as ``list[int]``, a pydantic model
(pydantic is not needed for the others), or a JSON Schema as a dictionary, whose value stays plain JSON.
"""

from typing import Any

import msgspec
from dragoman_protocol.query import QueryRunResult

from dragoman.errors import AnswerError


def schema_of(output: Any) -> dict[str, Any]:
    """Return the JSON Schema of *output*. Raises `TypeError` for a type that has none."""
    if isinstance(output, dict):
        return output
    if hasattr(output, "model_json_schema"):
        schema: dict[str, Any] = output.model_json_schema()
        return schema
    return msgspec.json.schema(output)


def typed(result: QueryRunResult, output: Any) -> QueryRunResult:
    """Return *result* with its structured value made into *output*. Raises `AnswerError` if it cannot be.

    (Only where the type asks for more than its schema says, such as a date in a text.)
    """
    structured = result.structured
    if structured is None or isinstance(output, dict):
        return result
    try:
        if hasattr(output, "model_validate"):
            value = output.model_validate(structured.value)
        else:
            value = msgspec.convert(structured.value, output)
    except ValueError as wrong:  # msgspec's and pydantic's errors are both
        raise AnswerError(f"The answer fits the schema but not {output!r}: {wrong}") from wrong
    return msgspec.structs.replace(result, structured=msgspec.structs.replace(structured, value=value))
