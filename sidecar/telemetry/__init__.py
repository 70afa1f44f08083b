"""What leaves for monitoring: CloudWatch's embedded metrics and traces."""
