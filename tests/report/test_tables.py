"""Numbers as the report prints them, and what it says of figures that do not compare."""

import json

from repro_rl.cli.report import show_evaluations
from repro_rl.report import build_report
from repro_rl.report.load import read_runs
from repro_rl.report.tables import evaluated, evaluated_with, rate
from support.runs import write_run


def test_rates():
    assert [rate(x) for x in (0, 0.614, 1.0, 0.999, None, float("nan"), -0.25)] == [
        ".00", ".61", "1.00", "1.00", "–", "–", "−.25",
    ]  # fmt: skip


def test_a_table_of_several_precisions_says_so(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    files = sorted((run / "eval").glob("*.json"))
    assert len(files) > 1

    def page(*dtypes):
        for file, dtype in zip(files, dtypes, strict=False):
            file.write_text(json.dumps({**json.loads(file.read_text()), "dtype": dtype}))
        capsys.readouterr()
        show_evaluations([run])
        return build_report([run]).read_text(), " ".join(capsys.readouterr().out.split())

    words = "were computed in bfloat16 and float32"
    for text in page("float32", "float32"):  # one precision
        assert words not in text
    for text in page("float32", "bfloat16"):
        assert words in text
    cells = [row.setting for row in evaluated(*read_runs([run]))]
    assert any(cell.endswith(", bfloat16") for cell in cells)
    assert any(cell.endswith(", float32") for cell in cells)
    for text in page("float32", None):  # an older file tells none
        assert words not in text


def test_the_page_names_the_versions_that_made_the_evaluations(tmp_path):
    run = write_run(tmp_path / "run")
    first, *others = sorted((run / "eval").glob("*.json"))
    assert others

    def made(*several):
        for file, versions in zip((first, *others), several, strict=False):
            data = {key: value for key, value in json.loads(file.read_text()).items() if key != "versions"}
            file.write_text(json.dumps(data | ({} if versions is None else {"versions": versions})))
        page = build_report([run], tmp_path / "page.html").read_text()
        (read,) = read_runs([run])
        assert evaluated_with(read) in page
        return "Evaluated with" in page, evaluated_with(read)

    nothing = [None] * (1 + len(others))
    assert made(*nothing) == (True, "")  # of an older version: the cell has a dash
    one = {"repro-rl": "0.2.0", "torch": "2.9.1", "transformers": None}
    assert made(*([one] * len(nothing))) == (True, "repro-rl 0.2.0, torch 2.9.1")
    shown, text = made(one, *nothing[1:])
    assert shown
    assert f"{first.stem}: repro-rl 0.2.0, torch 2.9.1" in text
    assert ": unknown" in text


def test_every_run_has_a_cell_for_each_fact(tmp_path):
    """Also where only one of the runs tells who evaluated it."""
    runs = [write_run(tmp_path / name) for name in ("new", "old")]
    for file in (runs[0] / "eval").glob("*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"versions": {"repro-rl": "0.2.0"}}))
    page = build_report(runs, tmp_path / "page.html").read_text()
    table = page[page.index("What was run") :]
    table = table[table.index("<table>") : table.index("</table>")]
    columns = table.count("<th>")
    assert columns > 5
    assert [row.count("<td") for row in table.split("<tr>")[2:]] == [columns, columns]
