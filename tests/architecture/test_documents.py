"""The documents lead somewhere: their links resolve, and the code map names what there is."""

import re
import subprocess
from pathlib import Path

import pytest
from house_tree import ROOT

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
MAP_ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def anchors(document: Path) -> set[str]:
    """Return the anchors that headings make, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
        found.add(plain.replace(" ", "-"))
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', document.read_text()))


def broken(document: Path) -> list[str]:
    wrong = []
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        leads_to = (document.parent / path).resolve() if path else document
        if not leads_to.exists():
            wrong.append(f"{target}: there is no such file")
        elif anchor and anchor not in anchors(leads_to):
            wrong.append(f"{target}: there is no such heading")
    return wrong


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert broken(document) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# One & `two`\n[x](b.md) [y](#one--two) [z](#three) [w](https://nowhere)\n")
    assert broken(document) == ["b.md: there is no such file", "#three: there is no such heading"]


def code_map() -> list[tuple[str, str]]:
    page = (ROOT / "daemon" / "ARCHITECTURE.md").read_text()
    part = page[page.index("## Code map") : page.index("## The life of a query")]
    return [row for row in MAP_ROW.findall(part) if row[0] not in ("where", "---")]


def missing_in_map(rows: list[tuple[str, str]]) -> list[str]:
    wrong = []
    for where, text in rows:
        folder = ROOT / where.strip("`")
        if not folder.exists():
            wrong.append(f"{where} does not exist")
            continue
        wrong += [
            f"{where} has no {name}"
            for name in re.findall(r"`(\w+)/?`", text)
            if not any((folder / f"{name}{end}").exists() for end in ("", ".py"))
        ]
    return wrong


def test_the_code_map_names_what_there_is() -> None:
    rows = code_map()
    assert len(rows) > 10
    assert missing_in_map(rows) == []


def test_a_stale_name_in_the_map_is_found() -> None:
    rows = [("`daemon/dragomand/policy/`", "`fair_queue`, `gone`"), ("`nowhere/`", "x")]
    assert missing_in_map(rows) == ["`daemon/dragomand/policy/` has no gone", "`nowhere/` does not exist"]


def test_every_room_is_on_the_map() -> None:
    mapped = [ROOT / where.strip("`") for where, _ in code_map()]
    rooms = [made.parent for made in (ROOT / "daemon" / "dragomand").glob("*/__init__.py")]
    assert rooms
    assert [room for room in rooms if not any(each.is_relative_to(room) for each in mapped)] == []


def unshown(page: str) -> list[str]:
    """Return what the requirements' table names and is not there: files, and tests by their names."""
    wrong = []
    for path, test in re.findall(r"`((?:tests|bench|docs|daemon)/[\w/.]+)(?:::(\w+))?`", page):
        if not (ROOT / path).exists():
            wrong.append(f"{path} does not exist")
        elif test and f"def {test}(" not in (ROOT / path).read_text():
            wrong.append(f"{path} has no {test}")
    return wrong


def test_requirements_are_shown_where_the_table_says() -> None:
    page = (ROOT / "docs" / "requirements.md").read_text()
    assert page.count("| 0") > 50
    assert unshown(page) == []


def test_a_test_that_is_gone_is_found() -> None:
    here = "tests/architecture/test_documents.py"
    assert unshown(f"`{here}::broken` `{here}::gone` `tests/gone.py` `{here}`") == [
        f"{here} has no gone",
        "tests/gone.py does not exist",
    ]


def test_ids_of_requirements_occur_once() -> None:
    ids = re.findall(r"^\| (\w\w\.\d+)", (ROOT / "docs" / "requirements.md").read_text(), re.MULTILINE)
    assert sorted(set(ids)) == sorted(ids)
