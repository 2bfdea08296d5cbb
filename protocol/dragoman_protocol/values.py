"""The two bases of everything that travels: lenient values and strict parameters."""

import msgspec


class Value(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """A value on the wire.

    Fields are snake_case here and camelCase there. Fields at their default are left out.
    Unknown fields are ignored when reading, so an older reader understands a newer writer.
    """


class Params(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Parameters of a method.

    Unknown fields are refused (`invalid_params` with the field's path): a misspelt `sessionId` that is
    silently ignored would start, and bill, a new session. Newer fields are announced by capabilities.
    """


class Empty(Value):
    """A result or parameters without content: `{}` on the wire; parameters may be absent or `null`."""
