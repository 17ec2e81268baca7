"""The town's sprites: one PNG and one JSON index in the package, and the colours that some kinds come in.

`python -m flashsd_ray.training.town.atlas --font NotoColorEmoji.ttf` rebuilds both.
The glyphs are Noto Color Emoji's, under the SIL Open Font License 1.1.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

import flashsd_ray
from flashsd_ray.training.town.catalog import KINDS, Color
from flashsd_ray.training.world.atlas import build_atlas, read_cells

TOWN_SPRITES = Path(flashsd_ray.__file__).parent / "assets" / "town" / "sprites"
CELL_SIZE = 88
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
    cell = read_cells(TOWN_SPRITES)[kind]
    if color is None:
        return cell
    dark, middling, bright = SHADES[color]
    grey = ImageOps.autocontrast(
        cell.convert("L"), cutoff=1, mask=cell.getchannel("A").point(lambda a: 255 * (a > 128))
    )
    painted = ImageOps.colorize(grey, dark, bright, middling, midpoint=110).convert("RGBA")
    painted.putalpha(cell.getchannel("A"))
    return painted


def main() -> None:
    """The bundled sprites are rebuilt from the font named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--font", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=TOWN_SPRITES)
    arguments = parser.parse_args()
    glyphs = {kind.name: kind.glyph for kind in KINDS.values()}
    build_atlas(arguments.font, arguments.out, glyphs, cell_size=CELL_SIZE, cells_per_row=12)


if __name__ == "__main__":
    main()
