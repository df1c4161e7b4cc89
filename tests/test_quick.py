"""The table of quick tests is of this package and of this suite."""

import ast
from pathlib import Path

from quick import OPTIMIZED, ROOMS, SOME, WITHOUT, of_file

import singd_optax

PACKAGE = Path(singd_optax.__file__).parent
FILES = {path.stem: path for path in Path(__file__).parent.glob("test_*.py")}


def test_every_room_has_a_row():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("[!_]*.py")}
    assert rooms | modules <= set(ROOMS)
    assert all(ROOMS.values())


def test_rows_name_tests_that_exist():
    for row in (row for rows in (*ROOMS.values(), OPTIMIZED, SOME) for row in rows):
        file, _, test = row.partition("::")
        assert file in FILES, row
        if "*" in test.partition("[")[0]:
            continue
        names = {
            node.name for node in ast.parse(FILES[file].read_text()).body if "name" in node._fields
        }
        assert test.partition("[")[0] in names, row


def test_every_file_of_tests_has_a_quick_test():
    assert [stem for stem in FILES if not of_file(stem) and stem not in WITHOUT] == []
    assert set(WITHOUT) <= set(FILES)
