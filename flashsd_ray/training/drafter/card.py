"""The model card of a drafter: what a person wants to know before using it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def model_card(
    described: dict[str, Any],  # what the checkpoint's config.json says
) -> str:
    """Markdown, with a head that model hubs understand."""
    config, target, made = described["config"], described["target"], described["provenance"]
    quality, training = made["quality"], made["training"]
    length = f"{made['steps']} steps in {made['minutes']} minutes of training"
    workers = f" on {made['num_workers']} workers" if made["num_workers"] > 1 else ""
    rows = {
        "target": f"`{made['target']}`, fingerprint `{target['fingerprint']}`",
        "drafter": f"`{config['kind']}`, {made['num_parameters']:,} parameters, up to {config['draft_length']} tokens",
        "compressor": f"`{config['compressor']['name']}`, reads {config['source']}",
        "taps": f"layers {_listed(config['tap_layers'])} of {target['num_layers']}",
        "data": f"`{made['data']}`, {made['num_answers']:,} answers in memory, {made['num_left_out']} left out",
        "training": f"{length}{workers}, {training['num_readings']} answers x {training['num_anchors']} anchors a step",
        "losses": ", ".join(f"{name} {value:g}" for name, value in training["weights"].items()),
        "learning rate, seed": f"{training['learning_rate']:g}, {training['seed']}",
        "made with": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
    }
    parts = [
        f"---\nlibrary_name: flashsd_ray\nbase_model: {made['target']}\ntags: [speculative-decoding]\n---\n",
        f"# Drafter for {made['target']}\n",
        "It proposes tokens that its target then checks: it changes how fast an answer comes, never the answer. It "
        "holds no embedding and no head of its own and works with no other target.\n",
        _table(rows),
        "## On held-out data\n",
        _quality(quality),
        *_engine(made.get("engine", [])),
        f"## Made by\n\n```\n{made['command']}\n```\n",
        f"## Used by\n\n```\nflashsd serve --model {made['target']} --drafter DIRECTORY\n```\n",
    ]
    return "\n".join(parts)


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"


def _quality(quality: dict[str, Any]) -> str:
    lines = []
    if quality["num_greedy"]:
        lines.append(
            f"Greedy, {quality['num_greedy']} answers: tau {quality['greedy_tau']:.2f}; chance that slot i stands when "
            f"those before it do: {_shares(quality['greedy_slots'])}.\n"
        )
    if quality["num_sampled"]:
        lines.append(
            f"At temperature 1, {quality['num_sampled']} answers: expected tau {quality['sampled_tau']:.2f}; overlap of "
            f"the two distributions, slot by slot: {_shares(quality['sampled_slots'])}.\n"
        )
    return "\n".join(lines) or "Nothing was held out.\n"


def _engine(checked: Sequence[dict[str, Any]]) -> list[str]:
    if not checked:
        return []
    lines = ["Counted by the engine at full draft length, greedy:\n", "| drafter | tau | equal to plain decoding |"]
    lines.append("|---|---|---|")
    lines += [f"| `{c['drafter']}` | {c['tau']:.2f} | {c['num_equal']} of {c['num_answers']} |" for c in checked]
    return ["\n".join(lines) + "\n"]


def _shares(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
