"""Handing the samples of an arm to a fine-tuning stack: one file per stack."""
