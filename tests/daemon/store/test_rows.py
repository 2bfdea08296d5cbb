import msgspec
import pytest
from dragomand.store import rows


@pytest.mark.parametrize(
    "row", [rows.SessionRow, rows.TurnRow, rows.ItemRow, rows.ProcessRunRow, rows.MovedAside]
)
def test_rows_have_names_of_their_own(row: type[msgspec.Struct]) -> None:
    info = msgspec.structs.fields(row)
    assert [field.encode_name for field in info] == [field.name for field in info]
    assert all(field.name == field.name.lower() for field in info)


def test_rows_are_made_by_name() -> None:
    with pytest.raises(TypeError):
        rows.ItemRow("s", "t", 1, "i", "k", 1.0, b"{}")  # type: ignore[misc]
