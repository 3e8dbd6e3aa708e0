"""Pictures of scenes: textured backgrounds, shaded objects with soft shadows, digits on white plates."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .world import GRID, IMAGE, PATCH, Scene, Thing

RGB = {
    "red": (214, 42, 42),
    "green": (34, 150, 66),
    "blue": (42, 84, 214),
    "yellow": (242, 214, 48),
    "purple": (138, 60, 178),
    "orange": (242, 138, 32),
    "cyan": (60, 206, 214),
    "pink": (242, 134, 184),
}
GROUND = {
    "grass": (98, 146, 76),
    "sand": (216, 192, 144),
    "water": (74, 124, 172),
    "snow": (230, 235, 242),
    "brick": (160, 88, 72),
    "night": (26, 28, 54),
}
ROUGHNESS = {"grass": 42, "sand": 20, "water": 24, "snow": 12, "brick": 18, "night": 14}
DIGIT_PX = {"small": 18, "large": 28}  # font size
TEXTURE, TEXTURES = 480, 8  # px a side, and how many of each setting
SUPER = 2  # supersampling of the objects


class Rendered(NamedTuple):
    """An image uint8 [336, 336, 3], and which thing owns each pixel, uint8 [336, 336]: 0 none, i + 1 thing i.

    `owner` counts the whole thing, `plate` only its number plate.
    """

    image: np.ndarray
    owner: np.ndarray
    plate: np.ndarray


def _noise(r: np.random.RandomState, cells: int) -> np.ndarray:
    small = Image.fromarray((r.rand(cells, cells) * 255).astype(np.uint8))
    return np.asarray(small.resize((TEXTURE, TEXTURE), Image.Resampling.BICUBIC), np.float32) / 255 - 0.5


@cache
def _texture(setting: str, number: int) -> np.ndarray:
    r = np.random.RandomState(1000 * sorted(GROUND).index(setting) + number)
    img = np.broadcast_to(np.array(GROUND[setting], np.float32), (TEXTURE, TEXTURE, 3)).copy()
    for cells, weight in ((7, 0.6), (34, 0.6), (150, 0.8)):
        img += (_noise(r, cells) * ROUGHNESS[setting] * weight)[..., None]
    y, x = np.mgrid[:TEXTURE, :TEXTURE]
    if setting == "grass":
        img[..., 1] += _noise(r, 240) * 38
    elif setting == "sand":
        img += (5 * np.sin((y + 0.4 * x) / 9 + 9 * _noise(r, 8)))[..., None]
    elif setting == "water":
        img += (13 * np.sin(y / (5 + 3 * r.rand()) + 11 * _noise(r, 10)))[..., None]
    elif setting == "brick":
        h = 18 + r.randint(8)
        shift = x + (y // h % 2) * h
        img += (r.rand(64, 64)[y // h % 64, shift // (2 * h) % 64] * 30 - 15)[..., None]
        img[(y % h < 2) | (shift % (2 * h) < 2)] = (196, 186, 176)
    elif setting == "night":
        for _ in range(150):
            a, b = r.randint(0, TEXTURE - 2, 2)
            img[a : a + 1 + r.randint(2), b : b + 1 + r.randint(2)] = 150 + r.randint(100)
    return np.clip(img, 0, 255).astype(np.uint8)


@cache
def _font(px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=px)


def outline(shape: str, r: float) -> list[tuple[float, float]]:
    """Corners of a shape of radius r around the origin; a circle has none."""
    if shape == "circle":
        return []
    if shape == "square":
        q = 0.86 * r
        return [(-q, -q), (q, -q), (q, q), (-q, q)]
    if shape == "diamond":
        q = 1.05 * r
        return [(0, -q), (q, 0), (0, q), (-q, 0)]
    if shape == "triangle":
        return [(0, -r), (r, 0.85 * r), (-r, 0.85 * r)]
    if shape == "cross":
        a = 0.42 * r
        quarter = [(a, -r), (a, -a), (r, -a)]
        corners = []
        for _ in range(4):
            corners += quarter
            quarter = [(-y, x) for x, y in quarter]
        return corners
    radii = [1.08 * r if i % 2 == 0 else 0.52 * r for i in range(10)]
    return [(q * math.sin(i * math.pi / 5), -q * math.cos(i * math.pi / 5)) for i, q in enumerate(radii)]


def _paint(material: str, width: int, color: tuple[int, ...], dark: tuple[int, ...], small: bool) -> Image.Image:
    tile = Image.new("RGB", (width, width), color)
    draw = ImageDraw.Draw(tile)
    if material == "striped":
        step = 10 if small else 14
        for y in range(-width, 2 * width, step):
            draw.line([(0, y), (width, y - width)], fill=dark, width=step // 3 + 1)
    elif material == "dotted":
        step, q = (11, 2.6) if small else (16, 4.0)
        for y in range(3, width, step):
            for x in range(3 + (y // step % 2) * step // 2, width, step):
                draw.ellipse([x - q, y - q, x + q, y + q], fill=dark)
    return tile


def _lit(tile: Image.Image) -> Image.Image:
    """Light from the upper left."""
    n = tile.size[0]
    ramp = np.linspace(-1, 1, n, dtype=np.float32)
    light = 1 - 0.15 * (ramp[:, None] + ramp[None])
    return Image.fromarray(np.clip(np.asarray(tile, np.float32) * light[..., None], 0, 255).astype(np.uint8))


def _place(img: Image.Image, thing: Thing, rng: random.Random) -> tuple[Image.Image, tuple[int, int, int, int] | None]:
    """Draw a thing; its mask as an image of the picture's size, and the box of its plate in px."""
    half = int(thing.r * 1.12) + 3
    width, c, small = 2 * half * SUPER, half * SUPER, thing.size == "small"
    color = tuple(int(min(255, v * rng.uniform(0.92, 1.06))) for v in RGB[thing.color])
    dark, rim = tuple(int(v * 0.5) for v in color), tuple(int(v * 0.28) for v in color)
    tile = _lit(_paint(thing.material, width, color, dark, small))
    draw, mask = ImageDraw.Draw(tile), Image.new("L", (width, width), 0)
    shade = ImageDraw.Draw(mask)
    corners = [(c + x * SUPER, c + y * SUPER) for x, y in outline(thing.shape, thing.r)]
    if corners:
        shade.polygon(corners, fill=255)
        draw.line([*corners, corners[0]], fill=rim, width=4, joint="curve")
    else:
        box = [c - thing.r * SUPER, c - thing.r * SUPER, c + thing.r * SUPER, c + thing.r * SUPER]
        shade.ellipse(box, fill=255)
        draw.ellipse(box, outline=rim, width=3)
    plate = None
    if thing.digit is not None:
        px = DIGIT_PX[thing.size] * SUPER
        w, h, drop = px * 0.36, px * 0.46, thing.r * 0.18 * SUPER if thing.shape == "triangle" else 0.0
        frame = [c - w, c - h + drop, c + w, c + h + drop]
        shade.rounded_rectangle(frame, 5, fill=255)  # the plate may be wider than the shape
        draw.rounded_rectangle(frame, 5, fill=(255, 255, 255))
        ink = (10, 10, 10)
        draw.text(
            (c, c + drop), str(thing.digit), fill=ink, font=_font(px), anchor="mm", stroke_width=1, stroke_fill=ink
        )
        y = thing.y + drop / SUPER
        w, h = w / SUPER, h / SUPER
        plate = (int(thing.x - w), int(y - h), int(thing.x + w) + 1, int(y + h) + 1)
    at, size = (thing.x - half, thing.y - half), (2 * half, 2 * half)
    mask = mask.resize(size, Image.Resampling.BOX)
    shadow = Image.new("L", (size[0] + 12, size[1] + 12), 0)
    shadow.paste(mask.point(lambda v: v * 0.45), (6, 6))
    img.paste((0, 0, 0), (at[0] - 4, at[1] - 2), shadow.filter(ImageFilter.GaussianBlur(2.2)))
    img.paste(tile.resize(size, Image.Resampling.BOX), at, mask)
    full = Image.new("L", img.size, 0)
    full.paste(mask, at)
    return full, plate


def render(scene: Scene) -> Rendered:
    """The picture of a scene; a pure function of the scene, whose seed chooses the texture and the tints."""
    rng = random.Random(f"{scene.split} {scene.seed}")
    texture = _texture(scene.setting, rng.randrange(TEXTURES))
    y, x = rng.randint(0, TEXTURE - IMAGE), rng.randint(0, TEXTURE - IMAGE)
    ground = texture[y : y + IMAGE, x : x + IMAGE][:, :: rng.choice((1, -1))]
    img = Image.fromarray(np.clip(ground.astype(np.float32) * rng.uniform(0.88, 1.1), 0, 255).astype(np.uint8))
    owner, plate = np.zeros((IMAGE, IMAGE), np.uint8), np.zeros((IMAGE, IMAGE), np.uint8)
    for i, thing in enumerate(scene.things):
        mask, box = _place(img, thing, rng)
        owner[np.asarray(mask) > 127] = i + 1
        if box:
            plate[box[1] : box[3], box[0] : box[2]] = i + 1
    return Rendered(np.asarray(img), owner, plate)


def by_cell(index: np.ndarray) -> np.ndarray:
    """[336, 336] -> [576, 196]: the pixels of each cell, cells in raster order."""
    return index.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, PATCH * PATCH)


def cells(rendered: Rendered, things: Iterable[int], least: int = 20) -> list[int]:
    """The grid cells (24 x 24, raster index) that have at least `least` px of the given things."""
    wanted = np.isin(by_cell(rendered.owner), [i + 1 for i in things])
    return np.nonzero(wanted.sum(1) >= least)[0].tolist()
