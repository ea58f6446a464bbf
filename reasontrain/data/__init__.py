"""Files become problems, demonstrations and pairs; those become a Batch of ids."""
