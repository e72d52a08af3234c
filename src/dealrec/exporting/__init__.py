"""Handing the samples of an arm to a fine-tuning stack: one file per stack."""

from dealrec.exporting.folder import Exported, export

__all__ = ["Exported", "export"]
