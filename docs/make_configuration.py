"""Writes docs/configuration.md from the configuration itself: ``python docs/make_configuration.py``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from flashsd_ray.config import Config

HEAD = """\
# Configuration

Every limit and every choice has a name. On the command line: `--set section.name=value`, as often as you like; an
unknown name is refused and the nearest one is named. In Python: `Config(media=MediaConfig(num_frames=16))`, or
`with_overrides(Config(), ["media.num_frames=16"])`. Options such as `--model` and `--frames` win over `--set`.

This page is written by `python docs/make_configuration.py`.
"""


def described(config: Config) -> str:
    """The page for this configuration, whose values are the defaults."""
    return HEAD + "".join(_section(item.name, getattr(config, item.name)) for item in fields(config))


def _section(name: str, section: Any) -> str:
    hints = get_type_hints(type(section))
    rows = [
        f"| `{name}.{item.name}` | {_default(getattr(section, item.name))} | {_help(item.metadata['help'], hints[item.name])} |"
        for item in fields(section)
    ]
    return (
        f"\n## {name}\n\n{(type(section).__doc__ or '').strip()}\n\n| setting | default | meaning |\n|---|---|---|\n"
        + ("\n".join(rows) + "\n")
    )


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "none" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _help(text: str, annotation: Any) -> str:
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    return f"{text} (one of {', '.join(choices)})" if choices else text


if __name__ == "__main__":
    page = Path(__file__).with_name("configuration.md")
    page.write_text(described(Config()), encoding="utf-8")
    print(f"wrote {page}")
