"""An input reaches nothing but its own bytes, and a path is only a file name."""

from __future__ import annotations

import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError
from flashsd_ray.media import container, load_visual, load_visual_bytes, load_visuals, loading, source
from flashsd_ray.media.sampling import Sampling
from tests.media_files import make_picture, make_video


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A video beside the hostile file, which must stay unread."""
    path = tmp_path / "secret.ts"
    path.write_bytes(make_video(container="mpegts"))
    return path


HOSTILE_TEXTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {url}\n",
    "concat without a header": "file {url}\n",
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {port} RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=control:{url}\r\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-main:2011" mediaPresentationDuration="PT1S"><Period><AdaptationSet '
    'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
    "link": '<?xml version="1.0"?><?quicktime type="application/x-quicktime-media-link"?><embed src="{url}"/>',
}


@pytest.mark.parametrize("kind", HOSTILE_TEXTS)
@pytest.mark.parametrize("is_sniffed", [True, False], ids=["refused by us", "left to FFmpeg"])
def test_a_file_that_refers_to_others_is_refused(
    kind: str, is_sniffed: bool, secret: Path, config: MediaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_sniffed:
        monkeypatch.setattr(loading, "refusal", lambda header: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        for url in (
            f"http://127.0.0.1:{port}/x.ts",
            f"tcp://127.0.0.1:{port}",
            str(secret),
            f"file://{secret}",
            secret.name,
        ):
            text = HOSTILE_TEXTS[kind].format(url=url, port=port)
            with pytest.raises(MediaError, match=r"^hostile\.mp4: "):
                load_visual_bytes(text.encode(), "hostile.mp4", config)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("barrier", ["format_whitelist", "protocol_whitelist"])
def test_each_barrier_alone_keeps_other_files_shut(
    barrier: str, secret: Path, config: MediaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = container._options(config)
    monkeypatch.setattr(loading, "refusal", lambda header: None)
    monkeypatch.chdir(secret.parent)
    playlist = b"ffconcat version 1.0\nfile secret.ts\n"
    monkeypatch.setattr(container, "_options", lambda config: {"safe": "0", "protocol_whitelist": "file"})
    assert load_visual_bytes(playlist, "list", config).kind == "video", "without a barrier the file is open"
    alone = {"safe": "0", "protocol_whitelist": "file", barrier: options[barrier]}
    monkeypatch.setattr(container, "_options", lambda config: alone)
    with pytest.raises(MediaError, match=r"^list: cannot be read as a video"):
        load_visual_bytes(playlist, "list", config)
    # What was refused is not kept for the next file.
    assert load_visual(secret, config).kind == "video"


@pytest.mark.parametrize(
    "name",
    ["frame%d.mp4", "frame%03d.png", "-i.mp4", "--help", "clip*.mp4", "a:b.mp4", "concat:x.mp4", "[1].mp4", "ü\n.mp4"],
)
def test_odd_names_are_names(name: str, tmp_path: Path, config: MediaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(make_video(num_frames=3))
    visual = load_visual(name, config)
    assert len(visual.frames) == 3
    assert visual.source == name.replace("\n", "\\n")


def test_an_address_is_the_name_of_a_file(tmp_path: Path, config: MediaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match=r"^http://127.0.0.1/clip.mp4: does not exist$"):
        load_visual("http://127.0.0.1/clip.mp4", config)
    Path("http:", "127.0.0.1").mkdir(parents=True)
    Path("http:", "127.0.0.1", "clip.mp4").write_bytes(make_video(num_frames=3))
    assert load_visual("http://127.0.0.1/clip.mp4", config).kind == "video"


class TestSpecialFiles:
    """What is no regular file is refused at once and never waited for."""

    def test_pipe(self, tmp_path: Path, config: MediaConfig) -> None:
        os.mkfifo(tmp_path / "clip.mp4")
        with pytest.raises(MediaError, match=r"clip.mp4: is a pipe, not a file$"):
            load_visual(tmp_path / "clip.mp4", config)

    def test_a_path_that_becomes_a_pipe(
        self, tmp_path: Path, config: MediaConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(tmp_path / "clip.mp4")
        monkeypatch.setattr(loading, "is_directory", lambda path, label: False)
        with pytest.raises(MediaError, match=r"clip.mp4: is not a regular file$"):
            load_visual(tmp_path / "clip.mp4", config)

    def test_socket(self, tmp_path: Path, config: MediaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # the address of a socket must be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("clip.mp4")
            with pytest.raises(MediaError, match=r"clip.mp4: is a socket, not a file$"):
                load_visual("clip.mp4", config)

    @pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
    def test_device(self, path: str, config: MediaConfig) -> None:
        with pytest.raises(MediaError, match=f"^{path}: is a device, not a file$"):
            load_visual(path, config)

    def test_links(self, tmp_path: Path, config: MediaConfig) -> None:
        (tmp_path / "clip.mp4").write_bytes(make_video(num_frames=3))
        (tmp_path / "good").symlink_to("clip.mp4")
        (tmp_path / "dangling").symlink_to("nowhere")
        (tmp_path / "loop").symlink_to("loop")
        assert load_visual(tmp_path / "good", config).kind == "video"
        with pytest.raises(MediaError, match=r"dangling: is a link to a missing file$"):
            load_visual(tmp_path / "dangling", config)
        with pytest.raises(MediaError, match=r"loop: cannot be opened: Too many levels of symbolic links$"):
            load_visual(tmp_path / "loop", config)

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("", "^the path is empty$"),
            ("missing.mp4", r"^missing.mp4: does not exist$"),
            ("a\0b", r"^a\\x00b: cannot be opened: embedded null byte$"),
            ("x" * 300, r"^\.\.\.x{200}: cannot be opened: File name too long$"),
        ],
    )
    def test_paths_that_lead_nowhere(self, path: str, message: str, config: MediaConfig) -> None:
        with pytest.raises(MediaError, match=message):
            load_visual(path, config)

    def test_unreadable(self, tmp_path: Path, config: MediaConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "clip.mp4"
        path.write_bytes(make_picture())

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        # The tests may run as root, who may read everything.
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(MediaError, match=r"clip.mp4: cannot be opened: Permission denied$"):
            load_visual(path, config)

    def test_a_disk_that_fails_while_reading(self, tmp_path: Path, config: MediaConfig) -> None:
        class FailingStream:
            def tell(self) -> int:
                return 0

            def seek(self, offset: int, whence: int = 0) -> int:
                return 0

            def read(self, size: int) -> bytes:
                raise OSError(5, "Input/output error")

        deadline = source.Deadline(10.0, lambda: 0.0)
        failing = source.MediaSource(FailingStream(), 1000, "clip.mp4", deadline)  # type: ignore[arg-type]
        with pytest.raises(MediaError, match=r"^clip.mp4: cannot be read: Input/output error$"):
            loading._load(failing, config, Sampling.resolve(config, None, None, None, None))


def test_several_inputs_come_in_order(tmp_path: Path, config: MediaConfig) -> None:
    (tmp_path / "clip").write_bytes(make_video(num_frames=3))
    (tmp_path / "picture").write_bytes(make_picture())
    visuals = load_visuals([tmp_path / "clip", tmp_path / "picture"], config, num_frames=2)
    assert [(visual.kind, len(visual.frames)) for visual in visuals] == [("video", 2), ("image", 1)]
    assert load_visuals([], config) == ()


def test_a_file_that_grows_ends_where_it_ended_when_it_was_opened(tmp_path: Path, config: MediaConfig) -> None:
    path = tmp_path / "clip"
    path.write_bytes(b"12345")
    deadline = source.Deadline(10.0, lambda: 0.0)
    with source.open_file(path, "clip", config, deadline) as opened:
        with path.open("ab") as more:
            more.write(b"67890")
        assert opened.read() == b"12345"
        assert opened.seek(0, os.SEEK_END) == 5
    assert stat.S_ISREG(path.stat().st_mode)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_are_accepted(kind: type, config: MediaConfig) -> None:
    assert load_visual_bytes(kind(make_video(num_frames=3)), "clip", config).source == "clip"
    assert load_visual_bytes(kind(make_picture()), "", config).source == "input"


def test_no_bytes_are_refused(config: MediaConfig) -> None:
    with pytest.raises(MediaError, match=r"^clip: is empty$"):
        load_visual_bytes(b"", "clip", config)


def test_many_at_once_are_read_as_each_alone(config: MediaConfig) -> None:
    inputs = [make_video(), make_video("libvpx-vp9", "webm"), make_picture(), b"no video", make_video()[:500]]

    def outcome(data: bytes) -> str:
        try:
            return load_visual_bytes(data, "input", config).digest
        except MediaError as error:
            return str(error)

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(outcome, inputs * 6))
    assert together == [outcome(data) for data in inputs] * 6
