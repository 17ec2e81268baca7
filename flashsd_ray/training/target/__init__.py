"""The demo target: a small LLaVA, trained from nothing on the demo world in three stages.

vision: the tower names what each patch shows. align: its projected patches speak the text model's words.
captions: the text model answers questions about clips. See `assets/demo/target/README.md` for figures.
"""

from flashsd_ray.models.torchvision_cpu import ensure_torchvision_imports

ensure_torchvision_imports()  # before transformers, whose processors import it
