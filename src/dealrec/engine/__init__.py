"""Runs stages and keeps their folders. It knows nothing of recommendation: another pipeline could use it."""
