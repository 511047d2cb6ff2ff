"""What files, folders and patterns on the command line name."""

from pathlib import Path

import numpy as np
import pytest

from stages.commands.predict.inputs import find_images
from tests.trees import write_png
from wsss.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    trips = ["trip 1/über.JPG", "trip 1/b.png", "trip 2/b.png"]
    for name in ("a.jpg", *trips, "notes.txt", ".hidden.jpg", ".git/x"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "photos"


def names(*items: str | Path, out: Path = Path("nowhere")) -> list[str]:
    return [image.name for image in find_images([str(item) for item in items], out)[0]]


def test_a_folder_gives_all_images_below_it_and_counts_the_rest(tree: Path) -> None:
    found, notes = find_images([str(tree)], Path("nowhere"))
    assert [p.id for p in found] == ["a", "trip 1/b", "trip 1/über", "trip 2/b"]
    assert notes == ["left out, no images: 1 .txt (notes.txt)"]


def test_patterns_keep_the_folders_below_their_fixed_part(tree: Path) -> None:
    assert names(tree / "*" / "b.png") == ["trip 1/b.png", "trip 2/b.png"]
    assert names(tree / "**" / "*.png") == ["trip 1/b.png", "trip 2/b.png"]
    assert names(tree / "trip*") == ["trip 1/b.png", "trip 1/über.JPG", "trip 2/b.png"]


def test_a_file_keeps_its_name_and_is_taken_once(tree: Path) -> None:
    assert names(tree / "a.jpg", tree) == names(tree)
    assert names(tree / "trip 1" / "b.png") == ["b.png"]


def test_two_images_with_one_result_are_refused(tree: Path) -> None:
    with pytest.raises(UserError, match=r"1 image.*trip 1/b\.png and .*trip 2/b\.png"):
        names(tree / "trip 1" / "b.png", tree / "trip 2" / "b.png")
    (tree / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png"):
        names(tree)
    assert names(tree / "**" / "*.png") == ["a.png", "trip 1/b.png", "trip 2/b.png"]  # as it advises


def test_results_are_no_images(tree: Path) -> None:
    found, notes = find_images([str(tree)], tree / "trip 1")
    assert [image.name for image in found] == ["a.jpg", "trip 2/b.png"]
    assert any("2 files in" in note for note in notes)


def test_links_to_folders_are_followed_once(tree: Path) -> None:
    (tree / "trip 2" / "loop").symlink_to(tree)
    (tree.parent / "elsewhere").mkdir()
    (tree.parent / "elsewhere" / "c.jpg").write_bytes(b"x")
    (tree / "linked").symlink_to(tree.parent / "elsewhere")
    assert "linked/c.jpg" in names(tree)
    assert len(names(tree)) == 5


def test_a_named_file_is_an_image_if_it_can_be_opened_as_one(tree: Path) -> None:
    write_png(tree / "scan", np.zeros((2, 2), np.uint8))
    (tree / "a.txt").write_text("of a.jpg")
    (tree / "a.jpg.json").write_text("{}")
    assert names(tree / "scan", tree / "a.jpg", tree / "a.txt", tree / "a.jpg.json") == ["a.jpg", "scan"]
    assert names(tree / "*") == ["a.jpg", "scan", *names(tree)[1:]]
    with pytest.raises(UserError, match=r"no images there \(left out, no images: 1 \.txt \(a\.txt\)\)"):
        names(tree / "a.txt")


@pytest.mark.parametrize("item", ["nothing.jpg", "*.nothing", ""])
def test_what_names_nothing_is_refused(tree: Path, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    (tree.parent / "empty").mkdir()
    with pytest.raises(UserError, match=r"no such file|no images"):
        names(item or "empty")


def test_a_pattern_that_climbs_is_refused(tree: Path) -> None:
    with pytest.raises(UserError, match=r"\.\. after a wildcard"):
        names(f"{tree}/*/../a.jpg")
