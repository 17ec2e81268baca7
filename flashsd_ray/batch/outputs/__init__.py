"""Outcomes out: rows in Parquet and JSON lines, subtitles, WebDataset shards; written whole or not at all."""

from flashsd_ray.batch.outputs.schema import COLUMNS, schema_table
from flashsd_ray.batch.outputs.writer import OUTPUT_FORMATS, ROW_FORMATS, Writer

__all__ = ["COLUMNS", "OUTPUT_FORMATS", "ROW_FORMATS", "Writer", "schema_table"]
