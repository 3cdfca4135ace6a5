"""Problems: loaders (jsonl, data sets that `datasets` opens, reasoning-gym) and the problem schema."""
