# The module applied to a simulated AWS with a new Redis. ElastiCache, which is not simulated whole, and the schedule, which
# would run the function, are played.

provider "aws" {
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}

override_resource {
  target = aws_elasticache_parameter_group.redis
}

override_resource {
  target = aws_elasticache_subnet_group.redis
}

override_resource {
  target = aws_elasticache_replication_group.redis
  values = {
    id                       = "models"
    arn                      = "arn:aws:elasticache:eu-west-1:123456789012:replicationgroup:models"
    primary_endpoint_address = "primary.models.cache.internal"
  }
}

override_resource {
  target = aws_secretsmanager_secret_rotation.redis
}

run "a_new_redis" {
  assert {
    condition     = local.environment.REDIS_HOST == "primary.models.cache.internal"
    error_message = "The sidecar must get the address of Redis."
  }
  assert {
    condition     = length(jsondecode(aws_secretsmanager_secret_version.redis[0].secret_string)["password"]) == 64
    error_message = "The secret holds the token."
  }
  assert {
    condition     = aws_cloudformation_stack.rotation[0].outputs["Arn"] == "arn:aws:lambda:eu-west-1:123456789012:function:models-rotation"
    error_message = "CloudFormation made the function."
  }
  assert {
    condition     = aws_lambda_permission.rotation[0].source_arn == aws_secretsmanager_secret.redis[0].arn
    error_message = "Secrets Manager may call it for this secret."
  }
}
