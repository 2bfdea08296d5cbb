"""An answer in the form that was asked for: the schema in words, the check, and what to say if it fails."""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .errors import EngineError

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MAX_SCHEMA_BYTES = 262_144
MAX_ATTEMPTS = 10
ATTEMPTS = 3
_MOST_TEXT = 500
_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_encode = msgspec.json.Encoder(order="sorted").encode


class Mismatch(NamedTuple):
    """What does not fit, and where (a JSON path)."""

    path: str
    message: str


class OutputSchema:
    """One query's schema."""

    def __init__(self, schema: dict[str, Any], attempts: int | None = None) -> None:
        """Check that *schema* can be used and *attempts* is from 1 to 10 (None: 3).

        Raises `invalid_params`.
        """
        attempts = ATTEMPTS if attempts is None else attempts
        if not 1 <= attempts <= MAX_ATTEMPTS:
            text = f"outputAttempts must be from 1 to {MAX_ATTEMPTS}; got {attempts}."
            raise EngineError("invalid_params", text, path="$.outputAttempts", reason="out of range")
        written = _encode(schema)
        if len(written) > MAX_SCHEMA_BYTES:
            raise _unusable(f"it has {len(written)} bytes, at most {MAX_SCHEMA_BYTES} are taken")
        self.attempts = attempts
        self.instruction = (
            "Answer with one JSON value and nothing else: no explanation, no Markdown fence. "
            f"It has to be valid against this JSON Schema:\n{written.decode()}"
        )
        self._validator = _validator(schema)

    def check(self, text: str) -> tuple[Any, Mismatch | None]:
        """Return the value that *text* says, and what does not fit (None: everything fits)."""
        fenced = _FENCE.match(text)
        try:
            value = msgspec.json.decode(fenced[1] if fenced else text)
        except (msgspec.MsgspecError, RecursionError) as wrong:
            return None, Mismatch("$", f"it is no JSON: {wrong}")
        return value, self._mismatch(value)

    def _mismatch(self, value: Any) -> Mismatch | None:
        from jsonschema.exceptions import best_match

        try:
            error = best_match(self._validator.iter_errors(value))
        except Exception as wrong:  # noqa: BLE001  # a reference into nothing, a pattern that is none …
            raise _unusable(f"it cannot be applied ({type(wrong).__name__}: {wrong})") from None
        return None if error is None else Mismatch(error.json_path, error.message[:_MOST_TEXT])


def correction(mismatch: Mismatch) -> str:
    """Return what the model is told after an answer that does not fit."""
    return (
        f"That answer does not fit the schema. At {mismatch.path}: {mismatch.message}\n"
        "Answer again with the whole corrected JSON value and nothing else."
    )


def _validator(schema: dict[str, Any]) -> "Validator":
    """Return a validator that never fetches anything: a reference must be inside the schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as wrong:
        raise _unusable(f"at {wrong.json_path}: {wrong.message[:_MOST_TEXT]}") from None
    validator: Validator = kind(schema, registry=Registry())
    return validator


def _unusable(why: str) -> EngineError:
    return EngineError(
        "invalid_params",
        f"outputSchema is not a JSON Schema that can be used: {why}.",
        path="$.outputSchema",
        reason="unusable schema",
    )
