"""From the files of the user to splits, a catalogue and samples."""
