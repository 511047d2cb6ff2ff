"""The pages: complete, closed to the network and to scripts from names, readable for everybody and everywhere."""

import html
import itertools
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from stages.commands.ablate.page import as_page
from stages.commands.ablate.results import BY_KEY, Results, RunResult
from stages.commands.compare import run_compare
from stages.commands.report import report_paths
from stages.commands.session import Session
from tests.reports import synthetic_run
from tests.trees import make_folder_tree, write_csv
from wsss.config import DataConfig

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }} & Ümläut's")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = ("meta", "link", "img", "br")


class Page(HTMLParser):
    """What a page is made of: start tags with their attributes, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A run whose class names and image ids try to be markup."""
    root = tmp_path_factory.mktemp("data")
    data = make_folder_tree(root, n_train=6, n_val=3)
    rows = []
    for path in sorted((root / "images").iterdir()):
        renamed = f"{path.stem} <b onclick=x>.jpg"
        path.rename(path.with_name(renamed))
        mask = root / "masks" / f"{path.stem}.png"
        mask.rename(mask.with_name(f"{path.stem} <b onclick=x>.png"))
        index = int(path.stem.split("_")[1])
        rows.append((renamed, HOSTILE[index % 3], path.stem.split("_")[0]))
    write_csv(root / "labels.csv", rows)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in HOSTILE), encoding="utf-8")
    return synthetic_run(DataConfig(source="folder", root=str(data.root)), tmp_path_factory.mktemp("ws"))


@pytest.fixture(scope="module")
def pages(hostile: Session) -> list[str]:
    """The report, a comparison and an ablation."""
    root = hostile.workspace.root
    out = root / "compared.html"
    synthetic_run(hostile.config.data, root, "seed=1", name="other", shift=9)
    run_compare(["synthetic", "other"], root, out=out, resamples=100)
    written = [path.read_text(encoding="utf-8") for path in (report_paths(hostile.run)[0], out)]
    run = RunResult("baseline", 0, "x", dict.fromkeys(BY_KEY, 0.5))
    other = RunResult(" ".join(HOSTILE), 0, "#", dict.fromkeys(BY_KEY, 0.4))
    variants: dict[str, Sequence[str]] = {item.variant: () for item in (run, other)}
    return [*written, as_page(Results(HOSTILE[0], variants, (0,), (), runs=(run, other)))]


def test_names_never_become_markup(pages: list[str]) -> None:
    for text in pages:
        page = Page(text)
        assert len(page.all("script")) == 1
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        words = "".join(page.words)
        assert HOSTILE[0] in words
        assert HOSTILE[1] in words
        assert HOSTILE[2] in words  # no template is evaluated twice
        assert not page.all("b onclick")


def test_a_page_asks_nothing_of_a_network(pages: list[str]) -> None:
    for text in pages:
        page = Page(text)
        addresses = [a.get(key) for _, a in page.tags for key in ("src", "href", "srcset") if key in a]
        assert all((address or "").startswith(("data:", "#", "../")) for address in addresses)
        assert "@import" not in text
        assert "url(" not in text


def test_a_page_can_be_read_without_seeing_it(pages: list[str]) -> None:
    for text in pages:
        page = Page(text)
        assert page.all("html")[0]["lang"] == "en"
        assert all(image.get("alt") for image in page.all("img"))
        assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.all("svg"))
        assert page.all("table")
        assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_pictures_show_what_they_should(pages: list[str]) -> None:
    alts = [image["alt"] or "" for image in Page(pages[0]).all("img")]
    starts = "image,class activation maps,seed:,pseudo-mask:,prediction:,ground truth:,errors:"
    for start in starts.split(","):
        assert any(alt.startswith(start) for alt in alts)


def test_the_exits_have_a_table_with_the_deployed_one_marked(pages: list[str]) -> None:
    page = Page(pages[0])
    words = " ".join(" ".join(page.words).split())
    for part in ("exit at mIoU block 3", "block 4", "deepest block: deployed"):
        assert part in words
    assert words.count("exit at") == 1  # of the segmentation network alone


def test_texts_stand_out_from_their_ground() -> None:
    style = (Path(__file__).parent.parent / "stages/commands/report/templates/base.html").read_text(
        encoding="utf-8"
    )
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", style))
    for ink in ("ink", "soft", "main", "good", "bad"):
        for ground in ("back", "tint"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)  # WCAG 2.1, level AA


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio of two colours."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def chromium(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    quiet = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    log = ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000"]
    home = f"--user-data-dir={page.parent / 'profile'}"
    command = [CHROMIUM, *quiet, *log, home, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


PROBE = """<script>onload = function () {
  var page = document.querySelector("iframe").contentDocument, table = page.querySelector("table.sortable");
  var button = table.querySelectorAll("th button")[1], before = table.tBodies[0].rows[0].textContent;
  button.click();
  button.click();
  var after = table.tBodies[0].rows[0].textContent;
  var broken = Array.from(page.images).filter(function (image) { return image.complete && !image.naturalWidth; });
  document.body.append("width " + page.documentElement.scrollWidth + " sorted " + (before !== after) +
    " broken " + broken.length);
};</script>"""
"""Sorts a table, then says how wide the page is and how many of its pictures cannot be shown."""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_browser_shows_it_without_complaint(
    pages: list[str], tmp_path: Path, width: int, height: int
) -> None:
    # A frame of the wanted width: the window itself cannot be as narrow as a phone.
    for index, text in enumerate(pages):
        page = tmp_path / f"{index}.html"
        frame = f'<iframe width="{width}" height="{height}" style="border:0" srcdoc="{html.escape(text)}"></iframe>'
        page.write_text(f"<!doctype html><body>{frame}{PROBE}</body>", encoding="utf-8")
        done = chromium(page, "--dump-dom", f"--window-size={width + 40},{height}")
        assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
        found = re.search(r"width (\d+) sorted (\w+) broken (\d+)", done.stdout)
        assert found, done.stderr[-2000:]
        assert int(found[1]) <= width
        assert (found[2], found[3]) == ("true", "0")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_screenshot_is_not_blank(pages: list[str], tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_text(pages[0], encoding="utf-8")
    chromium(page, f"--screenshot={picture}", "--window-size=1280,2000")
    with Image.open(picture) as shot:
        colours = shot.convert("RGB").getcolors(1 << 24)
    assert colours
    assert len(colours) > 500
