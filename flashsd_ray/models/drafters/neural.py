"""The run-time side of every trained drafter: its requests, its cache of context rows, verdicts in and blocks out.

A verdict's taps become context rows only when the request is drafted for: while speculation is switched off for it,
they wait. Rows of drafts are written behind the context and never counted, so the next round overwrites them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import Tensor

from flashsd_ray.errors import InvalidRequestError, ProtocolError, StaleBlockError, UnknownRequestError
from flashsd_ray.models.drafters.choice import DraftChoice
from flashsd_ray.models.drafters.layout import PromptLayout, lay_out
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.models.drafters.round import DraftRound, Drafts
from flashsd_ray.models.kv_cache import CachedSequence, KVCache
from flashsd_ray.speculation.acceptance import AcceptanceRule
from flashsd_ray.types import DraftBlock, EncodedPrompt, SamplingParams, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """Fused taps of one verdict that are not context rows yet."""

    fused: Tensor  # [c, E]; all prompt positions when ``is_prompt``
    following: tuple[int, ...]  # length c, the token behind each
    positions: list[int]  # of the context rows they become
    is_prompt: bool


@dataclass(slots=True, eq=False)
class DraftState:
    """What a drafter knows of one open request."""

    sequence: CachedSequence
    layout: PromptLayout
    sampling: SamplingParams
    prompt_ids: tuple[int, ...]
    embeddings: Tensor | None  # [n, D] of the prompt, where the compressor reads vision features
    last: Verdict | None = None
    pending: list[Arrival] = field(default_factory=list)
    last_rows: int = 0  # context rows of the last verdict


class NeuralDrafter:
    """Runs one network for many requests."""

    def __init__(self, network: DrafterNetwork, *, cache_rows: int, rule: AcceptanceRule = "coupled") -> None:
        config = network.config
        self.network = network.eval()
        self.tap_layers = config.tap_layers
        self.tap_width = config.width
        self.max_draft_length = config.draft_length
        self.prompt_s = 0.0  # of the last ``propose``: what turning prompts into context rows took
        self._rule: AcceptanceRule = rule
        self._cache = KVCache(
            num_layers=config.num_layers,
            num_rows=cache_rows,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            dtype=network.view.dtype,
            device=network.view.device,
        )
        self._states: dict[str, DraftState] = {}

    @torch.inference_mode()
    def fuse(self, taps: Tensor) -> Tensor:  # [m, M * D] -> [m, E]
        """The rows that verdicts shall carry; to be called where the taps are made."""
        return self.network.fuse(taps)

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        """Cache rows are reserved for the request's compressed context.

        Raises:
            OverloadedError: not enough cache rows are free now.
            InvalidRequestError: the id is in use, or the cache could never hold the request.
        """
        if request_id in self._states:
            raise InvalidRequestError(f"request {request_id} is open already")
        layout = lay_out(len(prompt), prompt.segments, self.network.compressor, self.network.view.device)
        rows = layout.num_rows + max(0, max_rows - len(prompt)) + self.max_draft_length
        self._states[request_id] = DraftState(
            sequence=self._cache.open(rows),
            layout=layout,
            sampling=sampling,
            prompt_ids=prompt.token_ids,
            embeddings=prompt.embeddings if self.network.vision_in is not None else None,
        )

    def close(self, request_id: str) -> None:
        """Everything held for the request is free; closing twice is allowed."""
        state = self._states.pop(request_id, None)
        if state is not None:
            self._cache.close(state.sequence)

    @torch.inference_mode()
    def propose(
        self,
        verdicts: Sequence[Verdict],
        lengths: Sequence[int],  # most tokens to draft for each verdict
    ) -> list[DraftBlock]:
        """One block for each verdict; a repeated verdict gets the same block again.

        Raises:
            UnknownRequestError: a request is not open.
            StaleBlockError: a verdict does not continue the one before it.
            ProtocolError: a verdict comes without the taps that this drafter declared.
        """
        self.prompt_s = 0.0
        for verdict in verdicts:
            _arrive(self._state(verdict.request_id), verdict)
        wanted = [min(length, self.max_draft_length) for length in lengths]
        drafted = [index for index, length in enumerate(wanted) if length > 0]
        blocks = [
            DraftBlock(request_id=verdict.request_id, round=verdict.round + 1, start=verdict.next_start)
            for verdict in verdicts
        ]
        if drafted:
            chosen = self._draft([verdicts[i] for i in drafted], [wanted[i] for i in drafted])
            for index, block in zip(drafted, chosen, strict=True):
                blocks[index] = block
        return blocks

    def _state(self, request_id: str) -> DraftState:
        try:
            return self._states[request_id]
        except KeyError:
            raise UnknownRequestError(f"request {request_id} is not open at this drafter") from None

    def _draft(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        states = [self._states[verdict.request_id] for verdict in verdicts]
        starts = [verdict.next_start for verdict in verdicts]
        rounds = [verdict.round + 1 for verdict in verdicts]
        choice = DraftChoice([state.sampling for state in states], starts, rounds, max(lengths), self._rule)
        work = DraftRound(
            context=self._enter(states),
            positions=[[p for arrival in state.pending for p in arrival.positions] for state in states],
            sequences=[state.sequence for state in states],
            anchors=[verdict.token_ids[-1] for verdict in verdicts],
            starts=starts,
            choice=choice,
            length=max(lengths),
        )
        drafts = self.network.draft(work, self._cache)
        for state, positions in zip(states, work.positions, strict=True):
            state.sequence.length += len(positions)
            state.pending.clear()
        return _blocks(verdicts, lengths, drafts, choice)

    def _enter(self, states: Sequence[DraftState]) -> Tensor:  # [m, E]
        """Everything that waits becomes context rows, in the order of the states and of arrival."""
        network, device = self.network, self.network.view.device
        arrivals = [(state, arrival) for state in states for arrival in state.pending]
        plain = [arrival for _, arrival in arrivals if not arrival.is_prompt]
        entered: list[Tensor] = []
        if plain:
            fused = plain[0].fused if len(plain) == 1 else torch.cat([arrival.fused for arrival in plain])
            ids = [token_id for arrival in plain for token_id in arrival.following] if network.reads_following else []
            entered = [network.enter(fused, torch.tensor(ids, dtype=torch.int64, device=device))]
        if len(plain) == len(arrivals):
            return entered[0]
        began_s = perf_counter()
        texts = iter(torch.split(entered[0], [len(arrival.positions) for arrival in plain]) if plain else ())
        parts = [
            _enter_prompt(network, state, arrival) if arrival.is_prompt else next(texts) for state, arrival in arrivals
        ]
        rows = torch.cat(parts)
        self.prompt_s = perf_counter() - began_s
        return rows


def _enter_prompt(network: DrafterNetwork, state: DraftState, arrival: Arrival) -> Tensor:
    following = torch.tensor(arrival.following, dtype=torch.int64, device=arrival.fused.device)
    embeddings = None if state.embeddings is None else state.embeddings.to(arrival.fused)
    return network.enter_prompt(arrival.fused, following, state.layout, embeddings)


def _arrive(state: DraftState, verdict: Verdict) -> None:
    """The verdict's taps wait to become context rows; a repeated verdict takes the place of its first copy."""
    last = state.last
    expected = state.layout.num_tokens if last is None else last.next_start
    is_repeated = last is not None and (verdict.round, verdict.start) == (last.round, last.start)
    if not is_repeated and verdict.start != expected:
        raise StaleBlockError(
            f"{verdict.request_id}: verdict starts at {verdict.start}, {expected} tokens are committed"
        )
    is_prompt = verdict.start == state.layout.num_tokens
    num_taps = verdict.start if is_prompt else len(verdict.token_ids)
    if verdict.taps is None or len(verdict.taps) != num_taps:
        found = "none" if verdict.taps is None else str(len(verdict.taps))
        raise ProtocolError(f"{verdict.request_id}: {num_taps} rows of taps are needed, the verdict carries {found}")
    if is_repeated and state.pending:
        state.pending.pop()
    elif is_repeated:
        state.sequence.truncate(state.sequence.length - state.last_rows)
    first = verdict.start - 1
    arrival = Arrival(
        fused=verdict.taps,
        following=(*state.prompt_ids[1:], *verdict.token_ids) if is_prompt else verdict.token_ids,
        positions=state.layout.positions.tolist() if is_prompt else list(range(first, first + num_taps)),
        is_prompt=is_prompt,
    )
    state.pending.append(arrival)
    state.last = verdict
    state.last_rows = len(arrival.positions)


def _blocks(
    verdicts: Sequence[Verdict], lengths: Sequence[int], drafts: Drafts, choice: DraftChoice
) -> list[DraftBlock]:
    rows = drafts.token_ids.tolist()
    confidences = None if drafts.confidence is None else drafts.confidence.tolist()
    return [
        DraftBlock(
            request_id=verdict.request_id,
            round=verdict.round + 1,
            start=verdict.next_start,
            token_ids=tuple(rows[index][:length]),
            proposal=choice.proposal(index, length),
            confidence=None if confidences is None else tuple(confidences[index][:length]),
        )
        for index, (verdict, length) in enumerate(zip(verdicts, lengths, strict=True))
    ]
