"""The sprites: one PNG and one JSON index in the package, and the colours that some kinds come in.

`python -m flashsd_ray.training.town.atlas --font NotoColorEmoji.ttf` rebuilds both, so that nobody else needs the font.
The glyphs are Noto Color Emoji's, under the SIL Open Font License 1.1.
"""

from __future__ import annotations

import argparse
import json
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

import flashsd_ray
from flashsd_ray.training.town.catalog import KINDS, Color

SPRITES = Path(flashsd_ray.__file__).parent / "assets" / "town" / "sprites"
STRIKE_SIZE = 109  # the one bitmap size that Noto Color Emoji has
CELL_SIZE = 88
CELLS_PER_ROW = 12
SHADES: dict[Color, tuple[str, str, str]] = {  # of dark, middling and bright parts
    "red": ("#280404", "#e0201c", "#ff8070"),
    "yellow": ("#3a2a00", "#f8d010", "#fff070"),
    "green": ("#04200a", "#28b03c", "#80e890"),
    "blue": ("#040a30", "#2868f0", "#80b0ff"),
    "purple": ("#1c0428", "#a030d8", "#d490fc"),
    "white": ("#30343a", "#ececf0", "#ffffff"),
}
CACHED_SPRITES = 8192


@lru_cache(maxsize=CACHED_SPRITES)
def sprite(kind: str, color: Color | None, size_px: int, *, is_mirrored: bool) -> Image.Image:
    """The RGBA sprite of this kind and colour at this size, shared: do not draw on it."""
    cell = _painted(kind, color)
    if is_mirrored:
        cell = cell.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return cell.resize((size_px, size_px), Image.Resampling.LANCZOS)


@lru_cache(maxsize=CACHED_SPRITES)
def _painted(kind: str, color: Color | None) -> Image.Image:
    cell = _read_cells()[kind]
    if color is None:
        return cell
    dark, middling, bright = SHADES[color]
    grey = ImageOps.autocontrast(
        cell.convert("L"), cutoff=1, mask=cell.getchannel("A").point(lambda a: 255 * (a > 128))
    )
    painted = ImageOps.colorize(grey, dark, bright, middling, midpoint=110).convert("RGBA")
    painted.putalpha(cell.getchannel("A"))
    return painted


@cache
def _read_cells() -> dict[str, Image.Image]:
    index = json.loads((SPRITES / "sprites.json").read_text(encoding="utf-8"))
    with Image.open(SPRITES / "sprites.png") as opened:
        atlas = opened.convert("RGBA")
    return {name: atlas.crop(tuple(box)) for name, box in index["boxes"].items()}


def build_atlas(font_path: Path, out_dir: Path) -> None:
    """The sprites of all kinds, as this font draws them, lie in `out_dir`."""
    font = ImageFont.truetype(str(font_path), STRIKE_SIZE)
    rows = -(-len(KINDS) // CELLS_PER_ROW)
    atlas = Image.new("RGBA", (CELLS_PER_ROW * CELL_SIZE, rows * CELL_SIZE), (0, 0, 0, 0))
    boxes = {}
    for position, kind in enumerate(KINDS.values()):
        x, y = position % CELLS_PER_ROW * CELL_SIZE, position // CELLS_PER_ROW * CELL_SIZE
        atlas.paste(_glyph(kind.glyph, font), (x, y))
        boxes[kind.name] = [x, y, x + CELL_SIZE, y + CELL_SIZE]
    out_dir.mkdir(parents=True, exist_ok=True)
    atlas.save(out_dir / "sprites.png", optimize=True)
    index = {"source": "Noto Color Emoji", "license": "OFL-1.1", "boxes": boxes}
    (out_dir / "sprites.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _glyph(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    canvas = Image.new("RGBA", (3 * STRIKE_SIZE, 2 * STRIKE_SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 8), text, font=font, embedded_color=True)
    cropped = canvas.crop(canvas.getbbox())
    side = max(cropped.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(cropped, ((side - cropped.width) // 2, side - cropped.height))
    return square.resize((CELL_SIZE, CELL_SIZE), Image.Resampling.LANCZOS)


def main() -> None:
    """The bundled sprites are rebuilt from the font named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=SPRITES)
    arguments = parser.parse_args()
    build_atlas(arguments.font, arguments.out)


if __name__ == "__main__":
    main()
