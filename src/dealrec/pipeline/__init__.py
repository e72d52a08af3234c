"""The way from interactions to a report, in stages that can be interrupted at any instant."""
