"""The pages that results make are those that are committed; a row without its finding is an error, a citation without a reference too."""

import json
import re

import pytest

from gdjax import cli, gallery

ROOT = cli.config_folder().parent
NUMBERED = r"\b(?:Thm|Theorem|Lemma|Cor\.|Corollary|Prop\.|Proposition|Algorithm|Equation|equation)s? \(?\d"
FINDING = {"claim": "it falls | fast", "predicted": 2.0, "measured": 1.5, "tolerance": 0.1, "holds": False, "kind": "at_most", "source": ""}


def test_the_committed_pages_are_made_of_the_committed_results():
    readme = (ROOT / "README.md").read_text()
    assert gallery.with_table(readme, gallery.texts_table(ROOT / "results")) == readme
    assert gallery.gallery(ROOT / "results") == (ROOT / "results" / "README.md").read_text()


def test_every_committed_finding_holds():
    findings = {path.parent.name: json.loads(path.read_text()) for path in (ROOT / "results").glob("*/findings.json")}
    assert [(name, one["claim"]) for name, every in findings.items() for one in every if not one["holds"]] == []


def test_every_work_that_is_cited_has_a_reference_and_no_other():
    cited = {cite for every in gallery.cited(ROOT / "results").values() for cite, _ in every}
    assert cited == set(gallery.references(ROOT / "results"))


def test_every_number_that_is_cited_is_listed_and_no_other():
    cited = {(cite, number) for every in gallery.cited(ROOT / "results").values() for cite, numbers in every for number in numbers}
    assert cited == {(cite, number) for cite, work in gallery.references(ROOT / "results").items() for number in work["numbers"]}


def test_no_theorem_is_numbered_apart_from_its_work():
    texts = {place: gallery.CITATION.sub("", " ".join(text.split())) for place, text in gallery.texts(ROOT / "results").items()}
    assert [place for place, text in texts.items() if re.search(NUMBERED, text)] == []


def test_a_number_that_was_not_read_is_marked():
    works = {"Polyak and Juditsky 1992": {"numbers": {"Thm 1": None, "section 2": "its text"}}, "de Klerk 2017": {"numbers": {}}}
    source = "x, Polyak and Juditsky (1992, Thm 1 and section 2); de Klerk 2017, section 3 of the page"
    with pytest.raises(ValueError, match=r"references\.yaml has no 'de Klerk 2017, section 3'"):
        gallery.marked(source, works)
    works["de Klerk 2017"]["numbers"]["section 3"] = None
    marked = "x, Polyak and Juditsky (1992, Thm 1† and section 2); de Klerk 2017, section 3† of the page"
    assert gallery.marked(source, works) == marked


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
