"""Which request kills: what is concluded from lanes and encoders that were lost, without harm to bystanders.

Whoever was there when a lane died may be the cause. So each of its requests is tried again in smaller company: after
the first loss with few others, after that alone. Only who has lost a lane while nobody else was in it can run out of
tries; a bystander finishes at the first lane that it does not share with the cause.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALL_COMPANY = 4  # requests, this one included, after the first loss


def company_after(num_losses: int) -> int | None:
    """Most requests that may be decoded together with this one, itself included; None: as many as there are."""
    if num_losses == 0:
        return None
    return SMALL_COMPANY if num_losses == 1 else 1


def is_cause(num_losses: int, max_losses: int) -> bool:
    """Whether the request is refused from now on: it had its tries, the last of them alone."""
    return num_losses >= max_losses and company_after(num_losses - 1) == 1


def may_join(
    company: int,  # of the suspect that waits
    others: Sequence[int],  # companies of the suspects that have a place
    num_unsuspected: int,  # requests that run beside them
) -> bool:
    """Whether the suspect has a place now without anybody's company being exceeded."""
    num_present = num_unsuspected + len(others) + 1
    return num_present <= min((company, *others))
