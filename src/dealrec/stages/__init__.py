"""The stages of the pipeline, a file each; `pipeline` puts them together."""

# In order. Named here as well as by the stages, since the command line must answer before it can import them.
STAGE_NAMES = (
    *("data", "surrogate", "influence", "surrogate_loss", "surrogate_loss_drop", "surrogate_error"),
    *("surrogate_state", "title_embedding", "text_embedding", "target_cluster", "warmstart", "length"),
    *(
        "pool",
        "signal_warmstart",
        "loss",
        "effort",
        "loss_drop",
        "alignment",
        "select",
        "export",
        "finetune",
        "evaluate",
        "compare",
        "report",
    ),
)
