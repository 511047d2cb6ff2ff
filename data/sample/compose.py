"""Compose the embedded sample: photographic cut-outs on photographs, with exact masks.

The sources are Debian packages (release 12, "bookworm"), unpacked side by side without installing them::

    apt-get download tuxpaint-stamps-default tuxpaint-data mate-backgrounds \
        lomiri-wallpapers-16.04 stellarium-data palapeli-data
    for package in *.deb; do dpkg -x "$package" sources; done
    python data/sample/compose.py --stamps sources/usr/share/tuxpaint/stamps \
        --backgrounds sources/usr/share --out data/sample

``selection.toml`` beside this file lists the cut-outs and photographs taken, and the split of each.
The scenes depend on its seed only: a second run writes the same masks and tables, and with the same
version of Pillow the same JPEG files.
"""

from __future__ import annotations

import argparse
import csv
import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import binary_dilation, gaussian_filter, shift

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
T = TypeVar("T")

SPLITS = ("train", "val")
LANDSCAPE = (256, 192)  # width, height
PORTRAIT = (192, 256)
PORTRAIT_SHARE = 0.08
OBJECT_SHARES = {1: 0.45, 2: 0.42, 3: 0.13}  # objects in a scene: share of the scenes
SAME_CLASS_SHARE = 0.12  # of the further objects in a scene
AREA_RANGE = {1: (0.025, 0.45), 2: (0.025, 0.3), 3: (0.02, 0.15)}  # by objects in the scene
MAX_UPSCALE = 2.0  # a cut-out enlarged further looks blurred beside its background
MAX_EXTENT = 1.1  # of the image side; the long thin ones would otherwise reach far outside
MIN_VISIBLE_AREA = 0.008  # of the image
MIN_VISIBLE_SHARE = 0.75  # of the object itself
PLACEMENT_TRIES = 60
MIN_DISTINCTNESS = 55.0  # colour distance (0..441) to the surroundings; below, an object hides in them
CROP_TRIES = 60
MIN_CROP_CONTRAST = 12.0  # standard deviation of the grey values of a background crop
CROP_BRIGHTNESS = (30.0, 215.0)  # lowest and highest mean grey value
LONGEST_BACKGROUND = 1280  # more pixels than that never show in a 256-pixel image
OVERCAST_SKY = (206, 214, 224)  # behind the panoramas, whose own sky is cut out
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Cutout:
    """One photographed object with its outline in the alpha channel."""

    file: str
    class_index: int
    rotation: float
    grounded: bool
    trim: bool
    mirror: bool


@dataclass(frozen=True)
class Background:
    """One photograph and the part of it that may be used, as fractions of its sides."""

    file: str
    region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Selection:
    """What ``selection.toml`` says; class index 0 is the background."""

    seed: int
    counts: dict[str, int]
    classes: list[str]
    cutouts: dict[str, list[Cutout]]
    backgrounds: dict[str, list[Background]]


@dataclass(frozen=True)
class Scene:
    """The plan of one image: its background and its objects from the lowest to the uppermost."""

    name: str
    split: str
    size: tuple[int, int]
    background: Background
    cutouts: list[Cutout]


@dataclass(frozen=True)
class Layer:
    """An object on the canvas: premultiplied colour (H, W, 3) in 0..255 and alpha (H, W) in 0..1."""

    colour: Floats
    alpha: Floats
    class_index: int

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Pixels (H, W) that belong to the object."""
        return self.alpha >= 0.5


@dataclass(frozen=True)
class Placed:
    """An object in its place, and its area in pixels had nothing cut or covered it."""

    layer: Layer
    full_area: int
    cutout: Cutout


@dataclass(frozen=True)
class Composition:
    """A finished scene: image (H, W, 3) uint8, mask (H, W) uint8 and the cut-outs that found a place."""

    image: Bytes
    mask: Bytes
    cutouts: list[Cutout]


def read_selection(path: Path) -> Selection:
    """Read the table of cut-outs and backgrounds."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    cutouts: dict[str, list[Cutout]] = {split: [] for split in SPLITS}
    backgrounds: dict[str, list[Background]] = {split: [] for split in SPLITS}
    for index, entry in enumerate(table["class"], start=1):
        for split in SPLITS:
            for name in entry[split]:
                file = (Path(entry["folder"]) / f"{name}.png").as_posix()
                trim, mirror = name in entry.get("trim", []), name not in entry.get("lettered", [])
                cutouts[split].append(Cutout(file, index, entry["rotation"], entry["grounded"], trim, mirror))
    for entry in table["background"]:
        left, top, right, bottom = entry.get("region", (0.0, 0.0, 1.0, 1.0))
        backgrounds[entry["split"]].append(Background(entry["file"], (left, top, right, bottom)))
    names = [entry["name"] for entry in table["class"]]
    return Selection(table["seed"], dict(table["images"]), names, cutouts, backgrounds)


def voc_palette() -> list[int]:
    """Return the 256 colours of the PASCAL VOC masks, flat: red, green, blue, red, ..."""
    palette = []
    for index in range(256):
        for channel in range(3):
            palette.append(sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return palette


def deal(rng: Generator, items: Sequence[T]) -> Iterator[T]:
    """Yield the items for ever, shuffled anew after each full round, so that all come equally often."""
    while True:
        for index in rng.permutation(len(items)):
            yield items[index]


def object_counts(rng: Generator, scenes: int) -> list[int]:
    """Return how many objects each of the scenes gets, in the shares of ``OBJECT_SHARES``."""
    counts: list[int] = []
    for objects, share in OBJECT_SHARES.items():
        counts += [objects] * round(share * scenes)
    counts = (counts + [1] * scenes)[:scenes]
    return [counts[index] for index in rng.permutation(scenes)]


def plan_split(rng: Generator, selection: Selection, split: str) -> list[Scene]:
    """Plan all scenes of a split, with the classes balanced overall and over the backgrounds."""
    classes = range(1, len(selection.classes) + 1)
    decks = {c: deal(rng, [o for o in selection.cutouts[split] if o.class_index == c]) for c in classes}
    backgrounds = deal(rng, selection.backgrounds[split])
    used: Counter[int] = Counter()
    paired: Counter[tuple[str, int]] = Counter()
    scenes = []
    for number, objects in enumerate(object_counts(rng, selection.counts[split])):
        background = next(backgrounds)
        chosen: list[int] = []
        for _ in range(objects):
            free = [c for c in classes if c not in chosen]
            if chosen and rng.random() < SAME_CLASS_SHARE:
                free = chosen[-1:]
            # The rarest class so far comes next, the one this background has shown least among equals.
            cost = {c: used[c] + 2.0 * paired[background.file, c] + 2.0 * rng.random() for c in free}
            choice = min(free, key=lambda c: cost[c])
            chosen.append(choice)
            used[choice] += 1
            paired[background.file, choice] += 1
        size = PORTRAIT if rng.random() < PORTRAIT_SHARE else LANDSCAPE
        cutouts = [next(decks[c]) for c in chosen]
        scenes.append(Scene(f"{split}_{number:03d}", split, size, background, cutouts))
    return scenes


def read_cutout(path: Path, trim: bool) -> Image.Image:
    """Read a cut-out as RGBA, cropped to its outline; ``trim`` takes the outline in by one pixel."""
    picture = Image.open(path).convert("RGBA")
    if trim:
        # A border of nothing, so that an outline touching the edge of the file is taken in as well.
        padded = Image.new("RGBA", (picture.width + 2, picture.height + 2))
        padded.paste(picture, (1, 1))
        picture = padded
        picture.putalpha(picture.getchannel("A").filter(ImageFilter.MinFilter(3)))
    return picture.crop(picture.getchannel("A").getbbox())


def read_background(path: Path, region: tuple[float, float, float, float]) -> Image.Image:
    """Read the usable region of a photograph as RGB, no larger than needed."""
    picture: Image.Image = Image.open(path)
    if picture.mode in ("RGBA", "P"):
        picture = picture.convert("RGBA")
        sky = Image.new("RGBA", picture.size, OVERCAST_SKY)
        picture = Image.alpha_composite(sky, picture)
    picture = picture.convert("RGB")
    left, top, right, bottom = region
    width, height = picture.size
    picture = picture.crop(
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
    )
    picture.thumbnail((LONGEST_BACKGROUND, LONGEST_BACKGROUND), Image.Resampling.LANCZOS)
    return picture


def crop_background(rng: Generator, photograph: Image.Image, size: tuple[int, int]) -> Floats:
    """Cut a random window of the wanted shape; returns (H, W, 3) float32 in 0..255.

    Windows without structure (blown-out sky, black shade) are passed over while others can be found.
    """
    largest = float(min(photograph.width / size[0], photograph.height / size[1]))
    best: tuple[float, Floats] | None = None
    for _ in range(CROP_TRIES):
        zoom = math.exp(rng.uniform(math.log(min(1.0, largest)), math.log(largest)))
        width, height = size[0] * zoom, size[1] * zoom
        left = rng.uniform(0, photograph.width - width)
        top = rng.uniform(0, photograph.height - height)
        box = (left, top, left + width, top + height)
        window = photograph.resize(size, Image.Resampling.LANCZOS, box=box)
        if rng.random() < 0.5:
            window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        grey = np.asarray(window.convert("L"), dtype=np.float32)
        contrast = float(grey.std())
        pixels = np.asarray(window, dtype=np.float32)
        darkest, brightest = CROP_BRIGHTNESS
        if contrast >= MIN_CROP_CONTRAST and darkest <= grey.mean() <= brightest:
            return pixels
        if best is None or contrast > best[0]:
            best = (contrast, pixels)
    assert best is not None
    return best[1]


def transform_cutout(picture: Image.Image, scale: float, angle: float, flip: bool) -> Image.Image:
    """Scale, mirror and turn an RGBA cut-out (Pillow does so with premultiplied colours)."""
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)


def scale_for_area(picture: Image.Image, size: tuple[int, int], share: float) -> float:
    """Return the scale at which the cut-out covers this share of an image, within what looks right."""
    solid = int(np.count_nonzero(np.asarray(picture.getchannel("A")) >= 128))
    wanted = math.sqrt(share * size[0] * size[1] / max(1, solid))
    fitting = MAX_EXTENT * min(size[0] / picture.width, size[1] / picture.height)
    return min(wanted, fitting, MAX_UPSCALE)


def lay(picture: Image.Image, corner: tuple[int, int], size: tuple[int, int], class_index: int) -> Layer:
    """Put an RGBA cut-out on an empty canvas with its upper left at ``corner``, cutting what stands out."""
    canvas = Image.new("RGBA", size)
    canvas.paste(picture, corner)
    pixels = np.asarray(canvas, dtype=np.float32)
    alpha = pixels[..., 3] / 255.0
    return Layer(pixels[..., :3] * alpha[..., None], alpha, class_index)


def merge_masks(layers: Sequence[Layer], size: tuple[int, int]) -> Bytes:
    """Return the mask (H, W) uint8 of class indices; where objects overlap, the upper one wins."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    for layer in layers:
        mask[layer.inside] = layer.class_index
    return mask


def visible_areas(layers: Sequence[Layer]) -> list[int]:
    """Return the pixels of each layer that the layers above it leave in sight."""
    areas = []
    covered = np.zeros(layers[0].alpha.shape, dtype=bool)
    for layer in reversed(layers):
        areas.append(int(np.count_nonzero(layer.inside & ~covered)))
        covered |= layer.inside
    return areas[::-1]


def pick_corner(
    rng: Generator, extent: tuple[int, int], size: tuple[int, int], grounded: bool
) -> tuple[int, int]:
    """Pick the upper left corner of an object: mostly wholly in the image, sometimes cut by its border."""
    margin = 0.25 if rng.random() < 0.2 else 0.0
    corner = []
    for side, length in zip(extent, size, strict=True):
        first, last = sorted((-margin * side, length - side + margin * side))
        corner.append(round(rng.uniform(first, last)))
    if grounded:
        foot = rng.uniform(max(0.65 * size[1], min(extent[1], size[1])), 1.02 * size[1])
        corner[1] = round(foot) - extent[1]
    return corner[0], corner[1]


def jitter_colour(rng: Generator, pixels: Floats, strength: float) -> Floats:
    """Vary brightness, contrast and colour temperature of an image (H, W, 3) in 0..255."""
    gain = 1.0 + strength * rng.uniform(-1, 1)
    contrast = 1.0 + strength * rng.uniform(-1, 1)
    warmth = 0.5 * strength * rng.uniform(-1, 1)
    tint = np.array([1.0 + warmth, 1.0, 1.0 - warmth], dtype=np.float32)
    middle = float(pixels.mean())
    return np.asarray(((pixels - middle) * contrast + middle) * gain * tint, dtype=np.float32)


def match_light(layer: Layer, scene: Floats) -> Floats:
    """Move the object's brightness a little towards the scene's; returns its straight colour (H, W, 3)."""
    mean = layer.colour[layer.inside].mean(axis=0)
    ratio = (scene.mean() + 20.0) / (mean.mean() + 20.0)
    alpha = layer.alpha[..., None]
    # Outside, the mean stands in for the colour there is none of, so that the contrast pivots right.
    straight = np.where(alpha > 0, layer.colour / np.maximum(alpha, 1e-3), mean)
    return np.asarray(straight * np.clip(ratio**0.2, 0.8, 1.2), dtype=np.float32)


def cast_shadow(rng: Generator, scene: Floats, layer: Layer) -> Floats:
    """Darken the scene (H, W, 3) softly beside and below the object."""
    offset = (rng.uniform(1, 5), rng.uniform(-4, 4))
    shade = gaussian_filter(shift(layer.alpha, offset, order=1), sigma=rng.uniform(2.0, 5.0))
    return np.asarray(scene * (1.0 - rng.uniform(0.12, 0.35) * shade[..., None]), dtype=np.float32)


def blend(rng: Generator, scene: Floats, layer: Layer) -> Floats:
    """Draw one object over the scene (H, W, 3), its colours jittered and its edge slightly softened."""
    colour = jitter_colour(rng, match_light(layer, scene), 0.12)
    softness = rng.uniform(0.35, 0.6)
    premultiplied = np.clip(colour, 0, 255) * layer.alpha[..., None]
    # Softened premultiplied: the transparent surroundings then add nothing dark to the edge.
    over = gaussian_filter(premultiplied, sigma=(softness, softness, 0))
    alpha = gaussian_filter(layer.alpha, sigma=softness)[..., None]
    if rng.random() < 0.6:
        scene = cast_shadow(rng, scene, layer)
    return np.asarray(scene * (1.0 - alpha) + over, dtype=np.float32)


def finish(rng: Generator, scene: Floats) -> Bytes:
    """Apply what a camera does to the whole picture: exposure, a little blur, a little noise."""
    scene = jitter_colour(rng, scene, 0.08)
    blur = rng.uniform(0.0, 0.5)
    scene = np.asarray(gaussian_filter(scene, sigma=(blur, blur, 0)), dtype=np.float32)
    noise = rng.normal(0.0, rng.uniform(0.0, 3.5), scene.shape)
    return np.clip(np.rint(scene + noise), 0, 255).astype(np.uint8)


def acceptable(placed: Sequence[Placed], image_area: int) -> bool:
    """Tell whether enough of every object is in sight, with each other and the border in the way."""
    return all(
        area >= MIN_VISIBLE_AREA * image_area and area >= MIN_VISIBLE_SHARE * item.full_area
        for area, item in zip(visible_areas([item.layer for item in placed]), placed, strict=True)
    )


def distinctness(layer: Layer, scene: Floats) -> float:
    """Return how far the object's mean colour is from that of the scene (H, W, 3) around it."""
    ring = binary_dilation(layer.inside, iterations=8) & ~layer.inside
    if not ring.any() or not layer.inside.any():
        return 0.0
    return float(np.linalg.norm(layer.colour[layer.inside].mean(axis=0) - scene[ring].mean(axis=0)))


def place_one(
    rng: Generator, picture: Image.Image, cutout: Cutout, share: float, below: Sequence[Placed], scene: Floats
) -> Placed | None:
    """Find a place for an RGBA cut-out over those ``below``; None where there is no room.

    Of the possible places the first that sets it off against the scene (H, W, 3) is taken, or else the
    one that does so best.
    """
    size = (scene.shape[1], scene.shape[0])
    image_area = size[0] * size[1]
    angle = rng.uniform(-cutout.rotation, cutout.rotation)
    flip = cutout.mirror and bool(rng.random() < 0.5)
    scale = scale_for_area(picture, size, share)
    best: tuple[float, Placed] | None = None
    for _ in range(PLACEMENT_TRIES):
        turned = transform_cutout(picture, scale, angle, flip)
        corner = pick_corner(rng, turned.size, size, cutout.grounded)
        full = int(np.count_nonzero(np.asarray(turned.getchannel("A")) >= 128))
        candidate = Placed(lay(turned, corner, size, cutout.class_index), full, cutout)
        if acceptable([*below, candidate], image_area):
            found = (distinctness(candidate.layer, scene), candidate)
            best = found if best is None or found[0] > best[0] else best
            if best[0] >= MIN_DISTINCTNESS:
                break
        elif full > 1.5 * MIN_VISIBLE_AREA * image_area:
            scale *= 0.97  # a smaller object finds room more easily
    return None if best is None else best[1]


def place(
    rng: Generator, pictures: Sequence[Image.Image], cutouts: Sequence[Cutout], scene: Floats
) -> list[Placed]:
    """Place the RGBA cut-outs one above the other; one that finds no room is left out."""
    placed: list[Placed] = []
    smallest, largest = AREA_RANGE[len(cutouts)]
    for picture, cutout in zip(pictures, cutouts, strict=True):
        share = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
        found = place_one(rng, picture, cutout, share, placed, scene)
        if found is not None:
            placed.append(found)
    return placed


def compose(
    rng: Generator, photograph: Image.Image, pictures: Sequence[Image.Image], scene: Scene
) -> Composition:
    """Compose one scene from its photograph (RGB) and its cut-outs (RGBA, in the scene's order)."""
    pixels = jitter_colour(rng, crop_background(rng, photograph, scene.size), 0.1)
    placed = place(rng, pictures, scene.cutouts, pixels)
    layers = [item.layer for item in placed]
    for layer in layers:
        pixels = blend(rng, pixels, layer)
    cutouts = [item.cutout for item in placed]
    return Composition(finish(rng, pixels), merge_masks(layers, scene.size), cutouts)


def find_file(roots: Sequence[Path], file: str) -> Path:
    """Return the first of the roots' files of that relative name."""
    for root in roots:
        if (root / file).is_file():
            return root / file
    raise FileNotFoundError(f"{file} is below none of the given directories")


def save_mask(mask: Bytes, path: Path) -> None:
    """Save a mask (H, W) uint8 as a palette PNG in the VOC colours."""
    picture = Image.fromarray(mask)
    picture.putpalette(voc_palette())
    picture.save(path, optimize=True)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file with Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_sample(selection: Selection, stamps: Path, background_roots: Sequence[Path], out: Path) -> None:
    """Compose and write every image, mask and table of the sample."""
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for old in (out / folder).iterdir():
            old.unlink()
    labels: list[list[str]] = []
    sources: list[list[str]] = []
    for split_number, split in enumerate(SPLITS):
        planner = np.random.default_rng([selection.seed, split_number])
        photographs = {
            b.file: read_background(find_file(background_roots, b.file), b.region)
            for b in selection.backgrounds[split]
        }
        for number, scene in enumerate(plan_split(planner, selection, split)):
            rng = np.random.default_rng([selection.seed, split_number, number])
            pictures = [read_cutout(find_file([stamps], c.file), c.trim) for c in scene.cutouts]
            result = compose(rng, photographs[scene.background.file], pictures, scene)
            image = f"{scene.name}.jpg"
            Image.fromarray(result.image).save(out / "images" / image, quality=JPEG_QUALITY, optimize=True)
            save_mask(result.mask, out / "masks" / f"{scene.name}.png")
            tags = [selection.classes[index - 1] for index in np.unique(result.mask) if index]
            labels.append([image, ";".join(tags), split])
            files = ";".join(c.file for c in result.cutouts)
            sources.append([image, split, scene.background.file, files])
    write_rows(out / "labels.csv", ("image", "tags", "split"), labels)
    write_rows(out / "sources.csv", ("image", "split", "background", "cutouts"), sources)
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in selection.classes), encoding="utf-8")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Compose the embedded sample.")
    parser.add_argument("--stamps", type=Path, required=True, help="the tuxpaint/stamps directory")
    parser.add_argument("--backgrounds", type=Path, nargs="+", required=True, help="usr/share directories")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--selection", type=Path, default=Path(__file__).with_name("selection.toml"))
    arguments = parser.parse_args()
    selection = read_selection(arguments.selection)
    write_sample(selection, arguments.stamps, arguments.backgrounds, arguments.out)


if __name__ == "__main__":
    main()
