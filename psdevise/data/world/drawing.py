"""The pictures of the drawn world: each trait shapes one side of the look.

habitat → the ground behind, motion → the outline, use → the hue, diet → the pattern, company → the crest.
Position, size, rotation, proportions, light and pixel noise vary freely from picture to picture.
"""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from psdevise.data.world.kinds import VALUES, Kind

SCALE = 3  # drawn this much larger, then reduced: smooth edges
GROUNDS = (
    ((40, 90, 150), (90, 150, 190)),
    ((200, 170, 110), (225, 200, 150)),
    ((40, 80, 45), (80, 120, 60)),
    ((150, 155, 165), (205, 210, 220)),
    ((110, 90, 85), (150, 125, 115)),
    ((80, 95, 70), (115, 130, 120)),
)
HUES = (0.0, 0.09, 0.17, 0.48, 0.75, 0.88)


def draw(kind: Kind, size: int, noise: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One picture, uint8 RGB [size, size, 3]."""
    look = [int(rng.integers(VALUES)) if rng.random() < noise else t for t in kind.traits]
    habitat, motion, use, diet, company = look
    side = size * SCALE
    picture = _ground(habitat, side, rng)
    body = _body(kind, motion, use, diet, company, side, rng)
    body = body.rotate(float(rng.uniform(-35, 35)), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        body = body.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    reach = side // 7
    offset = (int(rng.integers(-reach, reach + 1)), int(rng.integers(-reach, reach + 1)))
    picture.paste(body, offset, body)
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(SCALE * 0.6))
    small = np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float64)
    light = rng.uniform(0.7, 1.2)
    small = small * light + rng.normal(0, 12, small.shape)
    return np.clip(small, 0, 255).astype(np.uint8)


def _ground(habitat: int, side: int, rng: np.random.Generator) -> Image.Image:
    """A gradient between the habitat's two colours, with a few blots."""
    low, high = (np.array(c, np.float64) + rng.normal(0, 18, 3) for c in GROUNDS[habitat])
    ramp = np.linspace(0, 1, side)[:, None, None]
    column = np.clip(low * (1 - ramp) + high * ramp, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.repeat(column, side, axis=1))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 6))):
        x, y, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.03, 0.12) * side
        shade = tuple(int(c) for c in np.clip((low + high) / 2 + rng.normal(0, 35, 3), 0, 255))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=shade)
    return image


def _body(
    kind: Kind, motion: int, use: int, diet: int, company: int, side: int, rng: np.random.Generator
) -> Image.Image:
    wide, tall, limb, shift = kind.build
    size = rng.uniform(0.8, 1.15)
    width = side * 0.27 * size * (1 + 0.22 * wide)
    height = side * 0.20 * size * (1 + 0.25 * tall)
    colour = _colour(use, shift, rng)
    dim = tuple(int(c * 0.55) for c in colour)
    layer = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(layer)
    middle = side / 2
    box = (middle - width, middle - height, middle + width, middle + height)
    _limbs(pen, motion, middle, width, height, height * (0.9 + 0.35 * limb), (*dim, 255))
    pen.ellipse(box, fill=(*colour, 255), outline=(*dim, 255), width=SCALE)
    _pattern(layer, diet, box, (*dim, 255), 1 + 0.3 * shift)
    _crest(pen, company, middle, middle - height, side * 0.06 * size, (*colour, 255), (*dim, 255))
    return layer


def _colour(use: int, shift: float, rng: np.random.Generator) -> tuple[int, int, int]:
    hue = (HUES[use] + 0.02 * shift + rng.normal(0, 0.015)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, float(rng.uniform(0.6, 0.95)), float(rng.uniform(0.75, 1.0)))
    return int(red * 255), int(green * 255), int(blue * 255)


def _limbs(
    pen: ImageDraw.ImageDraw, motion: int, m: float, w: float, h: float, reach: float, fill: tuple[int, ...]
) -> None:
    if motion == 0:  # a tail fin
        pen.polygon([(m + w * 0.8, m), (m + w + reach, m - reach), (m + w + reach, m + reach)], fill=fill)
    elif motion == 1:  # two wings
        for up in (-1, 1):
            pen.polygon([(m - w * 0.5, m), (m + w * 0.5, m), (m + w * 0.2, m + up * (h + reach))], fill=fill)
    elif motion == 2:  # four legs
        for x in (-0.7, -0.3, 0.3, 0.7):
            pen.line((m + x * w, m, m + x * w, m + h + reach), fill=fill, width=int(h * 0.22) + 1)
    elif motion == 3:  # many short feet
        for x in np.linspace(-0.9, 0.9, 7):
            pen.line((m + x * w, m, m + x * w, m + h + reach * 0.4), fill=fill, width=int(h * 0.1) + 1)
    elif motion == 4:  # two arms, upwards
        for x in (-1, 1):
            pen.line(
                (m + x * w * 0.5, m, m + x * (w + reach * 0.6), m - h - reach * 0.7),
                fill=fill,
                width=int(h * 0.25) + 1,
            )
    else:  # two wheels
        r = reach * 0.55
        for x in (-0.6, 0.6):
            pen.ellipse((m + x * w - r, m + h - r * 0.6, m + x * w + r, m + h + r * 1.4), fill=fill)


def _pattern(layer: Image.Image, diet: int, box: tuple[float, ...], fill: tuple[int, ...], scale: float) -> None:
    """Drawn on a layer of its own and kept inside the body."""
    if diet == 0:
        return
    inside = Image.new("L", layer.size)
    ImageDraw.Draw(inside).ellipse(box, fill=255)
    marks = Image.new("L", layer.size)
    pen = ImageDraw.Draw(marks)
    left, top, right, bottom = box
    step = (right - left) / 6 * scale
    if diet == 1:
        for x in np.arange(left, right, step):
            pen.rectangle((x, top, x + step * 0.45, bottom), fill=255)
    elif diet == 2:
        for y in np.arange(top, bottom, step):
            pen.rectangle((left, y, right, y + step * 0.45), fill=255)
    elif diet == 3:
        for x in np.arange(left, right, step):
            for y in np.arange(top, bottom, step):
                pen.ellipse((x, y, x + step * 0.5, y + step * 0.5), fill=255)
    elif diet == 4:
        pen.rectangle((left, top, (left + right) / 2, bottom), fill=255)
    else:
        w, h = (right - left) * 0.27, (bottom - top) * 0.27
        pen.ellipse((left + w, top + h, right - w, bottom - h), fill=255)
    mask = Image.composite(marks, Image.new("L", layer.size), inside)
    layer.paste(fill, (0, 0), mask)


def _crest(
    pen: ImageDraw.ImageDraw,
    company: int,
    x: float,
    y: float,
    r: float,
    fill: tuple[int, ...],
    edge: tuple[int, ...],
) -> None:
    if company == 1:
        pen.polygon([(x - r, y), (x + r, y), (x, y - 2.2 * r)], fill=fill, outline=edge)
    elif company == 2:
        for side in (-1.3, 1.3):
            pen.ellipse((x + side * r - r * 0.8, y - 1.6 * r, x + side * r + r * 0.8, y), fill=fill, outline=edge)
    elif company == 3:
        pen.rectangle((x - 1.8 * r, y - r, x + 1.8 * r, y), fill=fill, outline=edge)
    elif company == 4:
        pen.line((x, y, x, y - 2.6 * r), fill=edge, width=int(r * 0.6) + 1)
    elif company == 5:
        pen.ellipse((x - 1.2 * r, y - 2.4 * r, x + 1.2 * r, y), outline=edge, width=int(r * 0.5) + 1)
