"""The README's blocks, pasted one after the other, print what stands below them."""

import re
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

HOUSE = Path(__file__).parents[2]
README = (HOUSE / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_it_is_read_in_one_sitting():
    assert len(README.splitlines()) <= 120


def assert_alike(printed, shown):
    """The same words, and the same numbers up to another machine's rounding of a last digit or a draw on the edge of singular."""
    number = r"-?\d+(?:\.\d+)?"
    assert re.sub(rf" *{number}", " #", printed) == re.sub(rf" *{number}", " #", shown)
    pairs = zip(re.findall(number, printed), re.findall(number, shown), strict=True)
    assert all(abs(float(a) - float(b)) <= (0.0011 if "." in b else 0.002 * float(b)) for a, b in pairs)


def test_its_blocks_print_what_stands_below_them(capsys):
    names: dict = {}
    for k, (language, text) in enumerate(BLOCKS):
        if language == "python":
            exec(text, names)
            printed = capsys.readouterr().out
            below = BLOCKS[k + 1] if k + 1 < len(BLOCKS) else ("", "")
            assert_alike(printed, below[1] if below[0] == "text" else "")
    plt.close("all")


def test_its_pages_and_pictures_are_there():
    pages = re.findall(r"`((?:docs/)?[\w./-]+\.(?:md|cff)|docs/\w+/)`", README)
    assert len(pages) > 15
    for name in (*pages, *re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)):
        assert (HOUSE / name).exists(), name
