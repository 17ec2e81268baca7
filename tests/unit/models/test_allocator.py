"""Memory of operations stays with the process where the C library can be told so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flashsd_ray.models import allocator

FAULTS = """
import resource, torch
from flashsd_ray.models.allocator import keep_freed_memory
assert keep_freed_memory()
rows = torch.zeros(2_000_000)
for number in range(40):
    if number == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    a = rows + 1.0
    b = a * 2.0
    del a, b
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_operations_find_the_memory_of_those_before_them() -> None:
    # 20 rounds of two results of 8 MB: 2000 pages each, had they been given back.
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2000


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False
