"""What is told of a real Ray cluster."""

from __future__ import annotations

import ray

from flashsd_ray.runtime.cluster import fits, nodes_of


def test_nodes_of_the_ray_that_runs_are_told_and_it_goes_on() -> None:
    (node,) = nodes_of("auto")
    assert fits({"CPU": 4.0}, node)
    assert not fits({"CPU": 5.0}, node)
    assert not fits({"target": 1.0}, node)
    assert ray.is_initialized()
