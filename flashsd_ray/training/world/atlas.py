"""The sprite atlas: one PNG and one JSON index in the package, so that nobody needs the emoji font.

`python -m flashsd_ray.training.world.atlas --font NotoColorEmoji.ttf` rebuilds both.
The glyphs are Noto Color Emoji's, under the SIL Open Font License 1.1.
"""

import argparse
import json
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import flashsd_ray
from flashsd_ray.training.world.catalog import KINDS

ATLAS_DIR = Path(flashsd_ray.__file__).parent / "assets" / "demo" / "sprites"
STRIKE_SIZE = 109  # the one bitmap size that Noto Color Emoji has
CELL_SIZE = 112
CELLS_PER_ROW = 9


@cache
def read_cells(folder: Path = ATLAS_DIR) -> dict[str, Image.Image]:
    """The RGBA picture of every kind in the atlas of this folder, read once."""
    index = json.loads((folder / "sprites.json").read_text(encoding="utf-8"))
    with Image.open(folder / "sprites.png") as opened:
        atlas = opened.convert("RGBA")
    return {name: atlas.crop(tuple(box)) for name, box in index["boxes"].items()}


@lru_cache(maxsize=8192)
def sprite(kind: str, size_px: int, *, is_mirrored: bool) -> Image.Image:
    """The RGBA sprite of this kind at this size, shared: do not draw on it."""
    cell = read_cells()[kind]
    if is_mirrored:
        cell = cell.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return cell.resize((size_px, size_px), Image.Resampling.LANCZOS)


def build_atlas(
    font_path: Path,
    out_dir: Path,
    glyphs: dict[str, str],  # name: text
    *,
    cell_size: int = CELL_SIZE,
    cells_per_row: int = CELLS_PER_ROW,
) -> None:
    """The atlas of these glyphs lies in `out_dir`."""
    font = ImageFont.truetype(str(font_path), STRIKE_SIZE)
    rows = -(-len(glyphs) // cells_per_row)
    atlas = Image.new("RGBA", (cells_per_row * cell_size, rows * cell_size), (0, 0, 0, 0))
    boxes = {}
    for position, (name, text) in enumerate(glyphs.items()):
        x, y = position % cells_per_row * cell_size, position // cells_per_row * cell_size
        atlas.paste(_glyph(text, font, cell_size), (x, y))
        boxes[name] = [x, y, x + cell_size, y + cell_size]
    out_dir.mkdir(parents=True, exist_ok=True)
    atlas.save(out_dir / "sprites.png", optimize=True)
    index = {"source": "Noto Color Emoji", "license": "OFL-1.1", "boxes": boxes}
    (out_dir / "sprites.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _glyph(text: str, font: ImageFont.FreeTypeFont, cell_size: int) -> Image.Image:
    canvas = Image.new("RGBA", (3 * STRIKE_SIZE, 2 * STRIKE_SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((8, 8), text, font=font, embedded_color=True)
    cropped = canvas.crop(canvas.getbbox())
    side = max(cropped.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(cropped, ((side - cropped.width) // 2, side - cropped.height))
    return square.resize((cell_size, cell_size), Image.Resampling.LANCZOS)


def main() -> None:
    """The bundled atlas is rebuilt from the font named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ATLAS_DIR)
    arguments = parser.parse_args()
    build_atlas(arguments.font, arguments.out, {kind.name: kind.glyph for kind in KINDS.values()})


if __name__ == "__main__":
    main()
