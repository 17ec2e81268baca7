"""Send frames as a camera gives them, with a caption for every two seconds: python examples/camera.py /dev/video0."""

# ruff: noqa: T201

import sys
import threading
import time

import av

from flashsd_ray.client import AnswerFinished, Client, Refused, Session

STEP_S = 0.25  # between frames: more of them cost more, and help only models that were trained with as many


def read_captions(session: Session) -> None:
    """Whatever the server says by itself is printed."""
    for event in session.events():
        if isinstance(event, AnswerFinished):
            print(f"{event.text}  (first text after {event.seconds_to_first_text:.2f} s)")
        elif isinstance(event, Refused):
            print(f"refused: {event.reason}")


frames = av.open(sys.argv[1], format="v4l2" if sys.argv[1].startswith("/dev/") else None).decode(video=0)
client = Client("localhost:9000", jpeg_quality=90)
with client, client.watch(prompt="Describe the video in detail.", mode="periodic", period_s=2) as session:
    reader = threading.Thread(target=read_captions, args=(session,))
    reader.start()
    began_s, first_s, due_s = time.monotonic(), None, 0.0
    for frame in frames:
        first_s = frame.time if first_s is None else first_s
        time_s = frame.time - first_s
        if time_s >= due_s:
            due_s = time_s + STEP_S
            time.sleep(max(began_s + time_s - time.monotonic(), 0.0))  # plays a file; a camera has waited already
            session.send(frame.to_ndarray(format="rgb24"), time_s)
    session.end()
    reader.join()
