"""Level files: XSB, Boxoban, folders, and every way to be broken."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.envs.sokoban.levels import parse_room, read_level_set, read_levels
from repro_rl.errors import DataError, TaskError

GOOD = "#####\n#@$.#\n#####"


@st.composite
def rooms(draw):
    rows, cols = draw(st.integers(2, 5)), draw(st.integers(2, 5))
    cells = [draw(st.sampled_from("   #")) for _ in range(rows * cols)]
    order = draw(st.permutations(range(rows * cols)))
    boxes = draw(st.integers(1, (rows * cols - 1) // 2))
    for cell in order[: 2 * boxes]:
        cells[cell] = " "
    for cell in order[:boxes]:
        cells[cell] = "$"
    shift = draw(st.integers(1, boxes))
    for cell in order[shift : shift + boxes]:  # some targets lie under boxes
        cells[cell] = "*" if cells[cell] == "$" else "."
    player = order[2 * boxes]
    cells[player] = "+" if cells[player] == "." else "@"
    inner = ["#" + "".join(cells[r * cols : (r + 1) * cols]) + "#" for r in range(rows)]
    return "\n".join(["#" * (cols + 2), *inner, "#" * (cols + 2)])


@settings(max_examples=80, deadline=None)
@given(rooms())
def test_parse_and_render_are_inverse(text):
    assert parse_room(text).text == text


def test_boxoban_file(tmp_path):
    file = tmp_path / "000.txt"
    file.write_text(f"; 0\n{GOOD}\n\n; 1\n#####\n#.$@#\n#####\n")
    env = SokobanEnv(levels=str(file))
    panel = env.panel("all")
    assert panel.ids == ("000/all/0", "000/all/1")
    assert panel.contents == (GOOD, "#####\n#.$@#\n#####")
    assert env.reset(options={"task": "000/all/1"})[0] == "at:1,3 box:+0,-1 goal:+0,-1"
    assert env.expert() == "left"
    assert "at:1,3" in set(env.vocabulary())
    with pytest.raises(TaskError, match="Known: all"):
        env.panel("train")


def test_xsb_collection_with_titles_dashes_and_an_outline(tmp_path):
    file = tmp_path / "set.xsb"
    file.write_text("Title: One\nAuthor: me\n\n  ####\n###-_#\n#@$.-#\n######\nTitle: Two\n\n" + GOOD)
    first, second = read_levels(file)
    assert first.text == "######\n###  #\n#@$. #\n######"
    assert second.text == GOOD


def test_folder_with_splits(tmp_path):
    for folder in ("train", "valid", "test"):
        (tmp_path / "box" / folder).mkdir(parents=True)
        (tmp_path / "box" / folder / "000.txt").write_text(f"; 0\n{GOOD}\n")
    (tmp_path / "box" / "train" / "001.txt").write_text("; 0\n#####\n#.$@#\n#####\n")
    env = SokobanEnv(levels=str(tmp_path / "box"))
    assert env.splits == ("test", "train", "validation")
    assert env.panel("train").ids == ("box/train/0", "box/train/1")
    assert env.panel("validation").contents == (GOOD,)


def test_plain_folder_is_one_split(tmp_path):
    (tmp_path / "b.xsb").write_text("#####\n#.$@#\n#####")
    (tmp_path / "a.xsb").write_text(GOOD)
    assert next(room.text for room in read_level_set(tmp_path).splits["all"]) == GOOD


BROKEN = [
    ("#####\n#@$?#\n#####", r"line 3.*unknown character '\?' in column 4"),
    ("#####\n# $.#\n#####", "no player"),
    ("######\n#@$.@#\n######", "2 player"),
    ("######\n#@$..#\n######", "1 boxes .* 2 targets"),
    ("#####\n#@  #\n#####", "0 boxes"),
    ("#####\n#@* #\n#####", "nothing to do"),
    ("#####\n#@$.\n#####", "line 3.*not closed"),
    ("#####\n#@$.#\n## ##", "not closed"),
    ("#####\n#@$.#\n#####  $.", "not closed"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_levels_name_file_record_and_line(tmp_path, text, message):
    file = tmp_path / "broken.txt"
    file.write_text(f"; 0\n{text}\n")
    with pytest.raises(DataError, match=message) as caught:
        SokobanEnv(levels=str(file))
    assert caught.value.file == file
    assert caught.value.record == "level 0"
    assert caught.value.field.startswith("line")
    assert str(file) in str(caught.value)


def test_the_broken_level_is_counted(tmp_path):
    file = tmp_path / "broken.txt"
    file.write_text(f"; 0\n{GOOD}\n\n; 1\n#####\n# $.#\n#####\n")
    with pytest.raises(DataError, match="level 1, field lines 7 to 9"):
        read_levels(file)


def test_missing_empty_and_unreadable(tmp_path):
    with pytest.raises(DataError, match="no such level file"):
        SokobanEnv(levels=str(tmp_path / "nowhere.xsb"))
    (tmp_path / "empty.xsb").write_text("; nothing here\n")
    with pytest.raises(DataError, match="holds no level"):
        SokobanEnv(levels=str(tmp_path / "empty.xsb"))
    (tmp_path / "bytes.xsb").write_bytes(b"\x7fELF\x00#")
    with pytest.raises(DataError, match="not text: it holds NUL bytes"):
        SokobanEnv(levels=str(tmp_path / "bytes.xsb"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no level file"):
        SokobanEnv(levels=str(tmp_path / "folder"))


def test_an_unsolvable_level_has_no_progress(tmp_path):
    file = tmp_path / "lost.xsb"
    file.write_text("#####\n#$ @#\n#  .#\n#####")
    env = SokobanEnv(levels=str(file))
    assert env.reset()[1]["progress"] == 0.0
    assert env.expert() is None
    assert env.step("left")[4]["progress"] == 0.0


def test_a_changed_file_is_read_again(tmp_path):
    file = tmp_path / "set.xsb"
    file.write_text(GOOD)
    assert len(SokobanEnv(levels=str(file)).panel("all")) == 1
    file.write_text(f"{GOOD}\n\n{GOOD}")
    assert len(SokobanEnv(levels=str(file)).panel("all")) == 2


ROW = "#@$.#"
# A collection as it is found: (what it shows, the bytes of the file, the boards that it holds).
FOUND = [
    ("byte-order mark", b"\xef\xbb\xbf" + GOOD.encode(), 1),
    ("UTF-16", GOOD.encode("utf-16"), 1),
    ("names above", f"Level 1\n{GOOD}\n\nLevel 2\n{GOOD}\n".encode(), 2),
    ("names without empty lines", f"Level 1\n{GOOD}\nLevel 2\n{GOOD}\n".encode(), 2),
    ("numbers above", f"1\n\n{GOOD}\n2\n\n{GOOD}\n".encode(), 2),
    ("numbers below", f"{GOOD}\n1\n{GOOD}\n2\n".encode(), 2),
    ("a sign and a number", f"#1\n{GOOD}\n# Level 2\n{GOOD}\n".encode(), 2),
    ("a quoted name", f"'First steps'\n{GOOD}\n".encode(), 1),
    ("a note with a sketch", f"{GOOD}\nComment:\nAn easy one:\n##\nComment-End:\n\n{GOOD}".encode(), 2),
    ("a note in one line", f"{GOOD}\nComment: easy\n\n{GOOD}\nComment: hard\n".encode(), 2),
    ("Latin-1", GOOD.encode() + b"\nTitle: Caf\xe9\nAuthor: J\xf6rg\n", 1),
    ("CRLF", f"Author: me\n\n{GOOD}\n\n{GOOD}\n".replace("\n", "\r\n").encode(), 2),
    ("CR", f"Author: me\n\n{GOOD}\n\n{GOOD}\n".replace("\n", "\r").encode(), 2),
    ("a solution", f"{GOOD}\nSolution: 1\nrR\n\n{GOOD}".encode(), 2),
    ("lines of signs", f"=====\n{GOOD}\n-----\n{GOOD}\n::: end :::\n".encode(), 2),
    ("letters", b"#####\n#pbo#\n#####\n\n#####\n#@$.#\n#####", 2),
    ("run lengths in rows", b"5#\n#@$.#\n5#\n", 1),
    ("a level on one line", b"5#|#@$.#|5#\n5#|#@$.#|5#\n", 2),
    ("a level on two lines", b"5#|\n#@$.#|5#\n", 1),
    ("a group of runs", b"5(#)|#@$.#|2(2#)#|\n", 1),
    ("floor that is visible", b"-#####-\n-#@$.#-\n-#####-\n", 1),
]


@pytest.mark.parametrize(("data", "count"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND])
def test_collections_as_they_are_found(tmp_path, data, count):
    file = tmp_path / "set.sok"
    file.write_bytes(data)
    assert [room.text.strip("#\n") for room in read_levels(file)] == ["@$."] * count


@pytest.mark.parametrize(
    "text",
    [
        "\t  ####\n\t###  #\n\t#@$. #\n\t######\n",
        "\t  ####\n        ###  #\n\t#@$. #\n    \t######\n",  # a tab ends at the 8th column
        "\u00a0\u00a0####\n###\u00a0 #\n#@$.\u00a0#\n######\u00a0\n",
        "  ####\t\n###  # \n#@$. #\t \n######\n",
    ],
)
def test_tabs_before_a_row_and_no_break_spaces_are_spaces(tmp_path, text):
    file = tmp_path / "web.xsb"
    file.write_text(f"Title: from a page\n\n{text}", encoding="utf-8")
    (room,) = read_levels(file)
    assert room.text.replace("#", "").replace("\n", "") == "  @$. "
    assert room.text.split("\n")[-2].strip("#") == "@$. "


def test_a_tab_between_the_cells_is_an_error_that_names_its_column(tmp_path):
    file = tmp_path / "tab.xsb"
    file.write_text("\t#####\n\t#@\t$.#\n\t#####\n")
    with pytest.raises(DataError, match=r"line 2: unknown character '\\t' in column 11"):
        read_levels(file)


def test_a_folder_of_files_with_capital_endings(tmp_path):
    for name in ("ONE.XSB", "Two.Sok", "three.txt", "read.me"):
        (tmp_path / name).write_text(GOOD)
    assert len(SokobanEnv(levels=str(tmp_path)).panel("all")) == 3


def test_a_run_of_spaces_is_floor(tmp_path):
    (tmp_path / "a.sok").write_text("7#\n#@2 $.#\n#5-#\n7#\n")
    assert read_levels(tmp_path / "a.sok")[0].text == "#######\n#@  $.#\n#     #\n#######"


def test_a_huge_run_length_is_an_error_that_names_the_line(tmp_path):
    for text in ("999999999#", "999(999#)"):
        (tmp_path / "a.sok").write_text(f"{GOOD}\n\n{text}\n")
        with pytest.raises(DataError, match="field line 5: the run length"):
            read_levels(tmp_path / "a.sok")


def test_a_line_of_text_inside_a_board_is_named(tmp_path):
    (tmp_path / "a.xsb").write_text("#####\n#@$.#\nXX $ yy\n#   #\n#####\n")
    with pytest.raises(DataError, match=r"not closed.*'XX \$ yy', was read as text"):
        read_levels(tmp_path / "a.xsb")


@settings(max_examples=60, deadline=None)
@given(st.lists(rooms(), min_size=1, max_size=3), st.sampled_from(["plain", "runs", "one line"]), st.data())
def test_every_way_to_write_a_room_gives_the_room(tmp_path_factory, texts, form, data):
    def packed(row):
        runs = re.findall(r"((.)\2*)", row)
        return "".join(f"{len(run)}{symbol}" if len(run) > 1 else symbol for run, symbol in runs)

    floor = data.draw(st.sampled_from(" -_"))
    written = []
    for number, text in enumerate(texts):
        rows = [row.replace(" ", floor) for row in text.split("\n")]
        if form != "plain":
            rows = [packed(row) for row in rows]
        written.append(f"Title: {number}\n" + ("|" if form == "one line" else "\n").join(rows))
    file = tmp_path_factory.mktemp("levels") / "set.sok"
    file.write_text("\n\n".join(written))
    assert [room.text for room in read_levels(file)] == texts
