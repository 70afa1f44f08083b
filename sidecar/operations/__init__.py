"""What an operator does with the queue: dead letters, following it, trimming, metrics."""
