"""The demo: the main job on MovieLens-100K, from what the package index has."""

# A half of the interactions for the warm start; all test users, as TIGER ranks for them in seconds.
TIGER = (
    "recommender=tiger",
    "data.warm_share=0.5",
    "tiger.text_encoder=all-minilm-l6-v2",
    "tiger.codes.codes=64",
    "tiger.t5.dropout=0",
    "tiger.max_items=10",
    "tiger.max_epochs=15",
    "pool.size=1.0",
    "loss_drop.validation_samples=2048",
    "loss_drop.epochs=2",
    "loss_drop.shard_size=4096",
    "loss_drop.batch_tokens=8192",
    "finetune.learning_rate=0.001",
    "evaluate.loss_users=null",
    "evaluate.ranking_users=null",
    "evaluate.batch_size=64",
    "evaluate.batch_tokens=8192",
    "evaluate.ks=[10,20]",
)
