"""The pages that committed results make: a gallery of every experiment, and the README's table of both source texts.

`python -m gdjax.gallery` writes them anew from `results/`; nothing in them is typed by hand but what the texts say, in
`results/texts.yaml`, and what is cited, in `results/references.yaml`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import experiments

BEGIN, END = "<!-- texts -->", "<!-- /texts -->"
"""Where the README's table stands."""

SIGN = {"equal": "", "at_most": "≤ ", "at_least": "≥ "}

NAME = r"\b(?:van der |van |de |d')?[A-Z][a-zà-ž]+(?:-?[A-Z][a-z]+)*"
NUMBER = r"(?:part II, )?(?:Thm|Lemma|Cor\.|Prop\.|Algorithm|equation|section|chapter|appendix) (?:[A-Z]|\d+)(?:\.\d+)*"
CITATION = re.compile(rf"({NAME}(?:, {NAME})*(?: and {NAME}| et al\.)?) \(?(\d{{4}})\b((?:\)?(?:[,;]| and) (?:proof of )?{NUMBER})*)")
"""Author(s), year, and the numbers of what is meant in that work."""

UNREAD = "†"
"""Behind a number that was not seen in the work, nor in a text that quotes it."""


def gallery(results: Path) -> str:
    """The page of all experiments that have results: claim, figures, findings, command."""
    of_texts = {row["experiment"] for row in _rows(results)}
    names = [name for name in experiments.names() if (results / name / "findings.json").is_file()]
    findings = {name: _findings(results, name) for name in names}
    works = references(results)
    read = [place is not None for work in works.values() for place in work["numbers"].values()]
    hold = sum(finding["holds"] for every in findings.values() for finding in every)
    parts = [
        "# What gdjax finds\n",
        f"{len(names)} experiments, {sum(map(len, findings.values()))} findings, of which {hold} hold. "
        "All of it is made by `gdjax -m hydra/launcher=basic 'experiment=glob(*)' hydra.sweep.dir=results 'hydra.sweep.subdir=${name}'`, "
        "and this page from it by `python -m gdjax.gallery`.\n",
        "Formulas are checked numerically, by the findings and by tests against numbers computed elsewhere. "
        f"Sources and docstrings cite {len(works)} works and in them {len(read)} theorems, equations, algorithms and sections by number: "
        f"[References](#references) says where {sum(read)} of these numbers were read; the other {len(read) - sum(read)} could not be "
        f"confirmed and bear a {UNREAD}.\n",
    ]
    for title, chosen in (
        ("The two texts", [name for name in names if name in of_texts]),
        ("The catalogue of rates", [name for name in names if name not in of_texts]),
    ):
        links = ", ".join(f"[{name}](#{name})" for name in chosen)
        parts += [f"## {title}\n", f"{links}\n", *(_section(results, name, findings[name], works) for name in chosen)]
    places = cited(results)
    parts += [
        "## References\n",
        *(_reference(work, [place for place in places if work["cite"] in dict(places[place])]) for work in works.values()),
    ]
    return "\n".join(parts) + "\n"


def texts_table(results: Path) -> str:
    """What the texts say, what is so, and what was predicted and measured of it.

    Raises
    ------
    ValueError
        Where a row names a finding that its experiment does not have.
    """
    lines = ["| text | says | so it is | quantity | predicted | measured | experiment |", "|---" * 7 + "|"]
    for row in _rows(results):
        finding = _named(_findings(results, row["experiment"]), row)
        holds = "" if finding["holds"] else " **does not hold**"
        figure = f"[`{row['experiment']}`](results/{row['experiment']}/{_figures(results, row['experiment'])[0]})"
        said = [row["text"], row["says"], row["fact"], row["quantity"], _predicted(finding), _number(finding["measured"]) + holds, figure]
        lines.append("| " + " | ".join(_cell(str(part)) for part in said) + " |")
    return "\n".join(lines) + "\n"


def references(results: Path) -> dict[str, dict[str, Any]]:
    """The works of `references.yaml`, by what they are cited as."""
    works: Any = OmegaConf.to_container(OmegaConf.load(results / "references.yaml"))
    return {work["cite"]: work for work in works}


def citations(text: str) -> list[tuple[str, list[str]]]:
    """The works that a text cites, each with the numbers that it gives.

    >>> citations("Nesterov (2004, Thm 2.1.7 and Cor. 2.1.2); page section 2.3, by Reddi et al. 2018")
    [('Nesterov 2004', ['Thm 2.1.7', 'Cor. 2.1.2']), ('Reddi et al. 2018', [])]
    """
    return [(f"{said[1]} {said[2]}", re.findall(NUMBER, said[3])) for said in CITATION.finditer(" ".join(text.split()))]


def marked(source: str, works: Mapping[str, Mapping[str, Any]]) -> str:
    """The source with a mark behind every number that was not read.

    Raises
    ------
    ValueError
        Where it cites a work or a number that `references.yaml` does not have.
    """

    def mark(said: re.Match[str]) -> str:
        numbers = works.get(cite := f"{said[1]} {said[2]}", {}).get("numbers")
        if numbers is None or not set(re.findall(NUMBER, said[3])) <= set(numbers):
            raise ValueError(f"results/references.yaml has no '{cite}{said[3]}': put it there, with null where its number was not read.")
        return said[0].removesuffix(said[3]) + re.sub(NUMBER, lambda number: number[0] + UNREAD * (numbers[number[0]] is None), said[3])

    return CITATION.sub(mark, source)


def texts(results: Path) -> dict[str, str]:
    """Where works are cited: the strings of every module, docstrings and captions too, and an experiment's findings with its own.

    All but this module's, whose example is no citation.
    """
    root = results.parent
    files = [path for folder in ("experiments", "gdjax") for path in sorted((root / folder).rglob("*.py")) if path.name != "gallery.py"]
    said = {".".join(path.relative_to(root).with_suffix("").parts).removeprefix("experiments."): _strings(path) for path in files}
    for path in results.glob("*/findings.json"):
        said[path.parent.name] = "\n".join([said[path.parent.name], *(one["source"] for one in _findings(results, path.parent.name))])
    return said


def cited(results: Path) -> dict[str, list[tuple[str, list[str]]]]:
    """The citations of every experiment and module."""
    return {place: citations(text) for place, text in texts(results).items()}


def with_table(page: str, table: str) -> str:
    """The page with the table between its marks."""
    before, found, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    if not found or not after:
        raise ValueError(f"the page has no place for the table: put {BEGIN} and {END} into it.")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def write(root: Path) -> None:
    """Write the gallery and the README's table of a checkout."""
    (root / "results" / "README.md").write_text(gallery(root / "results"))
    readme = root / "README.md"
    readme.write_text(with_table(readme.read_text(), texts_table(root / "results")))


def _rows(results: Path) -> list[dict[str, str]]:
    rows: Any = OmegaConf.to_container(OmegaConf.load(results / "texts.yaml"))
    return rows


def _findings(results: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((results / name / "findings.json").read_text())


def _named(findings: Sequence[dict[str, Any]], row: dict[str, str]) -> dict[str, Any]:
    for finding in findings:
        if row["finding"] in finding["claim"]:
            return finding
    raise ValueError(f"{row['experiment']} has no finding with '{row['finding']}'; it has {[one['claim'] for one in findings]}")


def _strings(path: Path) -> str:
    constants = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    return "\n".join(value for value in constants if isinstance(value, str))


def _reference(work: Mapping[str, Any], places: Sequence[str]) -> str:
    seen = "not confirmed" if work["confirmed"] is None else f"seen in {work['confirmed']}"
    read = "; ".join(
        f"{number}{UNREAD}, number not confirmed" if place is None else f"{number}, read in {place}"
        for number, place in work["numbers"].items()
    )
    by = ", ".join(f"`{place}`" if place.startswith("gdjax") else f"[{place}](#{place})" for place in places)
    return f"- **{work['cite']}.** {work['reference']} ({seen}).{f' {read}.' if read else ''} Cited by {by}."


def _section(results: Path, name: str, findings: Sequence[dict[str, Any]], works: Mapping[str, Mapping[str, Any]]) -> str:
    said = parts_of(experiments.named(name).module.__doc__ or "")
    images = "\n\n".join(f"![{name}]({name}/{file})" for file in _figures(results, name))
    spent = json.loads((results / name / "provenance.json").read_text())["seconds"]
    rows = "\n".join(
        f"| {_cell(one['claim'])} | {_predicted(one)} | {_number(one['measured'])} | {one['tolerance']:.2g} | "
        f"{'yes' if one['holds'] else '**no**'} | {_cell(marked(one['source'], works))} |"
        for one in findings
    )
    return (
        f"### {name}\n\n{said['Claim']}\n\n{images}\n\n"
        "| claim | predicted | measured | tolerance | holds | source |\n|---|---|---|---|---|---|\n"
        f"{rows}\n\n`{said['Command']}` ({spent['compile']:.1f} s to compile, {spent['run']:.1f} s to run)\n"
    )


def parts_of(docstring: str) -> dict[str, str]:
    """An experiment's docstring by its headings: Claim, Theory, Sweep, Expect, Command.

    >>> parts_of('''One line.
    ...
    ... Claim
    ...     It falls.
    ... Command
    ...     gdjax
    ... ''')
    {'Claim': 'It falls.', 'Command': 'gdjax'}
    """
    pieces = re.split(r"^(\w+)\n(?=    )", docstring, flags=re.MULTILINE)
    return {name: " ".join(textwrap.dedent(text).split()) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def _figures(results: Path, name: str) -> list[str]:
    """The figures of an experiment, the one that bears its name first."""
    return sorted((path.name for path in (results / name).glob("*.png")), key=lambda file: (file != f"{name}.png", file))


def _predicted(finding: dict[str, Any]) -> str:
    return SIGN[finding["kind"]] + _number(finding["predicted"])


def _number(value: float | None) -> str:
    """Four digits; what JSON has no number for is null."""
    return "not finite" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    argparse.ArgumentParser(description="Write results/README.md and the README's table anew from results/.").parse_args()
    write(Path(__file__).resolve().parents[1])
