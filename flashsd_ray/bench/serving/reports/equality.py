"""``serving-equality``: text and tokens through every edge and placement against an engine in this process."""

from __future__ import annotations

import argparse

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.clips import held_out_clips, mixed_asks
from flashsd_ray.bench.serving.equality import compare_all
from flashsd_ray.bench.serving.expected import expected_answers
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable

QUICK_CLIPS, CLIPS = 6, 100
SHOWN = 5  # mismatches; all of them are saved


def report(arguments: argparse.Namespace) -> Report:
    """The table is printed; it is sound when every answer is identical.

    Raises:
        FlashSDError: the model cannot be loaded, or a server did not come up.
    """
    configs = [config_of(arguments, placement) for placement in arguments.placements]
    asks = mixed_asks(held_out_clips(arguments.clips or (QUICK_CLIPS if arguments.quick else CLIPS)))
    expected = expected_answers(configs[0], asks)
    by_name = {ask.name: ask for ask in asks}
    table = MarkdownTable("placement", "edge", "at a time", "identical to the engine")
    rows, shown = [], []
    for agreement in compare_all(configs, asks, expected, arguments.concurrencies):
        identical = f"{agreement.num_identical}/{agreement.num_answers}"
        table.row(agreement.placement, agreement.edge, agreement.concurrency, identical)
        rows.append(agreement.as_dict(by_name))
        shown += [
            f"{agreement.placement}, {agreement.edge}: {by_name[name].as_dict()}: {text}"
            for name, text in agreement.mismatches.items()
        ]
    for line in shown[:SHOWN]:
        print(line)
    return Report(rows, is_sound=not shown)
