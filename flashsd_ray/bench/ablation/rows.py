"""The rows of the ablation: which drafter each one trains, and what it is there to show.

``full`` stands for no compression: the drafter reads every visual token. The paper makes 64 latents of 576 visual tokens,
one of nine; its rows here make 4 of the 36 tokens of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flashsd_ray.errors import ConfigError
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.training.drafter.job import Design
from flashsd_ray.training.drafter.losses import FLASH_PAPER, LossWeights

LAST = "last"  # taps: the hidden state that the target's head reads, alone
SPREAD = "spread"  # taps: from low, middle and high layers

# The losses of EAGLE-3 and DFlash: KL divergence to the target's own distribution.
DIVERGENCE = LossWeights(hard=0.0, overlap=1.0)
# Medusa's: nothing but the true tokens.
TOKENS = LossWeights(hard=1.0, overlap=0.0, slot_decay=4.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRow:
    """One drafter and how it is trained; all that is not said here is the same in every row."""

    name: str
    text: str
    kind: str = "block"  # "" for plain decoding
    compressor: str = "latent"
    num_latents: int | None = None  # of a frame; None: the kind's own number
    taps: str = SPREAD
    sizes: Mapping[str, Any] = field(default_factory=dict)  # other fields of DrafterConfig
    weights: LossWeights = field(default_factory=LossWeights)
    is_divergence: bool = False  # KL divergence all the time, not only at first
    is_scrambled: bool = False  # noise stands where the latents would, in training as well
    tells_answers: bool = False  # trained on what is true instead of on what the target says
    drafter_of: str = ""  # decodes with the drafter of this row, which is not trained again
    is_gated: bool = False  # the engine decides how far to draft; otherwise every draft is as long as can be

    @property
    def is_plain(self) -> bool:
        """Whether nothing is drafted at all."""
        return not self.kind

    def config(self, view: TargetView, taps: Sequence[int] | None = None) -> DrafterConfig:
        """The sizes beside this target; ``taps`` take the place of the usual spread ones.

        Raises:
            ConfigError: they contradict each other or the target.
        """
        sizes = dict(self.sizes)
        if self.taps == LAST:
            sizes["tap_layers"] = (view.num_layers,)
        elif taps is not None:
            sizes["tap_layers"] = tuple(taps)
        design = Design(kind=self.kind, compressor=self.compressor, num_latents=self.num_latents, sizes=sizes)
        return design.config(view)


_EAGLE = AblationRow(name="", text="", kind="ar", taps=LAST, weights=FLASH_PAPER, is_divergence=True)
_PAPER = replace(_EAGLE, kind="flash")
_PLUS = AblationRow(name="", text="")
_WHOLE = {"is_causal": False}
_AS_PUBLISHED = {"has_lead": False, **_WHOLE}
_PLUS_LONG = {size: {"draft_length": size} for size in (4, 12, 16)}

ROWS: tuple[AblationRow, ...] = (
    AblationRow(name="A0", text="plain decoding", kind=""),
    replace(_EAGLE, name="A1", text="EAGLE: one token after the other, every visual token", compressor="full"),
    replace(_EAGLE, name="A2", text="A1 with the paper's compressor", compressor="flash"),
    replace(_EAGLE, name="A2-hide", text="A1 that sees no visual token", compressor="hide"),
    replace(_PAPER, name="A3", text="the paper's semi-autoregressive head, every visual token", compressor="full"),
    replace(_PAPER, name="A4", text="FLASH: A3 with the paper's compressor", compressor="flash"),
    replace(
        _PAPER,
        name="A5",
        text="in the manner of Medusa: from the last row alone, no attention",
        compressor="hide",
        sizes={"num_layers": 0},
        weights=TOKENS,
        is_divergence=False,
    ),
    replace(
        _EAGLE,
        name="A6",
        text="EAGLE-3: several taps, no feature loss",
        compressor="full",
        taps=SPREAD,
        weights=DIVERGENCE,
    ),
    replace(_EAGLE, name="A7", text="A6 that sees no visual token", compressor="hide", taps=SPREAD, weights=DIVERGENCE),
    replace(
        _PLUS,
        name="B1",
        text="DFlash: a block in one forward, slots that do not see each other's tokens",
        compressor="full",
        sizes={"markov_rank": 0, **_AS_PUBLISHED},
        weights=replace(DIVERGENCE, confidence=1.0),
        is_divergence=True,
    ),
    replace(
        _PLUS,
        name="B2",
        text="DSpark: B1 with the Markov head and total variation",
        compressor="full",
        sizes=_AS_PUBLISHED,
    ),
    replace(_PLUS, name="B3", text="FLASH+: B2 with latents, four for a frame, a lead, and causal slots"),
    replace(_PLUS, name="B3-whole", text="B3 whose slots all see each other: B2 with latents and a lead", sizes=_WHOLE),
    replace(_PLUS, name="B3-lead", text="B2 with a lead: every visual token", compressor="full", sizes=_WHOLE),
    replace(_PLUS, name="B3-latent", text="B2 with latents: no lead", sizes=_AS_PUBLISHED),
    replace(_PLUS, name="B4-hide", text="B3 without visual rows", compressor="hide"),
    replace(_PLUS, name="B4-scramble", text="B3 with noise in place of the latents", is_scrambled=True),
    replace(_PLUS, name="B4-1", text="B3 with one latent for a frame", num_latents=1),
    replace(_PLUS, name="B4-2", text="B3 with two latents for a frame", num_latents=2),
    replace(_PLUS, name="B4-8", text="B3 with eight latents for a frame", num_latents=8),
    replace(_PLUS, name="B4-16", text="B3 with sixteen latents for a frame", num_latents=16),
    replace(_PLUS, name="B4-pool", text="B3 with means in place of learned latents", compressor="pool"),
    replace(_PLUS, name="B4-flash", text="B3 with the paper's compressor", compressor="flash"),
    replace(_PLUS, name="B4-vision", text="B3 whose latents come from vision features", sizes={"source": "vision"}),
    replace(_PLUS, name="B5-given", text="B3 trained on the true answers, not on the target's", tells_answers=True),
    replace(_PLUS, name="B5-last", text="B3 with the last hidden state as its only tap", taps=LAST),
    replace(_PLUS, name="B5-last-hide", text="B5-last without visual rows", taps=LAST, compressor="hide"),
    *(replace(_PLUS, name=f"B5-k{size}", text=f"B3 with {size} slots", sizes=_PLUS_LONG[size]) for size in _PLUS_LONG),
    *(
        replace(
            _PLUS,
            name=f"B5-k{size}-hide",
            text=f"{size} slots, no visual rows",
            sizes=_PLUS_LONG[size],
            compressor="hide",
        )
        for size in (12, 16)
    ),
    replace(_PLUS, name="B5-gate", text="B3 with the gate and the confidence head", drafter_of="B3", is_gated=True),
)

# Which rows differ in one thing, and in which.
PAIRS: tuple[tuple[str, str, str], ...] = (
    ("A2", "A1", "compression alone"),
    ("A2", "A2-hide", "the paper's latents against nothing, one token after the other"),
    ("A6", "A7", "every visual token against none, one token after the other"),
    ("A3", "A1", "semi-autoregression alone"),
    ("A4", "A3", "compression, where drafts are semi-autoregressive"),
    ("A4", "A1", "FLASH against EAGLE"),
    ("B1", "A6", "a parallel block instead of one token after the other"),
    ("B2", "B1", "the Markov head and total variation"),
    ("B3-latent", "B2", "latents instead of every visual token"),
    ("B3-whole", "B3-lead", "latents instead of every visual token, where there is a lead"),
    ("B3-whole", "B3-latent", "the lead"),
    ("B3", "B3-whole", "slots that see only those before them"),
    ("B3", "A4", "FLASH+ against FLASH"),
    ("B3", "B4-hide", "latents against nothing"),
    ("B3", "B4-scramble", "latents against noise"),
    ("B3", "B4-pool", "learned latents against means"),
    ("B4-vision", "B3", "vision features instead of taps"),
    ("B5-last", "B5-last-hide", "latents against nothing, where there is one tap"),
    ("B5-k12", "B5-k12-hide", "latents against nothing, 12 slots"),
    ("B5-k16", "B5-k16-hide", "latents against nothing, 16 slots"),
    ("B3", "B5-given", "the target's own answers instead of true ones"),
    ("B5-gate", "B3", "the gate"),
)


def rows_named(names: Sequence[str]) -> tuple[AblationRow, ...]:
    """The rows of these names, and those whose drafters they decode with, in the order of the table.

    Raises:
        ConfigError: there is no such row.
    """
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"no row of the ablation is called {unknown[0]!r}; known: {', '.join(known)}")
    wanted = {*names, *(known[name].drafter_of for name in names)}
    return tuple(row for row in ROWS if row.name in wanted)
