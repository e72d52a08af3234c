"""Handing the samples of an arm to a fine-tuning stack: one file per stack."""

from dealrec.exporting.jsonl import write_jsonl

__all__ = ["write_jsonl"]
