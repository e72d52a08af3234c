"""The Python interface: `prune`, and tables of the libraries that users have."""
