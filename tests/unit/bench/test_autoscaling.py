"""What the measurement of autoscaling counts as sound, and what its cluster is made of; no cluster runs here."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.bench.serving import networks
from flashsd_ray.bench.serving.autoscaling import Answered, Moment, Run
from flashsd_ray.bench.serving.certificates import certificates
from flashsd_ray.bench.serving.figures import draw_scaling
from flashsd_ray.bench.serving.networks import two_places


def moment(at_s: float, lanes: int, nodes: int) -> Moment:
    return Moment(at_s=at_s, open_requests=1, replicas={"lane actual": lanes}, nodes={"lane": nodes, "edge": 1})


RUN = Run(
    moments=(moment(0, 1, 1), moment(1, 3, 3), moment(2, 1, 1)),
    answers=(Answered(phase="busy", start_s=0.5, end_s=1.5),),
    phases=(("calm", 0.0), ("busy", 0.4)),
    fewest=1,
    most=3,
)


def test_a_run_is_sound_when_lanes_and_nodes_came_and_went() -> None:
    assert RUN.is_sound
    assert RUN.as_dict()["lanes"] == {"fewest": 1, "most": 3, "first": 1, "peak": 3, "last": 1}


@pytest.mark.parametrize(
    "broken",
    [
        replace(RUN, moments=(moment(0, 1, 1), moment(1, 2, 2), moment(2, 1, 1))),
        replace(RUN, moments=(moment(0, 1, 3), moment(1, 3, 3), moment(2, 1, 3))),
        replace(RUN, moments=(moment(0, 1, 1), moment(1, 3, 3), moment(2, 2, 2))),
        replace(RUN, answers=(Answered(phase="busy", start_s=0.5, end_s=1.5, fault="a wrong token"),)),
    ],
    ids=["too few lanes", "no node came or went", "a lane stayed", "a wrong answer"],
)
def test_it_is_not_when_anything_is_missing(broken: Run) -> None:
    assert not broken.is_sound


def test_a_figure_is_drawn_of_it(tmp_path: Path) -> None:
    draw_scaling(RUN, tmp_path / "run.svg")
    drawn = (tmp_path / "run.svg").read_text()
    assert "<svg" in drawn


def test_a_certificate_is_good_for_its_authority_and_hidden_from_others(tmp_path: Path) -> None:
    made = certificates(tmp_path, ["10.1.2.3"])
    assert made.key.stat().st_mode & 0o077 == 0
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    client = ssl.create_default_context(cafile=str(made.authority))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="10.1.2.3"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].getpeercert()


def test_without_namespaces_both_nodes_stand_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_ip", lambda *words: False)
    with two_places() as (here, there):
        assert here == there
        assert not here.prefix
