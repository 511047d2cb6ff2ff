"""Names of classes and files bring no markup into the report's page."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from tests.reports import made_up_run
from tests.trees import make_folder_tree
from wsss.config import DataConfig

NAMES = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x' {{7*7}} </style>")
HARMLESS = ("one", "two", "three")


class Tags(HTMLParser):
    """Counts tags with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[str, ...]] = Counter()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[(tag, *(name for name, _ in attrs))] += 1
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


def tags_of(page: str) -> Tags:
    parser = Tags()
    parser.feed(page)
    return parser


def hostile_tree(root: Path, names: tuple[str, ...]) -> DataConfig:
    """A data set whose classes and files are called so; `/` cannot be in a file's name."""
    data = make_folder_tree(root, n_train=3, n_val=3, classes=names, size=(16, 24))
    rows = (root / "labels.csv").read_text()
    for index, split in enumerate(["train"] * 3 + ["val"] * 3):
        old = f"{split}_{index:03d}"
        new = f"{index} {names[index % 3].replace('/', '')}" if names is NAMES else f"{index} plain"
        (root / "images" / f"{old}.jpg").rename(root / "images" / f"{new}.jpg")
        (root / "masks" / f"{old}.png").rename(root / "masks" / f"{new}.png")
        quoted = '"' + new.replace('"', '""') + '.jpg"'
        rows = rows.replace(f"{old}.jpg", quoted)
    (root / "labels.csv").write_text(rows)
    return data


def test_names_cannot_bring_markup_into_the_report(tmp_path: Path) -> None:
    pages: list[str] = []
    for names in (HARMLESS, NAMES):
        folder = tmp_path / str(len(pages))
        session = made_up_run(hostile_tree(folder / "data", names), folder / "ws")
        pages.append((session.run.folder / "report.html").read_text())
    plain, hostile = map(tags_of, pages)
    assert set(hostile.seen) == set(plain.seen)
    assert hostile.seen[("script",)] == 1
    assert not any(re.match("on", name) for tag in hostile.seen for name in tag[1:])
    assert all(link.startswith(("data:", "#")) for link in hostile.links)
    assert "alert(1)" in pages[1]  # the names are there, as text
