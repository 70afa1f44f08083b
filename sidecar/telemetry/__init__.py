"""What is sent to monitoring: metrics for CloudWatch, and traces."""
