"""The target on one device: it keeps the cache rows of open requests and judges their draft blocks.

Every call of ``verify`` is one forward over the rows that are missing: the next chunk of a prompt, the anchor and the
drafts behind it. Prefill is verifying an empty block, and plain decoding is verifying nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from flashsd_ray.errors import InvalidRequestError, ProtocolError, StaleBlockError, UnknownRequestError
from flashsd_ray.models.decoder import Decoder, FlatBatch
from flashsd_ray.models.flat_batch import OpenRequest, Span, flatten, missing
from flashsd_ray.models.kv_cache import BLOCK_ROWS, KVCache
from flashsd_ray.models.logprobs import token_logprobs
from flashsd_ray.models.taps import TapCache, Taps
from flashsd_ray.speculation.acceptance import AcceptanceRule, Judgement
from flashsd_ray.speculation.acceptance_batch import judge_blocks
from flashsd_ray.types import DraftBlock, EncodedPrompt, Fill, SamplingParams, TokenLogprob, Verdict


class LocalTarget:
    """A target whose weights and cache live in this process."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        cache_rows: int,
        context_length: int,
        taps: Taps | None = None,
        rule: AcceptanceRule = "coupled",
        share_prefixes: bool = True,
    ) -> None:
        self.decoder = decoder
        self.context_length = context_length
        self.cache: KVCache = decoder.new_cache(cache_rows, taps.width if taps else 0)
        self._taps = TapCache(taps, self.cache.taps) if taps else None
        self._rule: AcceptanceRule = rule
        self._share_prefixes = share_prefixes
        self._requests: dict[str, OpenRequest] = {}

    @property
    def free_rows(self) -> int:
        """Cache rows that a new request could reserve now."""
        return self.cache.free_rows

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> int:
        """Rows are reserved for the request; returns how many of its prompt positions are cached already.

        Raises:
            OverloadedError: not enough cache rows are free now.
            InvalidRequestError: the id is in use, or the cache or the model's context has too few rows.
        """
        if request_id in self._requests:
            raise InvalidRequestError(f"request {request_id} is open already")
        if max_rows > self.context_length:
            raise InvalidRequestError(
                f"prompt and answer need {max_rows} positions ({len(prompt)} of them for the prompt), "
                f"the model's context has {self.context_length}"
            )
        digests = prefix_digests(prompt) if self._share_prefixes else ()
        sequence = self.cache.open(max_rows, digests)
        cos, sin = self.decoder.rotary(prompt.positions.to(self.decoder.device))
        self._requests[request_id] = OpenRequest(
            prompt=prompt,
            sampling=sampling,
            sequence=sequence,
            cos=cos,
            sin=sin,
            digests=digests,
            token_ids=list(prompt.token_ids),
        )
        return sequence.length

    def close(self, request_id: str) -> None:
        """The request's rows are free (its prefix may stay cached); closing twice is allowed."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            self.cache.close(request.sequence)

    @torch.inference_mode()
    def verify(self, blocks: Sequence[DraftBlock], fills: Sequence[Fill] = ()) -> list[Verdict]:
        """Every fill is cached and every block is judged, in one forward; verdicts in the order of the blocks.

        Raises:
            UnknownRequestError: a request is not open.
            StaleBlockError: a block does not start where its request stands.
            ProtocolError: a block does not fit the rows reserved for its request.
        """
        verdicts: dict[str, Verdict] = {}
        work: list[tuple[DraftBlock, Span]] = []
        for block in blocks:
            request = self._request(block.request_id)
            last = request.last_verdict
            if last is not None and (block.round, block.start) == (last.round, last.start):
                verdicts[block.request_id] = last
            elif block.start != len(request.token_ids):
                raise StaleBlockError(
                    f"{block.request_id}: block starts at {block.start}, {len(request.token_ids)} tokens are committed"
                )
            elif block.start + len(block.token_ids) > request.sequence.capacity:
                raise ProtocolError(
                    f"{block.request_id}: block ends behind the {request.sequence.capacity} rows reserved"
                )
            else:
                work.append((block, missing(request, block.start, block.token_ids)))
        spans = [missing(self._request(fill.request_id), fill.stop) for fill in fills]
        for verdict in self._forward(work, [span for span in spans if len(span)]):
            verdicts[verdict.request_id] = verdict
        return [verdicts[block.request_id] for block in blocks]

    @torch.inference_mode()
    def tapped(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The verdicts with the taps of the rows that they brought into the cache, for a drafter that wants taps.

        Taps lie in the cache beside keys and values, so they can be read rounds later, by whoever then has a use for
        them.

        Raises:
            UnknownRequestError: a request is not open.
        """
        rows = [self._request(verdict.request_id).rows_brought_by(verdict) for verdict in verdicts]
        if self._taps is None or not rows:
            return list(verdicts)
        taps = self._taps.read(rows)
        return [replace(verdict, taps=part) for verdict, part in zip(verdicts, taps, strict=True)]

    def _request(self, request_id: str) -> OpenRequest:
        try:
            return self._requests[request_id]
        except KeyError:
            raise UnknownRequestError(f"request {request_id} is not open at this target") from None

    def _forward(self, work: list[tuple[DraftBlock, Span]], fills: list[Span]) -> list[Verdict]:
        if not work and not fills:
            return []
        # A span that brings prompt rows is computed on its own; all others lie together as one group.
        work = sorted(work, key=lambda item: item[1].prompt_rows > 0)
        decoding = [span for _, span in work if span.prompt_rows == 0]
        filling = [span for _, span in work if span.prompt_rows > 0] + fills
        widths = [len(block.token_ids) + 1 for block, _ in work]
        reads = self._reads(filling, [*widths[len(decoding) :], *(0 for _ in fills)])
        batch, firsts = flatten(decoding, filling, self.decoder, self.cache, reads)
        output = self.decoder.forward(batch, self.cache, self._taps.layers if self._taps else ())
        if self._taps and output.taps is not None:
            is_plain = not filling and max(widths) == 1
            self._taps.keep(output.taps, batch.cache_rows, is_plain=is_plain)
        for span in (*decoding, *filling):
            span.request.sequence.length = span.stop
        judged = zip(firsts[: len(work)], widths, work, strict=True)
        anchors = [first + len(span) - width for first, width, (_, span) in judged]
        rows = _rows_read(batch, anchors, widths)
        outcomes = self._judge(output.hidden, work, rows)
        return [
            self._commit(block, span.request, judgement, logprobs)
            for (block, span), (judgement, logprobs) in zip(work, outcomes, strict=True)
        ]

    def _reads(self, filling: Sequence[Span], widths: Sequence[int]) -> Sequence[int] | None:
        """Of each piece of a prompt, how many rows are read after the last layer; None: somebody reads them all."""
        num_layers = self.decoder.num_layers
        is_tapped = self._taps is not None and num_layers in self._taps.layers
        is_deep = any(len(span.request.prompt.deepstack) >= num_layers for span in filling)
        return None if is_tapped or is_deep or not filling else widths

    def _judge(
        self,
        hidden: Tensor,  # [m, D]
        work: list[tuple[DraftBlock, Span]],
        rows: list[int],  # of ``hidden``, anchor and drafts of one block after the other
    ) -> list[tuple[Judgement, tuple[TokenLogprob, ...]]]:
        if not rows:
            return []
        padding = self.decoder.usual_rows(len(rows)) - len(rows)
        if rows != list(range(len(hidden))):
            hidden = hidden.index_select(0, torch.tensor(rows + rows[:1] * padding, device=hidden.device))
        samplings = [span.request.sampling for _, span in work]
        logits = self.decoder.logits(hidden)[: len(rows)]
        judgements = judge_blocks(logits, [block for block, _ in work], samplings, self._rule)
        firsts = accumulate((len(block.token_ids) + 1 for block, _ in work), initial=0)
        return [
            (judgement, () if num_top is None else token_logprobs(logits[first:], judgement.token_ids, num_top))
            for judgement, first, num_top in zip(judgements, firsts, (s.logprobs for s in samplings), strict=False)
        ]

    def _commit(
        self,
        block: DraftBlock,
        request: OpenRequest,
        outcome: Judgement,
        logprobs: tuple[TokenLogprob, ...],
    ) -> Verdict:
        num_accepted, token_ids = outcome
        request.token_ids.extend(token_ids)
        request.sequence.truncate(len(request.token_ids) - 1)
        if request.last_verdict is None:
            full = min(len(request.prompt) // BLOCK_ROWS, len(request.digests))
            self.cache.pool.index(request.sequence.blocks[:full], request.digests[:full])
        request.last_verdict = Verdict(
            request_id=block.request_id,
            round=block.round,
            start=block.start,
            num_accepted=num_accepted,
            token_ids=token_ids,
            logprobs=logprobs,
        )
        return request.last_verdict


def _rows_read(
    batch: FlatBatch,
    anchors: Sequence[int],  # flat row of each block's anchor
    widths: Sequence[int],
) -> list[int]:
    """Where the rows of every block are in what came out of the last layer."""
    place_of: dict[int, int] = {}
    if any(group.num_read is not None for group in batch.groups):
        place_of = {row: place for place, row in enumerate(row for group in batch.groups for row in group.read_rows())}
    rows = [anchor + offset for anchor, width in zip(anchors, widths, strict=True) for offset in range(width)]
    return [place_of[row] for row in rows] if place_of else rows


def prefix_digests(prompt: EncodedPrompt) -> tuple[str, ...]:
    """For each block of the prompt but the last row's, a digest of everything from the start to the block's end."""
    running = hashlib.blake2b(digest_size=16)
    names = [str(token_id) for token_id in prompt.token_ids]
    for segment in prompt.segments:
        names[segment.start : segment.stop] = [f"{segment.digest}:{row}" for row in range(segment.num_tokens)]
    digests = []
    # The last prompt row is always computed: its logits give the first token.
    for block in range((len(prompt) - 1) // BLOCK_ROWS):
        running.update(";".join(names[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]).encode() + b"|")
        digests.append(running.hexdigest())
    return tuple(digests)
