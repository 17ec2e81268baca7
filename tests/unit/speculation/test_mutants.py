"""The laws have teeth: every mutant of the acceptance rules breaks one.

A mutant is one edit of the real source, so it stays a mutant of the code as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
import torch

from flashsd_ray.speculation import acceptance, acceptance_batch
from flashsd_ray.speculation.acceptance import accept_prefix
from flashsd_ray.types import SamplingParams
from tests.fakes import seeded_logits
from tests.unit.speculation.laws import EXACT, DraftRow, assert_same_as_plain, block_law_error, draft_scripts

# name: the law that breaks, the text in acceptance.py, what the mutant has in its place
MUTANTS = {
    "residual is the target": (
        "rejection",
        "return excess / total if bool(total > 0) else target_probs",
        "return target_probs",
    ),
    "residual is not renormalised": ("rejection", "excess / total if", "excess if"),
    "residual takes absolute differences": ("rejection", ".clamp(min=0.0)", ".abs()"),
    "residual of the next row": ("rejection", "residual(target_probs[row],", "residual(target_probs[row + 1],"),
    "recovered token may be the rejected certain draft": (
        "rejection",
        ".clamp(min=0.0)",
        ".clamp(min=0.0) if len(support_ids) > 1 else target_probs.clone()",
    ),
    "acceptance ratio is inverted": (
        "rejection",
        "(target_probs[:-1].gather(-1, drafts).squeeze(-1) / draft_probs)",
        "(draft_probs / target_probs[:-1].gather(-1, drafts).squeeze(-1))",
    ),
    "acceptance ignores the draft probability": ("rejection", ".squeeze(-1) / draft_probs)", ".squeeze(-1))"),
    "acceptance looks at the next row": ("rejection", "(target_probs[:-1].gather", "(target_probs[1:].gather"),
    "every draft stands": ("rejection", "if not draws.accept(chance,", "if draws.accept(0.0,"),
    "bonus is drawn from the unwarped target": (
        "rejection",
        "target_probs = warp(target_logits, sampling)",
        "target_probs = torch.cat([warp(target_logits, sampling)[:-1], target_logits[-1:].double().softmax(-1)])",
    ),
    "nothing is warped": ("rejection", "warp(target_logits, sampling)", "target_logits.double().softmax(-1)"),
    "bonus repeats the last judged row": (
        "rejection",
        "draws.token(target_probs[-1],",
        "draws.token(target_probs[-2:][0],",
    ),
    "one accepted draft is lost": ("rejection", "(row, (*draft_ids[:row],", "(row, (*draft_ids[1:row],"),
    "the rejected draft is counted": (
        "rejection",
        "Judgement(row, (*draft_ids[:row],",
        "Judgement(row + 1, (*draft_ids[:row],",
    ),
    "one noise judges every draft": ("rejection", "draws.accept(chance, start + row)", "draws.accept(chance, start)"),
    "one noise accepts and recovers": ("rejection", "start + row, Purpose.RECOVER", "start + row, Purpose.ACCEPT"),
    "recovery follows the noise of the drafter": (
        "rejection",
        "start + row, Purpose.RECOVER",
        "start + row, Purpose.TOKEN",
    ),
    "coupled draws use one position": (
        "coupled",
        "(probs, start + row, Purpose.TOKEN)",
        "(probs, start, Purpose.TOKEN)",
    ),
    "coupled draws use another purpose": ("coupled", "Purpose.TOKEN)", "Purpose.BONUS)"),
    "coupled accepts a draft that differs": ("coupled", "draft_ids[row] != token_ids[row]", "row > 0"),
    "greedy prefix is one too long": (
        "greedy",
        "return Judgement(num_accepted, tuple(choices[: num_accepted + 1]))",
        "return Judgement(num_accepted + 1, (*draft_ids[: num_accepted + 1], choices[num_accepted]))",
    ),
    "greedy takes the least probable token": ("greedy", "highest_ids(target_logits)", "highest_ids(-target_logits)"),
    "greedy compares with the row after": (
        "greedy",
        "draft_ids[num_accepted] == choices[num_accepted]",
        "draft_ids[num_accepted] == choices[num_accepted + 1]",
    ),
    "greedy skips a draft that differs": (
        "greedy",
        "draft_ids[num_accepted] == choices[num_accepted]",
        "num_accepted < 1",
    ),
}


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """The module with one edit."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} must stand in the source once"
    changed = ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant.py", "exec"), changed.__dict__)
    return changed


def rows(*all_probs: tuple[float, ...]) -> list[DraftRow]:
    """Draft distributions over a vocabulary of three."""
    return [(torch.arange(3), torch.tensor(probs, dtype=torch.float64)) for probs in all_probs]


def rejection_law(rules: ModuleType) -> None:
    """The law of a block is the target's for proposals and for certain drafts."""
    draft_rows = rows((0.2, 0.3, 0.5), (0.6, 0.4, 0.0))
    sampling = SamplingParams(temperature=0.7, top_p=0.9)
    for with_proposal, seed in product((True, False), range(3)):
        logits = seeded_logits(3, seed, spread=1.0)
        error = block_law_error(rules, "rejection", logits, draft_rows, sampling, with_proposal=with_proposal)
        assert error < EXACT


def coupled_law(rules: ModuleType) -> None:
    """Coupled output is that of plain sampling."""
    next_logits = seeded_logits(5, 3)
    for seed in range(3):
        sampling = SamplingParams(temperature=1.3, top_p=0.9, seed=seed, max_new_tokens=12)
        for drafter in draft_scripts(next_logits, 5, sampling, seed).values():
            assert_same_as_plain(rules, next_logits, (0, 1), sampling, drafter)


def greedy_law(rules: ModuleType) -> None:
    """Greedy output is that of the target alone."""
    sampling = SamplingParams(max_new_tokens=12)
    for seed in range(3):
        next_logits = seeded_logits(4, seed)
        for drafter in draft_scripts(next_logits, 4, sampling, seed).values():
            assert_same_as_plain(rules, next_logits, (0, 1), sampling, drafter)


LAWS: dict[str, Callable[[ModuleType], None]] = {
    "rejection": rejection_law,
    "coupled": coupled_law,
    "greedy": greedy_law,
}


@pytest.mark.parametrize("law", LAWS)
def test_the_real_rules_obey(law: str) -> None:
    LAWS[law](acceptance)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_breaks_a_law(name: str) -> None:
    law, old, new = MUTANTS[name]
    changed = mutant(acceptance, old, new)
    with pytest.raises(AssertionError):
        LAWS[law](changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(argmax_ids[:, :-1] == drafts) & is_draft", "(argmax_ids[:, :-1] == drafts)"),
        ("agrees.cumprod(dim=1).sum(dim=1)", "agrees.sum(dim=1)"),
        ("argmax_ids[:, :-1] == drafts", "argmax_ids[:, 1:] == drafts"),
    ],
)
def test_a_mutant_of_the_padded_batch_differs_from_the_reference(old: str, new: str) -> None:
    def agrees(module: ModuleType) -> bool:
        for ids in product(range(2), repeat=5):
            choices, drafts = ids[:3], ids[3:]
            for length in range(3):
                counts = module.judge_greedy_batch(
                    torch.tensor([choices]), torch.tensor([drafts]), torch.tensor([length])
                )
                if int(counts[0]) != accept_prefix(choices[: length + 1], drafts[:length]).num_accepted:
                    return False
        return True

    assert agrees(acceptance_batch)
    assert not agrees(mutant(acceptance_batch, old, new))
