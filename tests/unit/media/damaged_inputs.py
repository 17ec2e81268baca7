"""Some hundred damaged, hostile and odd inputs, the same ones each time.

As a program, ``make DIRECTORY`` writes them and ``load DIRECTORY`` loads them all: one JSON line per input and a last
one about memory. Loading is a process of its own, so that a crash inside a codec is seen as one and the peak of memory
is that of loading alone.
"""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError
from flashsd_ray.media import load_visual
from tests.media_files import make_animation, make_audio, make_picture, make_video, with_many_tracks

LIMITS = MediaConfig(max_pixels=4 * 2**20, max_decode_s=20.0)


@dataclass(frozen=True, slots=True)
class DamagedInput:
    """One input; where ``may_load`` is not set, only an error is right."""

    name: str
    content: bytes
    may_load: bool = False


def whole_files() -> dict[str, bytes]:
    """A good file of each kind that is damaged here."""
    groups = {"g": "8", "bf": "2"}
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    return {
        "mp4": make_video(num_frames=40, codec_options=groups),
        "fragmented.mp4": make_video(num_frames=40, codec_options=groups, container_options={"movflags": "empty_moov"}),
        "mkv": make_video("libx264", "matroska", num_frames=40, codec_options=groups),
        "webm": make_video("libvpx-vp9", "webm", num_frames=40, codec_options={"g": "8"}),
        "av1.webm": make_video("libsvtav1", "webm", num_frames=20, codec_options={"g": "8"}),
        "avi": make_video("mpeg4", "avi", num_frames=40, codec_options=groups),
        "ts": make_video("libx264", "mpegts", num_frames=40, codec_options=groups),
        "h264": make_video("libx264", "h264", num_frames=40, codec_options=groups),
        "gif": make_animation("GIF"),
        "webp": make_animation("WEBP"),
        "png": make_picture("PNG", noise),
        "jpg": make_picture("JPEG", noise),
        "tiff": make_picture("TIFF", noise, compression="tiff_lzw"),
        "bmp": make_picture("BMP", noise),
        "avif": make_picture("AVIF", noise),
        "jp2": make_picture("JPEG2000", noise),
    }


def damaged_inputs() -> Iterator[DamagedInput]:
    """Every damaged input that is a plain file."""
    for kind, whole in whole_files().items():
        yield from truncated(kind, whole)
        yield from altered(kind, whole)
    yield from without_meaning()
    yield from huge()
    yield from crowded()


def truncated(kind: str, whole: bytes) -> Iterator[DamagedInput]:
    """The beginning of a file, from nothing to all but its last byte."""
    # These have no length that could be checked; where the cut leaves whole frames they are shorter videos.
    is_unbounded = kind in ("ts", "h264")
    for part in (0.0, 0.02, 0.1, 0.3, 0.5, 0.8, 0.97):
        yield DamagedInput(f"{part:.0%} of {kind}", whole[: int(part * len(whole))], is_unbounded and part >= 0.1)
    yield DamagedInput(f"all but one byte of {kind}", whole[:-1], may_load=True)


def altered(kind: str, whole: bytes) -> Iterator[DamagedInput]:
    """A file with some bits or bytes changed; codecs without checksums may not notice."""
    for seed in range(6):
        chance = random.Random(f"{kind} {seed}")
        content = bytearray(whole)
        if seed < 3:
            for _ in range(1 + 4 * seed):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif seed < 5:
            start = chance.randrange(len(content))
            content[start : start + 64] = bytes(64) if seed == 3 else chance.randbytes(64)
        else:
            start = chance.randrange(16, len(content))
            del content[start : start + chance.randrange(1, 40)]
        yield DamagedInput(f"{kind} altered {seed}", bytes(content), may_load=True)


def without_meaning() -> Iterator[DamagedInput]:
    """Content that is no picture or video, and beginnings that promise one."""
    chance = random.Random("noise")
    yield DamagedInput("one byte", b"\x00")
    yield DamagedInput("zeros", bytes(100_000))
    yield DamagedInput("text", b"A cat plays the piano.\n" * 100)
    yield DamagedInput("json", json.dumps({"frames": list(range(1000))}).encode())
    yield DamagedInput("html", b"<!doctype html><video src='http://127.0.0.1/x.mp4'>")
    yield DamagedInput("playlist", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    yield DamagedInput("pdf", b"%PDF-1.7\n" + chance.randbytes(2000))
    yield DamagedInput("zip", b"PK\x03\x04" + chance.randbytes(2000))
    yield DamagedInput("song", make_audio("libmp3lame", "mp3"))
    yield DamagedInput("sound in mp4", make_audio())
    for size in (16, 4000, 100_000):
        yield DamagedInput(f"{size} random bytes", chance.randbytes(size))
    for kind, whole in whole_files().items():
        yield DamagedInput(
            f"head of {kind}, then noise", whole[:40] + chance.randbytes(3000), kind in ("ts", "h264", "bmp")
        )


def huge() -> Iterator[DamagedInput]:
    """Headers that declare more pixels than anyone has memory for."""
    side = 50_000
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000))
    yield DamagedInput("png", b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", rows))
    gif = bytearray(make_animation("GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    yield DamagedInput("gif", bytes(gif))
    jpeg = bytearray(make_picture("JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = b"\xff\xdc\xff\xdc"
    yield DamagedInput("jpg", bytes(jpeg))
    bmp = bytearray(make_picture("BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    yield DamagedInput("bmp", bytes(bmp))
    webp = bytearray(make_animation("WEBP"))
    webp[24:30] = b"\xfe\x3f\x00\xfe\x3f\x00"
    yield DamagedInput("webp", bytes(webp))
    yield DamagedInput("ppm", b"P6 50000 50000 255\n" + bytes(1000))
    tiff = make_picture("TIFF")
    wide = tiff.replace(struct.pack("<HHII", 256, 4, 1, 80), struct.pack("<HHII", 256, 4, 1, side))
    yield DamagedInput("tiff", wide.replace(struct.pack("<HHII", 257, 4, 1, 48), struct.pack("<HHII", 257, 4, 1, side)))
    yield DamagedInput("y4m", b"YUV4MPEG2 W50000 H50000 F25:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(1000))
    for codec, container in (("libvpx-vp9", "ivf"), ("mjpeg", "avi"), ("mpeg4", "avi")):
        pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        large = make_video(codec, container, num_frames=2, size=(4096, 2048), pixel_format=pixel_format)
        yield DamagedInput(f"{codec} {container}", large)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def crowded() -> Iterator[DamagedInput]:
    """Containers of thousands of streams, and a directory of boxes without end."""
    mp4, avi, mkv = make_video(), make_video("mpeg4", "avi"), make_video(container="matroska")
    yield DamagedInput("5000 tracks of mp4", with_many_tracks(mp4, 5000))
    start = avi.index(b"LIST", 20)
    end = start + 8 + int.from_bytes(avi[start + 4 : start + 8], "little")
    copies = avi[start:end] * 3000
    sizes = [int.from_bytes(avi[at : at + 4], "little") + len(copies) for at in (4, 16)]
    riff, header_list = (size.to_bytes(4, "little") for size in sizes)
    yield DamagedInput(
        "3000 streams of avi", b"RIFF" + riff + avi[8:16] + header_list + avi[20:start] + copies + avi[start:]
    )
    track = b"\xae\x8d\xd7\x81\x01\x83\x81\x01\x86\x85V_VP8"  # an entry with its number, type and codec
    tracks = b"\x16\x54\xae\x6b" + (1 << 56 | 5000 * len(track)).to_bytes(8, "big")
    segment = mkv.index(b"\x18\x53\x80\x67") + 4
    rest = mkv[mkv.index(b"\x1f\x43\xb6\x75") :]
    yield DamagedInput("5000 tracks of mkv", mkv[:segment] + b"\x01" + b"\xff" * 7 + tracks + track * 5000 + rest)
    yield DamagedInput("boxes", mp4[:32] + b"\x00\x00\x00\x08free" * 20_000)
    yield DamagedInput("nested boxes", b"".join(struct.pack(">I4s", 8 * k, b"moov") for k in range(20_000, 1, -1)))


def odd_paths(directory: Path) -> Iterator[tuple[str, str]]:
    """Paths, with their names, that lead to nothing that could be loaded."""
    (directory / "empty").mkdir()
    (directory / "texts").mkdir()
    (directory / "texts" / "frame0.png").write_text("not a picture")
    os.mkfifo(directory / "pipe.mp4")
    (directory / "dangling.mp4").symlink_to("nowhere")
    (directory / "loop.mp4").symlink_to("loop.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        # The address of a socket may be only some hundred bytes long.
        os.chdir(directory)
        server.bind("socket.mp4")
    for name in ("empty", "texts", "pipe.mp4", "dangling.mp4", "loop.mp4", "socket.mp4", "missing.mp4"):
        yield name, str(directory / name)
    yield from (("device", "/dev/zero"), ("nothing", ""), ("zero byte in the path", "a\0b"), ("long", "x" * 5000))


def report(name: str, path: str, may_load: bool) -> dict[str, object]:
    """What became of one input."""
    try:
        visual = load_visual(path, LIMITS, num_frames=6)
    except MediaError as error:
        return {"name": name, "may_load": may_load, "outcome": "error", "message": str(error)}
    return {"name": name, "may_load": may_load, "outcome": "loaded", "shape": visual.frames.shape}


def make(directory: Path) -> None:
    """Writes every input into the directory, and a list of them."""
    listed: list[tuple[str, str, bool]] = []
    (directory / "good.mp4").write_bytes(make_video())
    for number, item in enumerate(damaged_inputs()):
        path = directory / f"input{number}"
        path.write_bytes(item.content)
        listed.append((item.name, str(path), item.may_load))
    listed += [(name, path_text, False) for name, path_text in odd_paths(directory)]
    (directory / "inputs.json").write_text(json.dumps(listed))


def load(directory: Path) -> None:
    """Prints what becomes of every input, and the memory that it took."""
    load_visual(directory / "good.mp4", LIMITS)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, path, may_load in json.loads((directory / "inputs.json").read_text()):
        sys.stdout.write(json.dumps(report(name, path, may_load)) + "\n")
        load_visual(directory / "good.mp4", LIMITS)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(json.dumps({"peak_growth_kib": peak_kib - before_kib}) + "\n")


if __name__ == "__main__":
    verb, place = sys.argv[1:]
    {"make": make, "load": load}[verb](Path(place).resolve())
