"""One frozen tree of settings: every limit and every choice has a name here, and unknown names are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from flashsd_ray.errors import ConfigError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaConfig:
    """How files become frames, and how large they may be."""

    num_frames: int = field(default=8, metadata={"help": "frames sampled uniformly from a video"})
    fps: float | None = field(default=None, metadata={"help": "sample by this rate instead of by count"})
    max_frames: int = field(default=128, metadata={"help": "most frames taken from one video or directory"})
    max_bytes: int = field(default=2 * 2**30, metadata={"help": "largest file that is opened"})
    max_duration_s: float = field(default=4 * 3600.0, metadata={"help": "longest video that is read"})
    max_pixels: int = field(default=64 * 2**20, metadata={"help": "most pixels of one decoded picture"})
    max_decoded_bytes: int = field(default=2**30, metadata={"help": "most memory for the sampled frames of one input"})
    max_streams: int = field(default=64, metadata={"help": "most streams in one container"})
    max_decode_s: float = field(default=120.0, metadata={"help": "longest time spent on decoding one input"})
    max_inputs: int = field(default=64, metadata={"help": "most images and videos in one request"})
    max_image_bytes: int = field(default=256 * 2**20, metadata={"help": "largest still or animated picture file"})
    max_source_frames: int = field(default=2_000_000, metadata={"help": "most frames a video or directory may hold"})
    directory_fps: float = field(default=24.0, metadata={"help": "frame rate that a directory of frames stands for"})

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is not positive."""
        for item in fields(self):
            value = getattr(self, item.name)
            _check(value is None or value > 0, f"media.{item.name} must be positive, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which target is loaded, and how."""

    name: str = field(default="demo", metadata={"help": "hub id, local directory, or 'demo' for the bundled model"})
    dtype: Literal["auto", "float32", "bfloat16"] = field(
        default="auto", metadata={"help": "auto: bfloat16 where the device multiplies it fast, else float32"}
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1 ..."})
    threads: int = field(
        default=0, metadata={"help": "CPU threads of one operation; 0: one for small models, torch's choice for others"}
    )
    attention: Literal["auto", "float32", "model"] = field(
        default="auto",
        metadata={
            "help": "dtype of attention's products on a CPU; model: that of the weights, faster for many requests at a "
            "time; auto: model for corpora and on processors with fast small products (AVX-512 BF16 without AMX), else "
            "float32"
        },
    )
    tensor_parallel: int = field(
        default=1, metadata={"help": "ranks that share every layer of the target, each with a device of its own"}
    )
    rank_timeout_s: float = field(
        default=30.0, metadata={"help": "a rank that is silent for so long within a round takes its lane down"}
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when a number is out of range."""
        _check(self.threads >= 0, f"model.threads must be 0 (auto) or positive, got {self.threads}")
        _check(self.tensor_parallel > 0, f"model.tensor_parallel must be positive, got {self.tensor_parallel}")
        _check(self.rank_timeout_s > 0, f"model.rank_timeout_s must be positive, got {self.rank_timeout_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationConfig:
    """Who drafts, how far, and how drafts are judged."""

    drafter: str = field(default="auto", metadata={"help": "auto, a registered drafter, or a checkpoint directory"})
    compressor: str = field(default="auto", metadata={"help": "auto: the one the drafter was trained with"})
    draft_length: int = field(default=0, metadata={"help": "tokens drafted per round; 0: as many as the drafter can"})
    acceptance: Literal["coupled", "rejection"] = field(
        default="coupled",
        metadata={"help": "sampling rule; coupled: same seed, same text whatever the drafter; both are lossless"},
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when the draft length is negative."""
        _check(
            self.draft_length >= 0, f"speculation.draft_length must be 0 (auto) or positive, got {self.draft_length}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingConfig:
    """How many requests are decoded together, and in how much memory."""

    max_running: int = field(default=32, metadata={"help": "most requests decoded at the same time"})
    max_waiting: int = field(default=1024, metadata={"help": "most requests waiting for a place"})
    cache_rows: int = field(default=16384, metadata={"help": "token positions that the target's KV cache holds"})
    prefill_rows: int = field(default=1024, metadata={"help": "most prompt positions forwarded in one round"})
    max_new_tokens: int = field(default=4096, metadata={"help": "largest max_new_tokens a request may ask for"})
    share_prefixes: bool = field(default=True, metadata={"help": "requests that begin alike share cache rows"})
    stream_interval_s: float = field(
        default=0.05,
        metadata={"help": "tokens leave a lane at most so often; the first and the last of an answer leave at once"},
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is not positive."""
        may_be_zero = ("share_prefixes", "stream_interval_s")
        for item in fields(self):
            value = getattr(self, item.name)
            _check(value > 0 or item.name in may_be_zero, f"scheduling.{item.name} must be positive")
        _check(self.stream_interval_s >= 0, "scheduling.stream_interval_s must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig:
    """Which process holds which part of the pipeline, and what it may use there."""

    kind: Literal["local", "colocated", "dedicated"] = field(
        default="colocated",
        metadata={
            "help": "local: everything in one process, no Ray; colocated: lanes and encoders are actors, drafters live "
            "with their targets; dedicated: drafters have processes of their own"
        },
    )
    num_lanes: int = field(default=1, metadata={"help": "targets that decode side by side"})
    num_encoders: int = field(default=1, metadata={"help": "processes with a vision tower"})
    cohorts: int = field(
        default=0, metadata={"help": "groups of requests that take turns; 0: two for a dedicated drafter, else one"}
    )
    lane_cpus: float = field(default=1.0, metadata={"help": "CPUs reserved for a lane"})
    lane_gpus: float = field(default=0.0, metadata={"help": "GPUs reserved for a lane"})
    encoder_cpus: float = field(default=0.5, metadata={"help": "CPUs reserved for an encoder"})
    encoder_gpus: float = field(default=0.0, metadata={"help": "GPUs reserved for an encoder"})
    drafter_cpus: float = field(default=0.5, metadata={"help": "CPUs reserved for a dedicated drafter"})
    drafter_gpus: float = field(default=0.0, metadata={"help": "GPUs reserved for a dedicated drafter"})
    lane_resources: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Ray's custom resources for a lane, name:amount; they name the nodes it may go to"},
    )
    encoder_resources: tuple[str, ...] = field(default=(), metadata={"help": "the same for an encoder"})
    drafter_resources: tuple[str, ...] = field(default=(), metadata={"help": "the same for a dedicated drafter"})
    edge_resources: tuple[str, ...] = field(
        default=(), metadata={"help": "the same for an edge and the fleet, which must not stand on nodes that may go"}
    )
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = field(
        default="PACK",
        metadata={"help": "how the parts of a lane are laid over nodes: together or apart, STRICT: or not at all"},
    )
    drafter_timeout_s: float = field(
        default=5.0, metadata={"help": "a dedicated drafter that is silent for so long is given up: nothing is drafted"}
    )
    drafter_retry_s: float = field(default=2.0, metadata={"help": "time between attempts to reach a lost drafter"})
    drafter_message_bytes: int = field(
        default=256 * 2**20, metadata={"help": "largest message between a lane and its dedicated drafter"}
    )
    start_timeout_s: float = field(default=300.0, metadata={"help": "longest time that starting a part may take"})
    health_period_s: float = field(default=2.0, metadata={"help": "time between two looks at every part"})
    health_timeout_s: float = field(
        default=30.0, metadata={"help": "a part that does not answer for so long is replaced"}
    )

    round_timeout_s: float = field(
        default=300.0, metadata={"help": "a lane whose thread is in one round for so long hangs, and is replaced"}
    )
    edge_timeout_s: float = field(
        default=30.0, metadata={"help": "requests of an edge that is silent for so long leave the lanes"}
    )
    max_losses: int = field(
        default=4,
        metadata={
            "help": "lanes, or encoders, that may be lost under one request, the last of them with nobody else in it, "
            "before it is refused as their cause"
        },
    )
    quarantine_s: float = field(
        default=600.0, metadata={"help": "what was refused as a cause of losses is refused at once for so long"}
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when there would be no lane."""
        _check(self.num_lanes > 0, "placement.num_lanes must be positive")
        _check(self.num_encoders > 0, "placement.num_encoders must be positive")
        _check(0 <= self.cohorts <= 2, f"placement.cohorts must be 0 (auto), 1 or 2, got {self.cohorts}")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple):
                amounts(value, f"placement.{item.name}")
            elif not isinstance(value, str):
                _check(value >= 0, f"placement.{item.name} must not be negative, got {value}")
        for name in ("drafter_timeout_s", "drafter_message_bytes", "round_timeout_s", "quarantine_s"):
            _check(getattr(self, name) > 0, f"placement.{name} must be positive")
        _check(
            self.edge_timeout_s > 2 * self.health_period_s,
            "placement.edge_timeout_s must be more than two of placement.health_period_s",
        )
        _check(self.max_losses >= 3, "placement.max_losses must be at least 3: in a crowd, in small company, and alone")


def amounts(
    pairs: tuple[str, ...],  # each "name:amount"
    path: str,
) -> dict[str, float]:
    """The amount of each resource.

    Raises:
        ConfigError: a pair has another form, or an amount is not positive; the message names the setting.
    """
    found = {}
    for pair in pairs:
        name, _, amount = pair.rpartition(":")
        _check(bool(name) and _is_positive(amount), f"{path} must be name:amount with positive amounts, got {pair!r}")
        found[name] = float(amount)
    return found


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingConfig:
    """How many lanes, encoders and edges there are while the load changes; each scales where its maximum is set."""

    min_lanes: int = field(default=1, metadata={"help": "fewest lanes; 0: a request after a rest waits for the first"})
    max_segments: int = field(default=1000, metadata={"help": "most segments that one clip may be cut into"})
    max_lanes: int = field(default=0, metadata={"help": "most lanes; 0: always placement.num_lanes"})
    min_encoders: int = field(default=1, metadata={"help": "fewest encoders; 0: as with lanes"})
    max_encoders: int = field(default=0, metadata={"help": "most encoders; 0: always placement.num_encoders"})
    min_edges: int = field(default=1, metadata={"help": "fewest replicas of the HTTP edge, and of the gRPC edge"})
    max_edges: int = field(default=0, metadata={"help": "most of each; 0: always one"})
    target_requests_per_lane: float = field(
        default=0.0, metadata={"help": "requests that a lane should have; 0: three quarters of scheduling.max_running"}
    )
    target_cache_share: float = field(
        default=0.9, metadata={"help": "part of its KV cache that requests of a lane should hold"}
    )
    target_frames_per_encoder: float = field(
        default=64.0, metadata={"help": "frames that should wait for an encoder at most"}
    )
    target_busy_share: float = field(
        default=0.9, metadata={"help": "part of the time that an encoder or a dedicated drafter should be busy"}
    )
    target_requests_per_edge: float = field(
        default=0.0, metadata={"help": "open requests that an edge should have; 0: half of serving.max_open_requests"}
    )
    max_queue_wait_s: float = field(
        default=2.0, metadata={"help": "where requests wait longer for a lane, more lanes are started without delay"}
    )
    tolerance: float = field(
        default=0.1, metadata={"help": "part by which targets may be exceeded before another one is started"}
    )
    smoothing_s: float = field(default=3.0, metadata={"help": "time over which the load is averaged for scaling up"})
    upscale_delay_s: float = field(default=5.0, metadata={"help": "more must have been needed for so long"})
    downscale_delay_s: float = field(default=300.0, metadata={"help": "fewer must have been enough for so long"})
    downscale_to_zero_delay_s: float = field(
        default=600.0, metadata={"help": "the last one must have had nothing to do for so long"}
    )
    drain_timeout_s: float = field(
        default=600.0,
        metadata={"help": "longest time that one which goes gets for what it has; the rest goes to another"},
    )
    interval_s: float = field(default=1.0, metadata={"help": "time between two looks at the load"})

    def __post_init__(self) -> None:
        """Raises ConfigError when a number is out of range or a minimum exceeds its maximum."""
        for item in fields(self):
            _check(getattr(self, item.name) >= 0, f"autoscaling.{item.name} must not be negative")
        for role in ("lanes", "encoders", "edges"):
            least, most = getattr(self, f"min_{role}"), getattr(self, f"max_{role}")
            _check(not most or least <= most, f"autoscaling.min_{role} must not exceed autoscaling.max_{role}")
        _check(self.min_edges > 0, "autoscaling.min_edges must be positive: without an edge nobody hears a client")
        for name in ("target_cache_share", "target_frames_per_encoder", "target_busy_share", "interval_s"):
            _check(getattr(self, name) > 0, f"autoscaling.{name} must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingConfig:
    """How pictures of many requests go through the vision tower."""

    batch_frames: int = field(default=32, metadata={"help": "most frames encoded in one turn"})
    batch_wait_s: float = field(default=0.002, metadata={"help": "time a turn waits for more frames to join it"})
    images_per_forward: int = field(
        default=0,
        metadata={
            "help": "small images of one size in one forward of the vision tower, on which bfloat16 features depend; "
            "0: 4, and 16 for a corpus"
        },
    )
    max_waiting_frames: int = field(default=4096, metadata={"help": "most frames waiting for an encoder"})
    max_aspect_ratio: float = field(
        default=200.0, metadata={"help": "longest side of a picture over its shortest, which many models scale up"}
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is out of range."""
        _check(self.max_aspect_ratio >= 1, f"encoding.max_aspect_ratio must be at least 1, got {self.max_aspect_ratio}")
        _check(self.batch_frames > 0, "encoding.batch_frames must be positive")
        _check(self.batch_wait_s >= 0, "encoding.batch_wait_s must not be negative")
        _check(self.images_per_forward >= 0, "encoding.images_per_forward must not be negative")
        _check(self.max_waiting_frames > 0, "encoding.max_waiting_frames must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoresConfig:
    """Where encoded frames are kept between requests, and for how long lost sessions are."""

    url: str = field(
        default="memory://",
        repr=False,  # it may hold a password
        metadata={"help": "memory://, or redis://user:password@host:6379/0, rediss:// for TLS, unix:///path/of/socket"},
    )
    prefix: str = field(default="flashsd", metadata={"help": "first part of every key in a shared Redis"})
    memory_bytes: int = field(
        default=64 * 2**20,
        metadata={"help": "memory for what would be kept in Redis, in each process"},
    )
    latent_bytes: int = field(default=512 * 2**20, metadata={"help": "memory for encoded frames, in each process"})
    max_value_bytes: int = field(default=64 * 2**20, metadata={"help": "largest value that is written or read"})
    latent_ttl_s: float = field(
        default=3600.0, metadata={"help": "encoded frames in Redis are forgotten after this time"}
    )
    session_ttl_s: float = field(default=900.0, metadata={"help": "lost sessions can be resumed for so long"})
    timeout_s: float = field(default=0.5, metadata={"help": "longest wait for one answer of Redis"})
    retry_s: float = field(default=2.0, metadata={"help": "time between attempts to reach a Redis that was lost"})
    tls_ca: str = field(default="", metadata={"help": "certificates that a rediss:// server is checked against"})
    password_file: str = field(
        default="", metadata={"help": "file that holds the password of Redis, in place of one in stores.url"}
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when the address has a form that nothing here can open."""
        # The address is not repeated: it may hold a password.
        known = ("memory://", "redis://", "rediss://", "unix://")
        _check(self.url.startswith(known), f"stores.url must begin with one of {', '.join(known)}")
        for name in (
            "memory_bytes",
            "latent_bytes",
            "max_value_bytes",
            "latent_ttl_s",
            "session_ttl_s",
            "timeout_s",
            "retry_s",
        ):
            _check(getattr(self, name) > 0, f"stores.{name} must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """What the edges listen on, and what a client may ask of them."""

    host: str = field(default="127.0.0.1", metadata={"help": "address that the edges listen on"})
    http_port: int = field(default=8000, metadata={"help": "port of the HTTP interface; 0: any free one"})
    grpc_port: int = field(default=9000, metadata={"help": "port of the gRPC interface; 0: any free one"})
    model_name: str = field(default="", metadata={"help": "what clients call the model; empty: its name"})
    max_body_bytes: int = field(default=64 * 2**20, metadata={"help": "largest HTTP body or gRPC message accepted"})
    max_choices: int = field(default=8, metadata={"help": "most answers to one request (n)"})
    max_stop_strings: int = field(default=16, metadata={"help": "most stop strings of one request"})
    max_prompt_characters: int = field(default=100_000, metadata={"help": "most characters of text in one request"})
    max_open_requests: int = field(default=256, metadata={"help": "most requests open at one edge"})
    max_open_bytes: int = field(
        default=4 * 2**30,
        metadata={"help": "most memory for bodies and pictures of all open requests at one HTTP edge"},
    )
    max_json_values: int = field(
        default=200_000, metadata={"help": "most commas and brackets in one JSON body, those inside texts too"}
    )
    default_max_new_tokens: int = field(
        default=512, metadata={"help": "longest answer where an HTTP client names no length; at most the model's own"}
    )
    default_temperature: float = field(
        default=1.0, metadata={"help": "temperature where an HTTP client names none; 1 is what OpenAI's clients expect"}
    )
    decode_threads: int = field(default=2, metadata={"help": "threads that decode pictures at one HTTP edge"})
    request_timeout_s: float = field(default=600.0, metadata={"help": "longest time an answer may take"})
    allowed_hosts: tuple[str, ...] = field(
        default=(), metadata={"help": "hosts that pictures may be fetched from, comma-separated; none unless named"}
    )
    allowed_directories: tuple[str, ...] = field(
        default=(), metadata={"help": "directories that file:// addresses may point into; none unless named"}
    )
    fetch_timeout_s: float = field(default=10.0, metadata={"help": "longest time that fetching a picture may take"})
    tls_certificate: str = field(default="", metadata={"help": "PEM file; together with tls_key switches TLS on"})
    tls_key: str = field(default="", metadata={"help": "PEM file of the private key"})
    tls_client_ca: str = field(default="", metadata={"help": "PEM file; clients must show a certificate signed by it"})
    keys_file: str = field(default="", metadata={"help": "file of API keys, one `name:key` a line; empty: no keys"})
    requests_per_minute: float = field(
        default=0.0, metadata={"help": "most requests a minute of one caller, or of all without keys; 0: no limit"}
    )
    burst_requests: int = field(
        default=10, metadata={"help": "most requests at once that requests_per_minute lets a rested caller make"}
    )
    concurrent_requests: int = field(
        default=0, metadata={"help": "most open requests of one caller, or of all without keys; 0: no limit"}
    )
    keepalive_s: float = field(default=30.0, metadata={"help": "time between signs of life on an idle connection"})
    drain_timeout_s: float = field(default=30.0, metadata={"help": "longest time that open answers get at shutdown"})

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is out of range or half of a TLS pair is missing."""
        for item in fields(self):
            value = getattr(self, item.name)
            _check(not isinstance(value, (int, float)) or value >= 0, f"serving.{item.name} must not be negative")
        _check(self.burst_requests > 0, "serving.burst_requests must be positive")
        _check(
            bool(self.tls_certificate) == bool(self.tls_key), "serving.tls_certificate and serving.tls_key go together"
        )
        _check(not self.tls_client_ca or bool(self.tls_key), "serving.tls_client_ca needs serving.tls_certificate")
        for name in ("default_max_new_tokens", "decode_threads", "fetch_timeout_s", "request_timeout_s"):
            _check(getattr(self, name) > 0, f"serving.{name} must be positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsConfig:
    """How live video is kept while it is watched."""

    max_sessions: int = field(default=256, metadata={"help": "most sessions open at one edge"})
    keep_first: int = field(default=4, metadata={"help": "frames from the start of a stream that are never dropped"})
    max_frames: int = field(default=48, metadata={"help": "most frames of a stream that an answer looks at"})
    drop_frames: int = field(
        default=16, metadata={"help": "frames dropped at a time when a stream is full; the rest is prefilled again"}
    )
    max_waiting_frames: int = field(default=16, metadata={"help": "frames that may arrive ahead of the encoder"})
    max_frame_bytes: int = field(
        default=16 * 2**20, metadata={"help": "largest frame, encoded or raw, and chunk of a container"}
    )
    max_frames_per_second: float = field(default=60.0, metadata={"help": "fastest stream accepted on average"})
    idle_timeout_s: float = field(default=120.0, metadata={"help": "a session that is silent for so long is closed"})
    frame_rate: float = field(
        default=2.0,
        metadata={"help": "frames a second taken from a container, and that frames without times stand for"},
    )
    max_waiting_asks: int = field(default=8, metadata={"help": "most questions of a session that wait for their turn"})
    max_waiting_events: int = field(
        default=256, metadata={"help": "events that may wait for a slow client before its session pauses"}
    )
    max_held_bytes: int = field(
        default=4 * 2**30,
        metadata={"help": "memory for the frames of all sessions at one edge, lost clients' included"},
    )
    keep_in_store: bool = field(
        default=True,
        metadata={
            "help": "sessions are kept in stores.url where that is shared, frames and texts included, so that clients "
            "find theirs again when an edge is lost"
        },
    )
    reserved_tokens: int = field(
        default=1024,
        metadata={
            "help": "positions of the model's context that frames leave to questions and answers; a quarter at most"
        },
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is not positive, or nothing recent would be left after dropping."""
        for item in fields(self):
            may_be_zero = item.name in ("keep_first", "keep_in_store")
            _check(getattr(self, item.name) > 0 or may_be_zero, f"sessions.{item.name} must be positive")
        _check(self.keep_first >= 0, "sessions.keep_first must not be negative")
        _check(
            self.keep_first + self.drop_frames < self.max_frames,
            "sessions.keep_first and sessions.drop_frames must leave room within sessions.max_frames",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """What the running system says about itself."""

    log_level: Literal["debug", "info", "warning", "error"] = field(default="info", metadata={"help": "least severity"})
    log_format: Literal["text", "json"] = field(default="text", metadata={"help": "json: one object a line"})
    otlp_endpoint: str = field(
        default="",
        metadata={"help": "collector that traces are sent to over gRPC, http://host:4317 or https://; empty: nowhere"},
    )
    trace_ratio: float = field(default=1.0, metadata={"help": "share of requests that are traced"})
    trace_timeout_s: float = field(default=2.0, metadata={"help": "longest time that sending some traces may take"})

    def __post_init__(self) -> None:
        """Raises ConfigError when the share is not one, or the collector's address cannot be one."""
        _check(0.0 <= self.trace_ratio <= 1.0, f"telemetry.trace_ratio must be in 0..1, got {self.trace_ratio}")
        _check(self.trace_timeout_s > 0, "telemetry.trace_timeout_s must be positive")
        _check(
            not self.otlp_endpoint or self.otlp_endpoint.startswith(("http://", "https://")),
            f"telemetry.otlp_endpoint must begin with http:// or https://, got {self.otlp_endpoint!r}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """How a corpus is cut into work, and how much of it is under way at a time."""

    rows_per_unit: int = field(default=64, metadata={"help": "rows that are written and resumed together"})
    rows_per_parcel: int = field(default=8, metadata={"help": "rows that are read by one task and travel together"})
    parcel_bytes: int = field(
        default=64 * 2**20, metadata={"help": "most memory for frames that travel together; one segment always may"}
    )
    max_segments: int = field(default=1000, metadata={"help": "most segments of one clip"})
    max_lanes: int = field(default=0, metadata={"help": "most lanes; 0: always placement.num_lanes"})
    decode_workers: int = field(
        default=0, metadata={"help": "most tasks that read clips; 0: as many as there are CPUs"}
    )
    decode_cpus: float = field(default=1.0, metadata={"help": "CPUs reserved for a task that reads clips"})
    max_attempts: int = field(
        default=3, metadata={"help": "workers that may die of the same rows before these become error rows"}
    )
    remembered_answers: int = field(
        default=10_000, metadata={"help": "answers that a lane keeps for rows with the same content"}
    )
    latent_bytes: int = field(
        default=32 * 2**20,
        metadata={
            "help": "memory of a lane for encoded frames, in place of stores.latent_bytes: a corpus has few twice"
        },
    )
    prepared_products: int = field(
        default=128,
        metadata={
            "help": "products of matrices that a lane's CPU library keeps prepared, 0.6 MB each; it would keep 1024"
        },
    )
    lease_s: float = field(
        default=30.0, metadata={"help": "units of a driver that is silent for so long go to another one"}
    )

    def __post_init__(self) -> None:
        """Raises ConfigError when a limit is not positive."""
        for item in fields(self):
            is_optional = item.name in ("max_lanes", "decode_workers")
            value = getattr(self, item.name)
            _check(value > 0 or (is_optional and value == 0), f"batch.{item.name} must be positive, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that can be set."""

    model: ModelConfig = field(default_factory=ModelConfig)
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    scheduling: SchedulingConfig = field(default_factory=SchedulingConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    autoscaling: AutoscalingConfig = field(default_factory=AutoscalingConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    stores: StoresConfig = field(default_factory=StoresConfig)
    serving: ServingConfig = field(default_factory=ServingConfig)
    sessions: SessionsConfig = field(default_factory=SessionsConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)


def from_mapping(
    settings: Mapping[str, Any],  # sections, each a mapping of names to values, as a YAML or JSON file holds them
) -> Config:
    """The defaults with everything set that the mapping says.

    Raises:
        ConfigError: a name is unknown or a value has the wrong type.
    """
    assignments = []
    for section, values in settings.items():
        _check(isinstance(values, Mapping), f"section {section!r} must hold names and values, got {values!r}")
        assignments += [f"{section}.{name}={_as_text(value)}" for name, value in values.items()]
    return with_overrides(Config(), assignments)


def _as_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def with_overrides(
    config: Config,
    assignments: Iterable[str],  # each "section.name=value"
) -> Config:
    """A copy of the config in which every assignment holds.

    Raises:
        ConfigError: a name is unknown (the nearest valid one is named) or a value has the wrong type.
    """
    changes: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        section_name, dot, name = path.strip().partition(".")
        _check(bool(equals and dot), f"expected section.name=value, got {assignment!r}")
        section = _lookup(config, section_name, section_name)
        _check(is_dataclass(section), f"{section_name} is not a section")
        _lookup(section, name, path.strip())
        value = _parse(text.strip(), get_type_hints(type(section))[name], path.strip())
        changes.setdefault(section_name, {})[name] = value
    # One replacement for each section: some settings are only right together.
    return replace(config, **{name: replace(getattr(config, name), **values) for name, values in changes.items()})


def _lookup(node: Any, name: str, path: str) -> Any:
    names = [item.name for item in fields(node)]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ConfigError(f"unknown setting {path!r}; did you mean {close[0]!r}? Known here: {', '.join(names)}")
    return getattr(node, name)


def _parse(text: str, annotation: Any, path: str) -> Any:
    choices = [a for a in get_args(annotation) if isinstance(a, str)]
    if choices:
        _check(text in choices, f"{path} must be one of {', '.join(choices)}, got {text!r}")
        return text
    if get_origin(annotation) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    kinds = set(get_args(annotation) or (annotation,))
    if type(None) in kinds and text in ("", "none", "null"):
        return None
    if bool in kinds:
        _check(text in ("true", "false"), f"{path} must be true or false, got {text!r}")
        return text == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise ConfigError(f"{path} must be a number ({kind.__name__}), got {text!r}") from None
    return text
