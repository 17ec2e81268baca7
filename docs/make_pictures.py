"""Draws the pictures of the README from a real run: frames of the clip, and the terminal that captions it.

``python docs/make_pictures.py [--clip NAME]`` writes docs/pictures/clip.png and docs/pictures/demo.svg.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from flashsd_ray.cli.demo import CLIPS, choose, clip_names
from flashsd_ray.config import MediaConfig
from flashsd_ray.media import load_visual

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 100
NUM_FRAMES, FRAME_PIXELS, GAP_PIXELS, COLOURS = 5, 200, 4, 128
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [(72, 79, 88), (255, 123, 114), (126, 231, 135), (255, 203, 107)] + [(201, 209, 217)] * 4,
    [(110, 118, 129), (255, 161, 152), (126, 231, 135), (255, 203, 107)] + [(255, 255, 255)] * 4,
)


def main() -> None:
    """The pictures are drawn anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", help="one of `flashsd demo --list` (default: the first)")
    name = choose(parser.parse_args().clip, clip_names())
    PICTURES.mkdir(exist_ok=True)
    filmstrip(CLIPS / name).save(PICTURES / "clip.png", optimize=True)
    (PICTURES / "demo.svg").write_text(drawn(run_demo("--clip", name)), encoding="utf-8")
    print(f"wrote clip.png and demo.svg to {PICTURES.relative_to(ROOT)}")


def filmstrip(path: Path) -> Image.Image:
    """Some frames of a video, side by side."""
    frames = load_visual(path, MediaConfig(), num_frames=NUM_FRAMES).frames
    strip = Image.new("RGB", (NUM_FRAMES * (FRAME_PIXELS + GAP_PIXELS) - GAP_PIXELS, FRAME_PIXELS), "white")
    for index, frame in enumerate(frames):
        strip.paste(Image.fromarray(frame).resize((FRAME_PIXELS,) * 2), (index * (FRAME_PIXELS + GAP_PIXELS), 0))
    return strip.quantize(COLOURS)


def run_demo(*words: str) -> str:
    """What the demo writes to a terminal, colours included."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "flashsd_ray", "demo", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def drawn(output: str) -> str:
    """The output as SVG without anything that has to be fetched."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ make demo", style="bold"))
    console.print(Text.from_ansi(output))
    svg = console.export_svg(title="flashsd_ray", theme=THEME, font_aspect_ratio=0.6, unique_id="demo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"font-family: [^;]+;", f"font-family: {FONT};", svg)


if __name__ == "__main__":
    main()
