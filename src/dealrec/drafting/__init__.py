"""A first config for the user's files: look at them, guess what is what, and write it down with the reasons."""
