"""Level files: XSB, Boxoban, folders, and every way to be broken."""

from __future__ import annotations

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
    (tmp_path / "bytes.xsb").write_bytes(b"\xff\xfe\x00#")
    with pytest.raises(DataError, match="UTF-8"):
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
