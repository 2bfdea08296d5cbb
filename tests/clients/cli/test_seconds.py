import click
import pytest
from dragoman.cli.seconds import Seconds


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "0", "1e300", "soon", "1e400"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Seconds().convert(text, None, None)


def test_times() -> None:
    assert Seconds().convert("0.5", None, None) == 0.5
    assert Seconds(or_none=True).convert("0", None, None) == 0
    with pytest.raises(click.BadParameter):
        Seconds(or_none=True).convert("nan", None, None)
