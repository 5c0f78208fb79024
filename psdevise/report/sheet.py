"""Contact sheets of pictures found for terms: a PNG, or an HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from psdevise import store
from psdevise.data.pictures import open_rgb
from psdevise.evaluation.retrieval import Match

SIDE, GAP, TEXT = 128, 8, 14  # px: of a picture, between two, and the height of a line of text
FORMS = (".png", ".html", ".htm")
STYLE = "body{font:14px sans-serif;margin:2em}figure{display:inline-block;margin:4px;width:128px;vertical-align:top}"
STYLE += "img{width:128px;height:128px;object-fit:contain}figcaption{font-size:12px;color:#555;overflow-wrap:anywhere}"


def write(path: str, found: Mapping[str, Sequence[Match]]) -> None:
    """A row of pictures per term, nearest first, each with its score and labels; HTML if `path` ends so, else PNG."""
    if path.lower().endswith(FORMS[1:]):
        store.write_text(path, _page(found))
        return
    file = io.BytesIO()
    _sheet(found).save(file, "PNG")
    store.write_bytes(path, file.getvalue())


def _sheet(found: Mapping[str, Sequence[Match]]) -> Image.Image:
    columns = max(map(len, found.values()))
    line = TEXT + GAP + SIDE + 2 * TEXT + GAP
    sheet = Image.new("RGB", (GAP + columns * (SIDE + GAP), GAP + len(found) * line), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, (term, matches) in enumerate(found.items()):
        top = GAP + row * line
        pen.text((GAP, top), term, "black", font)
        for column, match in enumerate(matches):
            left, at = GAP + column * (SIDE + GAP), top + TEXT + GAP
            picture = open_rgb(match.image)
            picture.thumbnail((SIDE, SIDE))
            if max(picture.size) < SIDE:
                scale = SIDE / max(picture.size)
                picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            sheet.paste(picture, (left + (SIDE - picture.width) // 2, at + (SIDE - picture.height) // 2))
            pen.text((left, at + SIDE), f"{match.score:.3f}", "black", font)
            pen.text((left, at + SIDE + TEXT), _caption(match, pen, font), "gray", font)
    return sheet


def _caption(match: Match, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = ", ".join(match.labels) or match.id
    while len(text) > 1 and pen.textlength(text, font) > SIDE:
        text = text[:-2] + "…"
    return text


def _page(found: Mapping[str, Sequence[Match]]) -> str:
    parts = [f"<!doctype html><meta charset=utf-8><title>Pictures</title><style>{STYLE}</style>"]
    for term, matches in found.items():
        parts.append(f"<h2>{html.escape(term)}</h2>")
        for match in matches:
            picture = open_rgb(match.image)
            picture.thumbnail((2 * SIDE, 2 * SIDE))
            file = io.BytesIO()
            picture.save(file, "PNG")
            source = base64.b64encode(file.getvalue()).decode()
            caption = html.escape(f"{match.score:.3f} {', '.join(match.labels)}")
            name = html.escape(match.id, quote=True)
            figure = (
                f'<img src="data:image/png;base64,{source}" alt="{name}"><figcaption>{caption}<br>{name}</figcaption>'
            )
            parts.append(f"<figure>{figure}</figure>")
    return "\n".join(parts) + "\n"
