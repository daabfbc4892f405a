"""embodied-zoo: its page says what its run did, and the committed page is of the rows that there are."""

from pathlib import Path

import pytest

from embodied.cli import zoo as module
from embodied.cli.app import command
from embodied.cli.zoo import entry, names
from embodied.cli.zoo_page import COLUMNS, DID, facts, rows_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "zoo.md"


@pytest.fixture
def zoo(monkeypatch, tmp_path, capsys):
    """Runs the command; returns its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["embodied-zoo", *words])
        status = 0
        try:
            command("zoo", module.zoo)()
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def one_line(outcome, *parts):
    status, _, err = outcome
    said = [line for line in err.splitlines() if line.startswith("embodied-zoo: ")]
    assert status == 2 and len(said) == 1 and "Traceback" not in err, err
    for part in parts:
        assert part in said[0]


def test_the_page_says_what_the_run_did(zoo, tmp_path):
    status, _, err = zoo("rows=[llava-1.5,llama-adapter]", "out=zoo.md")
    assert status == 0, err
    rows = rows_of((tmp_path / "zoo.md").read_text())
    assert list(rows) == ["LLaVA-1.5", "LLaMA-adapter"]
    assert rows["LLaVA-1.5"]["trained"] == "pretrain: connector; tune: connector, backbone"
    assert rows["LLaMA-adapter"]["trained"] == "tune: connector, adapters"
    assert rows["LLaVA-1.5"]["parameters here"] == "7.063 B"
    # a run of fewer rows does not replace it
    before = (tmp_path / "zoo.md").read_bytes()
    one_line(zoo("rows=[llava-1.5]", "out=zoo.md"), "zoo.md has 1 rows that this run leaves out")
    assert (tmp_path / "zoo.md").read_bytes() == before


def test_a_row_that_falls_short_is_named_and_no_page_is_written(zoo, tmp_path, monkeypatch):
    fine = module.entry

    def heavier(key):
        each = fine(key)
        object.__setattr__(each.row, "parameters", 6e9)
        return each

    monkeypatch.setattr(module, "entry", heavier)
    one_line(zoo("rows=[llava-1.5]", "out=zoo.md"), "1 of 1 rows fall short", "llava-1.5: it has +17.7% parameters")
    assert not (tmp_path / "zoo.md").exists()


@pytest.mark.parametrize(
    "words, parts",
    [
        (["rows=[llava-1.6]"], ["the zoo has no row 'llava-1.6'", "llava-1.5"]),
        (["rows=[]"], ["rows is empty"]),
        (["row=[llava]"], ["'row'", "'rows'"]),
        (["rows=[llava]", "out=other.md"], ["no page of the zoo"]),
    ],
)
def test_a_mistake_is_one_line(zoo, tmp_path, words, parts):
    (tmp_path / "other.md").write_text("years of work")
    one_line(zoo(*words), *parts)
    assert (tmp_path / "other.md").read_text() == "years of work"


def test_the_committed_page_is_of_the_rows_and_parts_that_there_are():
    rows = rows_of(PAGE.read_text(encoding="utf-8"))
    entries = [entry(key) for key in names()]
    assert list(rows) == [each.row.name for each in entries]
    for each in entries:
        cells = rows[each.row.name]
        assert {name: cells[name] for name in facts(each)} == facts(each)
        assert (cells["parity"], cells["reference class"]) == (each.row.parity, each.row.reference or "none")
        assert (cells["published"] == "not published") == (each.row.parameters is None)
        trained = {stage.partition(":")[0] for stage in cells["trained"].split("; ")}
        assert trained == set(each.stages or {"all": None})
        assert all(cells[name] for name in DID)
    assert len(next(iter(rows.values()))) == len(COLUMNS)
