"""``flashsd batch``: caption a corpus; can be killed at any moment and started again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.parsing import UsageError, count_int, positive_int, positive_number
from flashsd_ray.cli.settings import add_model_options, add_sampling_options, config_of, sampling_of
from flashsd_ray.config import Config, with_overrides

if TYPE_CHECKING:
    from flashsd_ray.batch.inputs import Corpus
    from flashsd_ray.batch.job import Job
    from flashsd_ray.batch.outputs import Writer
    from flashsd_ray.batch.run import Run
    from flashsd_ray.batch.tallies import Summary

HELP = "caption a corpus: directories, manifests or shards, on this machine or a cluster"
EXAMPLES = """\
examples:
  flashsd batch videos/ --output captions/
  flashsd batch manifest.jsonl --output captions/ --segment window:10 --format parquet,vtt
  flashsd batch videos/ --output captions/ --dry-run
  flashsd batch videos/ --output captions/ --retry-failed
  flashsd batch s3://bucket/shards/ --output s3://bucket/captions/ --address auto --lanes 8 --ledger redis://host

exit codes: 0 all captioned, 1 some rows failed or --max-errors stopped the run, 2 it could not be done, 130 interrupted
"""
SAMPLE = 8  # rows that --dry-run captions
DIFFERENT, DONE = 1, 0


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("batch", help=HELP, description=HELP.capitalize() + ".", epilog=EXAMPLES)
    parser.add_argument("input", metavar="INPUT", nargs="+", help="directory, pattern, manifest, tar shard or file")
    parser.add_argument("--output", metavar="DIR", required=True, help="directory or address; what is there is done")
    _add_question_options(parser)
    _add_work_options(parser)
    _add_output_options(parser)
    add_sampling_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def _add_question_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("questions")
    group.add_argument("--prompt", metavar="TEXT", action="append", default=[], help="what to ask; may be repeated")
    group.add_argument("--prompts-file", metavar="FILE", help="one prompt a line; a row's own prompt wins over all")
    group.add_argument("--segment", metavar="HOW", default="whole", help="whole (default), window:SECONDS or scenes")
    group.add_argument("--json-schema", metavar="FILE", help="captions must be JSON that fits this schema")
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("--frames", metavar="N", type=positive_int, help="frames of each segment (default: 8)")
    rate.add_argument("--fps", metavar="RATE", type=positive_number, help="frames per second instead")
    group.add_argument("--input-format", metavar="NAME", default="auto", help="of INPUT (default: by its name)")


def _add_work_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("work")
    group.add_argument("--lanes", metavar="N", type=positive_int, help="targets side by side (default: 1)")
    group.add_argument("--max-lanes", metavar="N", type=positive_int, help="lanes are added up to so many")
    group.add_argument("--workers", metavar="N", type=positive_int, help="tasks that read clips (default: free CPUs)")
    group.add_argument("--batch-size", metavar="N", type=positive_int, help="captions a lane decodes together")
    group.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster (default: a Ray of our own)")
    group.add_argument("--ledger", metavar="URL", help="redis://... where several drivers share the corpus")
    group.add_argument("--retry-failed", action="store_true", help="caption only rows that failed, in place")
    group.add_argument("--max-errors", metavar="N", type=count_int, help="stop when more rows than this have failed")
    group.add_argument("--force", action="store_true", help="go on in an output that was begun with other settings")
    group.add_argument("--dry-run", action="store_true", help="count, caption a few rows, estimate time; write nothing")
    group.add_argument("--cost-per-hour", metavar="X", type=positive_number, help="of a lane's machine, for --dry-run")


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        metavar="NAMES",
        default="parquet",
        help="comma-separated: parquet (default), jsonl, vtt, srt, webdataset",
    )
    group.add_argument("--no-report", action="store_true", help="no report.json and report.html at the end")


def run(arguments: argparse.Namespace) -> int:
    """The corpus is captioned as far as it can be; returns the exit code.

    Raises:
        UsageError: options exclude each other, or a package is missing.
        FlashSDError: the input, the output, the model or a setting is wrong.
    """
    check(arguments)
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("flashsd_ray"):
            raise
        raise UsageError(f"{error.name} is not installed; pip install 'flashsd_ray[batch]'") from error


def _run(arguments: argparse.Namespace) -> int:
    from flashsd_ray.batch.inputs import InputOptions, open_input
    from flashsd_ray.cli.loading import check_model_name, check_name
    from flashsd_ray.models import drafters
    from flashsd_ray.models.pretrained import BUNDLED_TARGETS

    job = job_of(arguments)
    if arguments.address is None:  # elsewhere there may be directories that are not here
        check_model_name(job.config.model.name, list(BUNDLED_TARGETS))
        if not Path(job.config.speculation.drafter).is_dir():
            check_name("drafter", job.config.speculation.drafter, drafters.names(), ", or a checkpoint's directory")
    source = open_input(arguments.input, InputOptions(arguments.input_format))
    if arguments.dry_run:
        print(_estimated(arguments, job, source))
        return DONE
    return _caption(arguments, job, source)


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError when options do not go together."""
    refusals = {
        "--prompt and --prompts-file exclude each other": arguments.prompt and arguments.prompts_file,
        "--retry-failed is for one driver; leave --ledger out": arguments.retry_failed and arguments.ledger,
        "--cost-per-hour goes with --dry-run": arguments.cost_per_hour and not arguments.dry_run,
        "--max-lanes must not be less than --lanes": (arguments.max_lanes or 10**9) < (arguments.lanes or 1),
        "--ledger must be redis://..., rediss://... or unix://...": (
            arguments.ledger and not arguments.ledger.startswith(("redis://", "rediss://", "unix://"))
        ),
    }
    for message, holds in refusals.items():
        if holds:
            raise UsageError(message)


def job_of(arguments: argparse.Namespace) -> Job:
    """What is done with every clip.

    Raises:
        UsageError: a file of prompts or a schema cannot be read.
        ConfigError: a setting or the schema is wrong.
    """
    from flashsd_ray.batch.job import Job
    from flashsd_ray.batch.segments import SegmentRule

    rule = SegmentRule.parse(arguments.segment)
    rule.check()
    return Job(
        config=_config(arguments),
        prompts=tuple(arguments.prompt or _lines(arguments.prompts_file)),
        sampling=sampling_of(arguments),
        num_frames=arguments.frames,
        fps=arguments.fps,
        segments=rule,
        json_schema=_text(arguments.json_schema) if arguments.json_schema else "",
        draft_length=arguments.draft_length,
    )


def _config(arguments: argparse.Namespace) -> Config:
    options = {"batch.max_lanes": arguments.max_lanes, "batch.decode_workers": arguments.workers}
    chosen = [f"{name}={value}" for name, value in options.items() if value is not None]
    return with_overrides(config_of(arguments), chosen)


def _lines(path: str | None) -> list[str]:
    if path is None:
        return []
    prompts = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not prompts:
        raise UsageError(f"{path} holds no prompt")
    return prompts


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _estimated(arguments: argparse.Namespace, job: Job, source: Corpus) -> str:
    import os

    from flashsd_ray.batch.estimate import estimate, sample
    from flashsd_ray.cli.batch_progress import duration
    from flashsd_ray.cli.terminal import Activity, visible

    activity = Activity()
    try:
        activity.says("counting rows")
        sampled = sample(source, SAMPLE)
        activity.says(f"captioning {len(sampled.clips)} of {sampled.num_rows} rows")
        lanes = arguments.lanes or 1
        readers = arguments.workers or max(1, (os.cpu_count() or 1) - 1)
        found = estimate(job, sampled, num_lanes=lanes, num_readers=readers)
    finally:
        activity.rests()
    lines = [f"{source.describe()}: {found.num_rows} rows; of {found.num_sampled} that were tried:"]
    lines += [f"  {visible(one.source)}: {visible(one.caption or one.error_message)}" for one in found.outcomes]
    lines.append(f"  {found.read_s:.2f} s of reading and {found.lane_s:.2f} s of a lane for a row")
    lines.append(f"about {duration(found.seconds)} with {lanes} lane(s) and {readers} task(s) that read")
    if arguments.cost_per_hour:
        lines.append(f"about {found.seconds / 3600 * lanes * arguments.cost_per_hour:.2f} for the lanes")
    return "\n".join(lines)


def _caption(arguments: argparse.Namespace, job: Job, source: Corpus) -> int:
    from flashsd_ray.batch.begun import begin, corpus_id, settings_of
    from flashsd_ray.batch.claims import SoleDriver
    from flashsd_ray.batch.outputs import Writer
    from flashsd_ray.batch.run import Run
    from flashsd_ray.cli.batch_progress import ProgressBar, told

    formats = tuple(name.strip() for name in arguments.format.split(",") if name.strip())
    writer = Writer(arguments.output, formats, job.config.media)
    settings = settings_of(job, source.fingerprint(), formats)
    begin(arguments.output, settings, force=arguments.force)
    claims: Any = SoleDriver()
    if arguments.ledger:
        from flashsd_ray.batch.redis_claims import open_claims

        corpus = corpus_id(arguments.output, settings)
        claims = open_claims(job.config.stores, arguments.ledger, corpus, job.config.batch.lease_s)
    with ProgressBar() as bar:
        work = Run(
            job=job,
            source=source,
            writer=writer,
            claims=claims,
            listener=bar,
            max_errors=arguments.max_errors,
            retries_failed=arguments.retry_failed,
            is_checked=not arguments.force,
        )
        summary = work.nothing() or _with_ray(work, arguments.address)
    report = "" if arguments.no_report else _report(writer, source, settings, summary)
    print(told(summary, arguments.output, report))
    return DIFFERENT if summary.stopped or summary.progress.num_errors else DONE


def _with_ray(work: Run, address: str | None) -> Summary:
    from flashsd_ray.batch.cluster import connected

    with connected(work.job.config, address):
        return work()


def _report(writer: Writer, source: Corpus, settings: dict[str, Any], summary: Summary) -> str:
    """Where the report is, or why there is none."""
    from flashsd_ray.batch.report import write_report
    from flashsd_ray.errors import StorageError

    try:
        place = write_report(writer, source=source.describe(), run=summary.as_dict(), settings=settings)
    except StorageError as error:
        return f"there is no report: {error}"
    return f"report: {place.address}"
