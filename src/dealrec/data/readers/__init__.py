"""Readers of the tables that users have: text, JSON Lines, Parquet, in one file or in parts; what is wrong with one."""
