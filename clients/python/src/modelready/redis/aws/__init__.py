"""AWS: boto3 is imported only when it is used."""
