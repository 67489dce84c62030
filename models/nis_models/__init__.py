"""The training pipeline: data, tokenizer, training, evaluation, export. Never imported by nis_edge."""
