"""What a recipe will cost: memory, traffic and time, by stated arithmetic."""
