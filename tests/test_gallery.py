"""The pages that results make are those that are committed, and a row without its finding is an error."""

import json

import pytest

from gdjax import cli, gallery

ROOT = cli.config_folder().parent
FINDING = {"claim": "it falls | fast", "predicted": 2.0, "measured": 1.5, "tolerance": 0.1, "holds": False, "kind": "at_most", "source": ""}


def test_the_committed_pages_are_made_of_the_committed_results():
    readme = (ROOT / "README.md").read_text()
    assert gallery.with_table(readme, gallery.texts_table(ROOT / "results")) == readme
    assert gallery.gallery(ROOT / "results") == (ROOT / "results" / "README.md").read_text()


def test_every_committed_finding_holds():
    findings = {path.parent.name: json.loads(path.read_text()) for path in (ROOT / "results").glob("*/findings.json")}
    assert [(name, one["claim"]) for name, every in findings.items() for one in every if not one["holds"]] == []


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "descend"
    folder.mkdir()
    (folder / "findings.json").write_text(json.dumps([FINDING]))
    (folder / "descend.png").touch()
    row = {"text": "page 1", "says": "up", "fact": "down", "experiment": "descend", "finding": "it falls", "quantity": "m"}
    (tmp_path / "texts.yaml").write_text(json.dumps([row]))
    return tmp_path


def test_a_row_shows_a_bound_as_one_and_a_finding_that_does_not_hold(results):
    row = gallery.texts_table(results).splitlines()[2]
    assert row == "| page 1 | up | down | m | ≤ 2 | 1.5 **does not hold** | [`descend`](results/descend/descend.png) |"


def test_a_row_whose_finding_is_gone_is_an_error(results):
    (results / "descend" / "findings.json").write_text(json.dumps([FINDING | {"claim": "another"}]))
    with pytest.raises(ValueError, match="descend has no finding with 'it falls'"):
        gallery.texts_table(results)


def test_a_page_without_a_place_for_the_table_is_an_error():
    with pytest.raises(ValueError, match="no place for the table"):
        gallery.with_table("# page", "table")
