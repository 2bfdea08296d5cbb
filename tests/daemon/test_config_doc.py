import ast
import inspect
from pathlib import Path

import pytest
from dragomand import config_doc, settings


def test_the_page_is_current() -> None:
    assert config_doc.main(["--check"]) == 0, "run: python -m dragomand.config_doc"


def test_the_page_has_every_setting_with_its_explanation() -> None:
    rows = [line for line in config_doc.page().splitlines() if line.startswith("| `")]
    every = list(settings.settings())
    assert len(rows) == len(every)
    for row, setting in zip(rows, every, strict=True):
        assert f"`{setting.key}`" in row
        assert f"`{setting.variable}`" in row
        explanation = row.rsplit("|", 2)[1].strip()
        assert explanation.endswith(".")
        assert explanation in " ".join(inspect.getsource(settings).split())


def test_it_writes_the_page_and_tells_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "configuration.md"
    monkeypatch.setattr(config_doc, "PAGE", page)
    assert config_doc.main(["--check"]) == 1
    assert config_doc.main([]) == 0
    assert page.read_text() == config_doc.page()
    capsys.readouterr()
    assert config_doc.main(["--check"]) == 0
    page.write_text(page.read_text().replace("# Settings", "# Options"))
    assert config_doc.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "-# Options\n+# Settings" in said
    assert "python -m dragomand.config_doc" in said


def test_every_field_has_a_docstring() -> None:
    tree = ast.parse(inspect.getsource(settings))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings"):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            texts = [each for each in node.body if isinstance(each, ast.Expr)]
            assert len(texts) == len(fields) + 1, node.name
