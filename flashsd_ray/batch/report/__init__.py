"""What a corpus's captions came to: in figures for programs, as a page for people."""

from flashsd_ray.batch.report.writing import write_report

__all__ = ["write_report"]
