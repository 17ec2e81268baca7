"""Videos of every codec and container give the frames that were asked for, as they are meant to be seen."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError
from flashsd_ray.media import load_visual_bytes
from tests.media_files import (
    corner_frame,
    make_audio,
    make_picture,
    make_video,
    numbered_frame,
    shown_numbers,
)

HEVC = {"x265-params": "log-level=none"}

# codec, container, pixel format, codec options
KINDS = [
    ("libx264", "mp4", "yuv420p", {"bf": "3", "g": "12"}),
    ("libx264", "mov", "yuv422p10le", {"bf": "3", "g": "12"}),
    ("libx264", "matroska", "yuv420p", {"bf": "3", "g": "12"}),
    ("libx264", "mpegts", "yuv420p", {"bf": "3", "g": "12"}),
    ("libx264", "flv", "yuv420p", {"bf": "3", "g": "12"}),
    ("libx264", "avi", "yuv420p", {"bf": "2", "g": "12"}),
    ("libx264", "h264", "yuv420p", {"bf": "3", "g": "12"}),
    ("libx264", "mp4", "yuv420p", {"flags": "+ildct+ilme", "x264-params": "interlaced=1"}),
    ("libx265", "mp4", "yuv420p", HEVC),
    ("libx265", "hevc", "yuv420p10le", HEVC),
    ("libvpx", "webm", "yuv420p", {}),
    ("libvpx-vp9", "webm", "yuv420p", {"g": "12"}),
    ("libvpx-vp9", "ivf", "yuv420p", {"g": "12"}),
    ("libsvtav1", "mp4", "yuv420p", {"g": "12"}),
    ("libsvtav1", "webm", "yuv420p", {"g": "12"}),
    ("mpeg4", "avi", "yuv420p", {"bf": "2", "g": "12"}),
    ("mpeg4", "mp4", "yuv420p", {"bf": "2", "g": "12"}),
    ("mpeg2video", "mpegts", "yuv420p", {"bf": "2", "g": "12"}),
    ("mpeg2video", "mpeg", "yuv420p", {"bf": "2", "g": "12"}),
    ("mpeg2video", "mxf", "yuv420p", {"bf": "2", "g": "12"}),
    ("mjpeg", "mov", "yuvj420p", {}),
    ("mjpeg", "avi", "yuvj420p", {}),
    ("prores_ks", "mov", "yuv422p10le", {}),
    ("ffv1", "matroska", "gray", {}),
    ("qtrle", "mov", "rgb24", {}),
    ("wmv2", "asf", "yuv420p", {}),
    ("rawvideo", "yuv4mpegpipe", "yuv420p", {}),
]


@pytest.mark.parametrize(("codec", "container", "pixel_format", "options"), KINDS)
def test_every_kind_gives_the_frames_asked_for(
    codec: str, container: str, pixel_format: str, options: dict[str, str], config: MediaConfig
) -> None:
    data = make_video(codec, container, num_frames=50, pixel_format=pixel_format, codec_options=options)
    visual = load_visual_bytes(data, "clip", config, num_frames=6)
    assert visual.kind == "video"
    assert visual.frames.shape == (6, 48, 80, 3)
    assert shown_numbers(visual.frames) == [0, 9, 19, 29, 39, 49]
    # A raw stream names no rate; FFmpeg assumes 25 frames a second.
    fps = 25 if container in ("h264", "hevc") else 30
    assert visual.timestamps_s == pytest.approx(np.array([0, 9, 19, 29, 39, 49]) / fps, abs=0.001)
    assert visual.duration_s == pytest.approx(50 / fps, abs=0.002)


class TestWhichFrames:
    """Counts, rates and ranges over real files."""

    def test_the_default_count(self, config: MediaConfig) -> None:
        visual = load_visual_bytes(make_video(num_frames=64), "clip", config)
        assert shown_numbers(visual.frames) == [k * 63 // 7 for k in range(8)]

    def test_one_frame_is_the_first(self, config: MediaConfig) -> None:
        assert shown_numbers(load_visual_bytes(make_video(), "clip", config, num_frames=1).frames) == [0]

    def test_a_shorter_video_gives_each_frame_once(self, config: MediaConfig) -> None:
        visual = load_visual_bytes(make_video(num_frames=5), "clip", config, num_frames=16)
        assert shown_numbers(visual.frames) == [0, 1, 2, 3, 4]

    def test_a_single_frame_is_still_a_video(self, config: MediaConfig) -> None:
        visual = load_visual_bytes(make_video(num_frames=1), "clip", config)
        assert (visual.kind, len(visual.frames)) == ("video", 1)
        assert visual.duration_s == pytest.approx(1 / 30, abs=0.001)

    def test_a_rate(self, config: MediaConfig) -> None:
        data = make_video(num_frames=90)
        assert shown_numbers(load_visual_bytes(data, "clip", config, fps=2).frames) == [0, 15, 30, 45, 60, 75]

    def test_a_rate_above_that_of_the_video_gives_each_frame_once(self, config: MediaConfig) -> None:
        visual = load_visual_bytes(make_video(num_frames=10), "clip", config, fps=1000)
        assert shown_numbers(visual.frames) == list(range(10))

    def test_a_rate_that_gives_too_many_is_spread_over_all(self) -> None:
        visual = load_visual_bytes(make_video(num_frames=60), "clip", MediaConfig(max_frames=4), fps=30)
        assert shown_numbers(visual.frames) == [0, 19, 39, 59]

    @pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
    def test_a_range(self, container: str, config: MediaConfig) -> None:
        data = make_video(container=container, num_frames=90, codec_options={"g": "20", "bf": "2"})
        visual = load_visual_bytes(data, "clip", config, num_frames=100, start_s=1.0, end_s=1.5)
        assert shown_numbers(visual.frames) == list(range(30, 45))
        assert visual.timestamps_s[0] == 1.0
        assert visual.duration_s == pytest.approx(3.0)

    def test_a_range_between_two_frames_shows_the_earlier(self, config: MediaConfig) -> None:
        visual = load_visual_bytes(make_video(num_frames=9), "clip", config, start_s=0.11, end_s=0.12)
        assert shown_numbers(visual.frames) == [3]

    def test_an_end_beyond_the_video_is_its_end(self, config: MediaConfig) -> None:
        visual = load_visual_bytes(make_video(num_frames=9), "clip", config, num_frames=2, end_s=99.0)
        assert shown_numbers(visual.frames) == [0, 8]

    def test_a_start_beyond_the_video_is_refused(self, config: MediaConfig) -> None:
        with pytest.raises(MediaError, match=r"^clip: start_s lies after its end at 0.30 s$"):
            load_visual_bytes(make_video(num_frames=9), "clip", config, start_s=0.3)

    @pytest.mark.parametrize("container", ["mp4", "matroska"])
    def test_a_variable_rate_is_sampled_by_time(self, container: str, config: MediaConfig) -> None:
        # Thirty frames in the first second, then one a second.
        ticks = [*range(0, 1000, 33), *range(2000, 8000, 1000)]
        data = make_video(container=container, num_frames=len(ticks), ticks=ticks, ticks_per_second=1000)
        visual = load_visual_bytes(data, "clip", config, num_frames=8)
        assert visual.timestamps_s == pytest.approx([0, 0.99, 2, 3, 4, 5, 6, 7])
        assert shown_numbers(visual.frames) == [0, 30, 31, 32, 33, 34, 35, 36]

    def test_time_begins_with_the_first_frame(self, config: MediaConfig) -> None:
        ticks = [k + 1000 for k in range(30)]
        data = make_video(container="matroska", ticks=ticks)
        visual = load_visual_bytes(data, "clip", config, num_frames=3)
        assert visual.timestamps_s == pytest.approx([0.0, 14 / 30, 29 / 30], abs=0.002)
        assert visual.duration_s == pytest.approx(1.0, abs=0.002)

    def test_a_live_webm_declares_no_duration(self, config: MediaConfig) -> None:
        data = make_video("libvpx-vp9", "webm", num_frames=40, container_options={"live": "1"})
        visual = load_visual_bytes(data, "clip", config, num_frames=3)
        assert shown_numbers(visual.frames) == [0, 19, 39]
        assert visual.duration_s == pytest.approx(40 / 30, abs=0.01)

    @pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_every_frame+default_base_moof"])
    def test_fragmented_mp4(self, flags: str, config: MediaConfig) -> None:
        data = make_video(num_frames=40, codec_options={"g": "10"}, container_options={"movflags": flags})
        assert shown_numbers(load_visual_bytes(data, "clip", config, num_frames=3).frames) == [0, 19, 39]


class TestStreams:
    """The video stream is found among others."""

    @pytest.mark.parametrize(
        ("container", "codec", "audio_codec"),
        [
            ("mp4", "libx264", "aac"),
            ("matroska", "libx264", "libopus"),
            ("avi", "mpeg4", "mp3"),
            ("mpegts", "libx264", "aac"),
        ],
    )
    def test_sound_is_passed_over(self, container: str, codec: str, audio_codec: str, config: MediaConfig) -> None:
        data = make_video(codec, container, num_frames=40, audio_codec=audio_codec)
        assert shown_numbers(load_visual_bytes(data, "clip", config, num_frames=3).frames) == [0, 19, 39]

    @pytest.mark.parametrize(
        ("codec", "container", "found"),
        [("aac", "mp4", "audio: aac"), ("libmp3lame", "mp3", "audio: mp3"), ("pcm_s16le", "wav", "audio: pcm_s16le")],
    )
    def test_sound_alone_is_refused(self, codec: str, container: str, found: str, config: MediaConfig) -> None:
        with pytest.raises(MediaError, match=rf"^song: no video stream \(found {found}"):
            load_visual_bytes(make_audio(codec, container), "song", config)

    def test_the_cover_of_a_song_is_no_video(self, config: MediaConfig) -> None:
        cover = make_picture("JPEG")
        body = b"\x00image/jpeg\x00\x03\x00" + cover
        frame = b"APIC" + len(body).to_bytes(4, "big") + b"\x00\x00" + body
        size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
        with pytest.raises(MediaError, match=r"^song: no video stream \(found audio: mp3"):
            load_visual_bytes(b"ID3\x03\x00\x00" + size + frame + make_audio("libmp3lame", "mp3"), "song", config)


class TestHowFramesAreSeen:
    """Turned upright, with square pixels, over white."""

    @pytest.mark.parametrize("container", ["mp4", "matroska"])
    @pytest.mark.parametrize("degrees", [0, 90, 180, 270])
    def test_rotation(self, container: str, degrees: int, config: MediaConfig) -> None:
        shown = self._corners(container, (degrees, False, False), config)
        assert np.abs(shown - np.rot90(corner_frame(64, 32), degrees // 90)).mean() < 12

    @pytest.mark.parametrize("degrees", [0, 90])
    def test_reflection(self, degrees: int, config: MediaConfig) -> None:
        horizontal = self._corners("mp4", (degrees, True, False), config)
        vertical = self._corners("mp4", (degrees, False, True), config)
        upright = corner_frame(64, 32)
        # FFmpeg's matrix turns first and mirrors the turned picture.
        flipped = {axis: np.flip(np.rot90(upright, degrees // 90), axis) for axis in (0, 1)}
        assert np.abs(horizontal - flipped[1]).mean() < 12
        assert np.abs(vertical - flipped[0]).mean() < 12

    @pytest.mark.parametrize(
        ("pixel_aspect", "size"),
        [
            (Fraction(4, 3), (48, 107)),
            (Fraction(1, 2), (96, 80)),
            (Fraction(1), (48, 80)),
            (Fraction(100), (48, 80)),
        ],
    )
    def test_pixels_become_square(self, pixel_aspect: Fraction, size: tuple[int, int], config: MediaConfig) -> None:
        data = make_video(num_frames=3, pixel_aspect=pixel_aspect)
        visual = load_visual_bytes(data, "clip", config)
        assert visual.frames.shape[1:3] == size
        assert shown_numbers(visual.frames) == [0, 1, 2]

    @pytest.mark.parametrize("size", [(81, 49), (1, 1), (17, 33)])
    def test_odd_sizes(self, size: tuple[int, int], config: MediaConfig) -> None:
        width, height = size
        data = make_video("ffv1", "matroska", num_frames=2, size=size, pixel_format="yuv444p")
        assert load_visual_bytes(data, "clip", config).frames.shape == (2, height, width, 3)

    def test_transparency_is_white(self, config: MediaConfig) -> None:
        picture = np.zeros((48, 80, 4), np.uint8)
        picture[:, :40] = (200, 0, 0, 255)
        data = make_video("qtrle", "mov", pixel_format="argb", frames=[picture])
        (shown,) = load_visual_bytes(data, "clip", config).frames
        assert shown[5, 5].tolist() == [200, 0, 0]
        assert shown[5, 75].tolist() == [255, 255, 255]

    def test_high_definition_colours_follow_their_own_matrix(self, config: MediaConfig) -> None:
        frames = [np.full((48, 80, 3), (200, 40, 40), np.uint8)]
        options = {"x264-params": "colormatrix=bt709"}
        tagged = load_visual_bytes(make_video(frames=frames, codec_options=options), "clip", config).frames
        plain = load_visual_bytes(make_video(frames=frames), "clip", config).frames
        assert np.abs(tagged.astype(int) - plain).max() > 8

    @staticmethod
    def _corners(container: str, rotation: tuple[float, bool, bool], config: MediaConfig) -> np.ndarray:
        frames = [corner_frame(64, 32)]
        data = make_video(
            container=container, frames=frames, size=(64, 32), rotation=rotation, codec_options={"qp": "1"}
        )
        frames_shown: np.ndarray = load_visual_bytes(data, "clip", config).frames.astype(int)
        return np.asarray(frames_shown[0])


def test_a_size_that_changes_within_the_stream_is_brought_to_the_first(config: MediaConfig) -> None:
    small = make_video("mpeg2video", "mpegts", num_frames=10)
    frames = [numbered_frame(10 + k, 160, 96) for k in range(10)]
    large = make_video("mpeg2video", "mpegts", size=(160, 96), frames=frames, ticks=range(11, 21))
    visual = load_visual_bytes(small + large, "clip", config, num_frames=20)
    assert visual.frames.shape[1:] == (48, 80, 3)
    # The decoder of MPEG-2 gives up the frame that it keeps back when the size changes.
    assert [number for number in shown_numbers(visual.frames) if number != 9] == [*range(9), *range(10, 20)]


def test_equal_files_have_equal_digests(config: MediaConfig) -> None:
    data = make_video(num_frames=40)
    first, second = (load_visual_bytes(data, name, config) for name in ("one", "two"))
    assert first.digest == second.digest
    assert (first.source, second.source) == ("one", "two")
