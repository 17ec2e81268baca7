"""The bundled target: a small LLaVA, trained from nothing on clips of the town, stage by stage.

vision: the tower names what each patch shows. align: its projected patches speak the text model's words.
short, captions: the text model answers questions about clips. See `assets/demo/target/README.md` for figures.
"""

from flashsd_ray.training.waiting import let_waiting_threads_sleep

let_waiting_threads_sleep()

from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports  # noqa: E402 (it loads torch)

ensure_torchvision_imports()  # before transformers, whose processors import it
