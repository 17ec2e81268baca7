"""A page of clips of the town with what is said of them in every style, and a picture of it for the README.

`python -m flashsd_ray.training.town.gallery --page docs/gallery.html --picture docs/pictures/town.png`
"""

from __future__ import annotations

import argparse
import base64
import io
import textwrap
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flashsd_ray.training.town.catalog import PLACE_NAMES
from flashsd_ray.training.town.language import TASKS, converse
from flashsd_ray.training.town.render import clip
from flashsd_ray.training.town.scene import Scene, Split
from flashsd_ray.training.town.staging import sample_scene

FRAMES = 8
PAGE_FRAME_PX = 144
PAGE_QUALITY = 72
PICTURE_FRAME_PX = 152
PICTURE_FRAMES = (0, 2, 4, 5, 7)
PICTURE_PLACES = ("street", "mountain", "ocean", "garden")
SUPERSAMPLING = 2
INK, PAPER = "#1f2328", "#ffffff"
SEARCHED_SEEDS = 400

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: #f6f8fa }
body { margin: 0 auto; max-width: 1180px; padding: 24px }
article { background: #fff; border: 1px solid #d1d9e0; border-radius: 12px; margin: 20px 0; overflow: hidden }
article > img { display: block; width: 100% }
section { padding: 6px 20px 16px } h2 { margin: 10px 0 2px; font-size: 17px }
dl { display: grid; grid-template-columns: minmax(14em, 1fr) 3fr; gap: 4px 18px; margin: 8px 0 }
dt { color: #656d76 } dd { margin: 0 } dd.json { font: 12px/1.5 ui-monospace, monospace; word-break: break-word }
p { color: #656d76; max-width: 48em }
"""


def telling_scene(place: str, split: Split = "heldout") -> Scene:
    """A clip of this place that has much to tell: an interaction, something that comes and, if possible, that goes."""
    scenes = [scene for scene in (sample_scene(seed, split) for seed in range(SEARCHED_SEEDS)) if scene.place == place]
    return max(scenes, key=lambda scene: (scene.interaction is not None) + bool(scene.entering) + bool(scene.leaving))


def page(scenes: list[Scene]) -> str:
    """One HTML page that needs no other file."""
    articles = "\n".join(_article(scene) for scene in scenes)
    intro = (
        "Held-out clips of the town, the world that the bundled model describes. Every row shows eight "
        "moments from the first frame to the last. What is said is true of the clip; its words are one of many ways."
    )
    head = f'<meta charset="utf-8"><title>The town</title><style>{STYLE}</style>'
    body = f"<body><h1>The town</h1><p>{intro}</p>\n{articles}\n</body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n{body}</html>\n'


def picture(scenes: list[Scene]) -> Image.Image:
    """A sheet of frames with their captions."""
    gap, side = 8 * SUPERSAMPLING, PICTURE_FRAME_PX * SUPERSAMPLING
    font = ImageFont.load_default(size=15 * SUPERSAMPLING)
    width = len(PICTURE_FRAMES) * (side + gap) + gap
    texts = [_wrapped(converse(scene, "detail", 0).answer, font, width - 2 * gap) for scene in scenes]
    line = 21 * SUPERSAMPLING
    heights = [side + gap + line * len(text) + 2 * gap for text in texts]
    sheet = Image.new("RGB", (width, sum(heights) + gap), PAPER)
    draw, top = ImageDraw.Draw(sheet), gap
    for scene, text, height in zip(scenes, texts, heights, strict=True):
        frames = clip(scene.seed, scene.split, frame_count=FRAMES, size_px=side).frames
        for column, index in enumerate(PICTURE_FRAMES):
            sheet.paste(Image.fromarray(frames[index]), (gap + column * (side + gap), top))
        for row, words in enumerate(text):
            draw.text((gap, top + side + gap // 2 + row * line), words, font=font, fill=INK)
        top += height
    return sheet.resize((sheet.width // SUPERSAMPLING, sheet.height // SUPERSAMPLING), Image.Resampling.LANCZOS)


def _article(scene: Scene) -> str:
    exchanges = [converse(scene, task, 0) for task in TASKS]
    rows = "\n".join(
        f"<dt>{escape(one.prompt)}</dt><dd{' class=json' if one.task == 'json' else ''}>{escape(one.answer)}</dd>"
        for one in exchanges
    )
    title = f"{scene.place}, {scene.split} clip {scene.seed}"
    image = f'<img alt="eight frames" src="{_strip(scene)}">'
    return f"<article>{image}<section><h2>{escape(title)}</h2><dl>{rows}</dl></section></article>"


def _strip(scene: Scene) -> str:
    frames = clip(scene.seed, scene.split, frame_count=FRAMES, size_px=PAGE_FRAME_PX).frames
    packed = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(packed, format="WEBP", quality=PAGE_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    letters = int(width_px / (font.getlength(text) / len(text)))
    return textwrap.wrap(text, letters - 2)


def main() -> None:
    """The files named on the command line are written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="an HTML page with a clip of every place")
    parser.add_argument("--picture", type=Path, help="a PNG with a few of them")
    arguments = parser.parse_args()
    if arguments.page:
        arguments.page.write_text(page([telling_scene(place) for place in PLACE_NAMES]), encoding="utf-8")
    if arguments.picture:
        sheet = picture([telling_scene(place) for place in PICTURE_PLACES])
        sheet.quantize(256, dither=Image.Dither.NONE).save(arguments.picture, optimize=True)


if __name__ == "__main__":
    main()
