"""Files -> problems, demonstrations and pairs -> token ids -> batches and micro-batches."""
