"""Targets and drafters without weights: they keep the protocols of speculation/interfaces.py and their contracts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from flashsd_ray.errors import OverloadedError, ProtocolError, StaleBlockError, UnknownRequestError
from flashsd_ray.speculation.acceptance import AcceptanceRule, Judgement
from flashsd_ray.speculation.acceptance_batch import judge_blocks
from flashsd_ray.speculation.sampling import draft_choice, draft_proposal
from flashsd_ray.types import DraftBlock, EncodedPrompt, Fill, Proposal, SamplingParams, Verdict

NextLogits = Callable[[tuple[int, ...]], Tensor]  # history -> [V] float64
Script = Callable[[tuple[int, ...], int], Sequence[int]]  # history, length -> drafts
Judge = Callable[[Tensor, DraftBlock, SamplingParams, AcceptanceRule], Judgement]


def token_prompt(token_ids: Sequence[int], width: int = 1) -> EncodedPrompt:
    """A prompt of text only; its embeddings are zero, since fakes look at the ids."""
    rows = len(token_ids)
    return EncodedPrompt(
        token_ids=tuple(token_ids), embeddings=torch.zeros(rows, width), positions=torch.arange(rows).unsqueeze(0)
    )


def seeded_logits(
    vocab_size: int, seed: int = 0, *, order: int = 2, levels: int = 0, spread: float = 1.5
) -> NextLogits:
    """A language model that is a table: random float64 logits for every last ``order`` tokens.

    With ``levels`` the logits take so many values only, so that ties are everywhere.
    """

    @lru_cache(maxsize=4096)
    def look_up(context: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(hash((seed, *context)) % 2**63)
        if levels:
            return torch.randint(levels, (vocab_size,), generator=generator).to(torch.float64)
        return torch.randn(vocab_size, generator=generator, dtype=torch.float64) * spread

    return lambda history: look_up(history[-order:])


@dataclass
class _Session:
    token_ids: list[int]
    sampling: SamplingParams
    max_rows: int
    cached: int = 0
    last: Verdict | None = None


class TableTarget:
    """A target whose logits are a function of the history."""

    def __init__(
        self,
        next_logits: NextLogits,
        rule: AcceptanceRule = "coupled",
        judge: Judge | None = None,  # None: the batched one of the package
        max_rows: int = 10**6,
    ) -> None:
        self.next_logits = next_logits
        self.rule = rule
        self.judge = judge
        self.free_rows = max_rows
        self.sessions: dict[str, _Session] = {}
        self.num_forwards = 0

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> int:
        """Rows are reserved; nothing is cached yet."""
        if request_id in self.sessions:
            raise ProtocolError(f"request {request_id} is already open")
        if max_rows > self.free_rows:
            raise OverloadedError(f"{max_rows} rows asked, {self.free_rows} free")
        self.free_rows -= max_rows
        self.sessions[request_id] = _Session(list(prompt.token_ids), sampling, max_rows)
        return 0

    def verify(self, blocks: Sequence[DraftBlock], fills: Sequence[Fill] = ()) -> list[Verdict]:
        """One forward: fills are cached, new blocks are judged, repeated ones answered from memory."""
        self.num_forwards += 1
        for fill in fills:
            session = self._session(fill.request_id)
            session.cached = max(session.cached, min(fill.stop, len(session.token_ids)))
        fresh = [block for block in blocks if self._is_fresh(block)]
        for block, judgement in zip(fresh, self._judge(fresh), strict=True):
            session = self.sessions[block.request_id]
            session.token_ids.extend(judgement.token_ids)
            session.cached = len(session.token_ids) - 1
            session.last = Verdict(
                request_id=block.request_id,
                round=block.round,
                start=block.start,
                num_accepted=judgement.num_accepted,
                token_ids=judgement.token_ids,
            )
        verdicts = [self.sessions[block.request_id].last for block in blocks]
        return [verdict for verdict in verdicts if verdict is not None]

    def tapped(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """There is nothing to tap."""
        for verdict in verdicts:
            self._session(verdict.request_id)
        return list(verdicts)

    def close(self, request_id: str) -> None:
        """The rows are free."""
        session = self.sessions.pop(request_id, None)
        self.free_rows += session.max_rows if session else 0

    def _session(self, request_id: str) -> _Session:
        if request_id not in self.sessions:
            raise UnknownRequestError(f"request {request_id} is not open")
        return self.sessions[request_id]

    def _is_fresh(self, block: DraftBlock) -> bool:
        session = self._session(block.request_id)
        last = session.last
        if last is not None and (last.round, last.start) == (block.round, block.start):
            return False
        if block.start < len(session.token_ids):
            raise StaleBlockError(f"block starts at {block.start}, request stands at {len(session.token_ids)}")
        if block.start > len(session.token_ids):
            raise ProtocolError(f"block starts at {block.start}, request stands at {len(session.token_ids)}")
        if block.start + len(block.token_ids) >= session.max_rows:
            raise ProtocolError(f"block ends after the {session.max_rows} rows of its request")
        return True

    def _judge(self, blocks: Sequence[DraftBlock]) -> list[Judgement]:
        if not blocks:
            return []
        samplings = [self.sessions[block.request_id].sampling for block in blocks]
        logits = [self._block_logits(block) for block in blocks]
        if self.judge is None:
            return judge_blocks(torch.cat(logits), blocks, samplings, self.rule)
        return [self.judge(*one, self.rule) for one in zip(logits, blocks, samplings, strict=True)]

    def _block_logits(self, block: DraftBlock) -> Tensor:  # [K+1, V]
        history = tuple(self.sessions[block.request_id].token_ids)
        drafts = block.token_ids
        return torch.stack([self.next_logits((*history, *drafts[:row])) for row in range(len(drafts) + 1)])


class _HistoryDrafter:
    """Keeps the history of every request; what to draft is left to the subclass."""

    tap_layers: tuple[int, ...] = ()
    tap_width = 0

    def fuse(self, taps: Tensor) -> Tensor:  # [m, 0] -> [m, 0]
        """Nothing is tapped."""
        return taps

    def __init__(self, max_draft_length: int) -> None:
        self.max_draft_length = max_draft_length
        self.histories: dict[str, tuple[int, ...]] = {}
        self.samplings: dict[str, SamplingParams] = {}

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        """The history is the prompt."""
        self.histories[request_id] = prompt.token_ids
        self.samplings[request_id] = sampling

    def propose(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        """One block for each verdict."""
        blocks = []
        for verdict, length in zip(verdicts, lengths, strict=True):
            history = (*self.histories[verdict.request_id], *verdict.token_ids)
            assert len(history) == verdict.next_start
            self.histories[verdict.request_id] = history
            empty = DraftBlock(request_id=verdict.request_id, round=verdict.round + 1, start=len(history))
            blocks.append(self._fill(empty, history, min(length, self.max_draft_length)))
        return blocks

    def close(self, request_id: str) -> None:
        """The history is forgotten."""
        self.histories.pop(request_id, None)
        self.samplings.pop(request_id, None)

    def _fill(self, block: DraftBlock, history: tuple[int, ...], length: int) -> DraftBlock:
        raise NotImplementedError


class NullDrafter(_HistoryDrafter):
    """Never drafts: plain decoding."""

    def __init__(self) -> None:
        super().__init__(max_draft_length=0)

    def _fill(self, block: DraftBlock, history: tuple[int, ...], length: int) -> DraftBlock:
        return block


class ScriptDrafter(_HistoryDrafter):
    """Drafts what a function of the history says: an oracle, an adversary, noise."""

    def __init__(self, script: Script, max_draft_length: int) -> None:
        super().__init__(max_draft_length)
        self.script = script

    def _fill(self, block: DraftBlock, history: tuple[int, ...], length: int) -> DraftBlock:
        return replace(block, token_ids=tuple(self.script(history, length)[:length]))


class CoupledDrafter(_HistoryDrafter):
    """A small model that follows the noise of the target's draws."""

    def __init__(self, next_logits: NextLogits, max_draft_length: int, vocabulary: Tensor | None = None) -> None:
        super().__init__(max_draft_length)
        self.next_logits = next_logits
        self.vocabulary = vocabulary

    def _fill(self, block: DraftBlock, history: tuple[int, ...], length: int) -> DraftBlock:
        for _ in range(length):
            logits = self.next_logits(history).unsqueeze(0)
            logits = logits if self.vocabulary is None else logits[:, self.vocabulary]
            history += draft_choice(logits, self.samplings[block.request_id], len(history), self.vocabulary)
        return replace(block, token_ids=history[block.start :])


class ProposalDrafter(_HistoryDrafter):
    """A small model that draws its drafts and says from what."""

    def __init__(self, next_logits: NextLogits, max_draft_length: int, support_size: int) -> None:
        super().__init__(max_draft_length)
        self.next_logits = next_logits
        self.support_size = support_size

    def _fill(self, block: DraftBlock, history: tuple[int, ...], length: int) -> DraftBlock:
        proposals = []
        sampling = self.samplings[block.request_id]
        for _ in range(length):
            logits = self.next_logits(history).unsqueeze(0)
            drafts, proposal = draft_proposal(logits, sampling, len(history), block.round, self.support_size)
            history += drafts
            proposals.append(proposal)
        if not proposals:
            return block
        joined = Proposal(
            support_ids=torch.cat([proposal.support_ids for proposal in proposals]),
            support_probs=torch.cat([proposal.support_probs for proposal in proposals]),
        )
        return replace(block, token_ids=history[block.start :], proposal=joined)
