"""The stages of the pipeline, a file each; `pipeline` lists them in order."""
