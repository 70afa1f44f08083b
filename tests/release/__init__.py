"""What a release has, built and used as its users do."""
